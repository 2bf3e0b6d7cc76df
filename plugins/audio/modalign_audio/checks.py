"""What `modalign doctor` tries for audio: soundfile, and torchaudio where it is installed."""

from __future__ import annotations

from typing import final

from modalign.checks import library
from modalign.integrations.mates import torch_mate
from modalign.roles import Check, CheckResult


@final
class SoundFile(Check):
    """What reads and writes sounds."""

    def __call__(self) -> CheckResult:
        return library("soundfile", extra="audio")


@final
class TorchAudio(Check):
    """Torchaudio: optional, but where it is installed and broken, transformers breaks too."""

    def __call__(self) -> CheckResult:
        return library("torchaudio", fix=f"{torch_mate('torchaudio')}, or pip uninstall -y torchaudio")
