"""What `modalign doctor` tries for text: transformers and peft, and what breaks them from outside."""

from __future__ import annotations

from importlib import import_module
from typing import final

from modalign.checks import library
from modalign.integrations.mates import MATES, torch_mate
from modalign.roles import Check, CheckResult


@final
class Transformers(Check):
    """Transformers, by importing a model: it imports torchvision and torchaudio too wherever they are installed."""

    def __call__(self) -> CheckResult:
        found = library("transformers", extra="text", attempt=lambda: import_module("transformers").LlamaForCausalLM)
        return found if found.ok is not False else _blame(found)


@final
class Peft(Check):
    """What makes low-rank adapters."""

    def __call__(self) -> CheckResult:
        found = library("peft", extra="text", attempt=lambda: import_module("peft").LoraConfig)
        return found if found.ok is not False else _blame(found)


def _blame(found: CheckResult) -> CheckResult:
    """Name the installed and broken library that breaks this one, if there is one."""
    for package in MATES:
        if library(package).ok is False:
            return CheckResult(
                ok=False,
                found=f"{found.found}; {package} is installed and broken, and everything that imports it fails",
                fix=f"{torch_mate(package, again=True)}; or, to do without it, pip uninstall -y {package}",
            )
    return found
