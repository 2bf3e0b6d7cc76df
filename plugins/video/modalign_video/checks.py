"""What `modalign doctor` tries for video: PyAV, and torchcodec where it is installed."""

from __future__ import annotations

from importlib import import_module
from typing import final

from modalign.checks import library
from modalign.integrations.mates import torch_mate
from modalign.roles import Check, CheckResult


@final
class PyAV(Check):
    """What decodes and encodes clips."""

    def __call__(self) -> CheckResult:
        return library("av", extra="video")


@final
class TorchCodec(Check):
    """Torchcodec: optional; it needs the system's FFmpeg and a torch it was built for."""

    def __call__(self) -> CheckResult:
        return library(
            "torchcodec",
            attempt=lambda: import_module("torchcodec.decoders").VideoDecoder,
            fix=f"install FFmpeg, then {torch_mate('torchcodec')}, or pip uninstall -y torchcodec",
        )
