"""What `modalign doctor` tries for images: Pillow and torchvision."""

from __future__ import annotations

from importlib import import_module
from typing import final

from modalign.checks import library
from modalign.integrations.mates import mate
from modalign.roles import Check, CheckResult


@final
class Pillow(Check):
    """What reads and writes pictures."""

    def __call__(self) -> CheckResult:
        return library("pillow", extra="image", module="PIL.Image")


@final
class TorchVision(Check):
    """Torchvision: what transformers processes pictures and clips with, and what breaks it where it is broken."""

    def __call__(self) -> CheckResult:
        def attempt() -> None:
            import_module("torchvision.ops").nms  # noqa: B018 - its kernels are what another torch's build lacks

        return mate(
            "torchvision",
            attempt=attempt,
            breaks="every model and every image and video processor of transformers, and peft, which import it "
            "wherever it is installed",
        )
