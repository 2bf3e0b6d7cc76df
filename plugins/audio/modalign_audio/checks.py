"""What `modalign doctor` tries for audio: soundfile and torchaudio."""

from __future__ import annotations

from importlib import import_module
from typing import final

from modalign.checks import library
from modalign.integrations.mates import mate
from modalign.roles import Check, CheckResult


@final
class SoundFile(Check):
    """What reads and writes sounds."""

    def __call__(self) -> CheckResult:
        return library("soundfile", extra="audio")


@final
class TorchAudio(Check):
    """Torchaudio: what resamples, and what breaks transformers where it is broken."""

    def __call__(self) -> CheckResult:
        return mate(
            "torchaudio",
            attempt=lambda: import_module("torchaudio.functional").resample,
            breaks="every model of transformers and peft, which import it wherever it is installed, and resampling",
        )
