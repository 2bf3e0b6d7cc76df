"""What `modalign doctor` tries for video: PyAV, and torchcodec where it is installed."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from modalign.checks import library
from modalign.integrations.mates import mate
from modalign.roles import Check, CheckResult
from modalign_video.torchcodec_frames import broken


@final
class PyAV(Check):
    """What decodes and encodes clips."""

    def __call__(self) -> CheckResult:
        return library("av", extra="video")


@final
class TorchCodec(Check):
    """Torchcodec: optional; it needs the system's FFmpeg and a torch it was built for."""

    def __call__(self) -> CheckResult:
        def attempt() -> None:
            broken.cache_clear()  # FFmpeg may have come since it was last asked
            if (reason := broken()) is not None:
                raise RuntimeError(reason)

        found = mate(
            "torchcodec",
            attempt=attempt,
            breaks="the backend `torchcodec`, so that clips are decoded by PyAV, and what transformers and datasets "
            "decode, which take it wherever it is installed",
            without="clips are decoded by PyAV",
        )
        return replace(found, fix=f"install FFmpeg; else {found.fix}") if found.ok is False else found
