"""What `modalign doctor` tries for images: Pillow, and torchvision where it is installed."""

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
    """Torchvision: optional, but where it is installed and broken, transformers breaks too."""

    def __call__(self) -> CheckResult:
        def attempt() -> None:
            import_module("torchvision.ops").nms  # noqa: B018 - its kernels are what another torch's build lacks

        return mate(
            "torchvision",
            attempt=attempt,
            breaks="every model and every image and video processor of transformers, and peft, which import it "
            "wherever it is installed",
            without="transformers processes pictures with Pillow, and has no processor of clips, nor the whole ones of "
            "models that take clips (Qwen-VL, Qwen-Omni, SmolVLM)",
        )
