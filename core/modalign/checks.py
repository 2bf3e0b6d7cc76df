"""What `modalign doctor` tries wherever modalign runs, and how a plugin writes a check of a library."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import final

from packaging.requirements import Requirement

from modalign.registration.admission import describe_error
from modalign.registration.discovery import own_requirement, unmet
from modalign.roles import Check, CheckResult

LEAST_DISK = 1e9  #: bytes; less cannot hold a checkpoint of any useful model
GOOD_DISK = 20e9  #: bytes; a 7B model in bf16 is 15e9


def library(
    package: str,
    *,
    extra: str | None = None,
    module: str | None = None,
    attempt: Callable[[], object] | None = None,
    fix: str | None = None,
) -> CheckResult:
    """Whether a library is installed, of a version that modalign asks for, and really works.

    package: its distribution's name; absent ones that modalign asks for nowhere are fine.
    extra: of modalign, which installs it.
    module: to import, where it is called otherwise.
    attempt: what to try after the import: the first thing that breaks where the library is broken.
    fix: the command that mends a library that is installed and broken.

    >>> library("no-such-library").ok is None
    True
    """
    install = f'pip install "modalign[{extra}]"' if extra else f'pip install "{own_requirement(package) or package}"'
    try:
        found = version(package)
    except PackageNotFoundError:
        return CheckResult(ok=None, found="not installed", fix=install)
    requirement = own_requirement(package)
    if requirement is not None and (problem := unmet(requirement)):
        return CheckResult(ok=False, found=problem, fix=f'pip install "{plain(requirement)}"')
    try:
        import_module(module or package)
        if attempt is not None:
            attempt()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        mend = fix or f'pip install --force-reinstall --no-deps "{package}"'
        return CheckResult(ok=False, found=f"{found} is installed and broken: {describe_error(error)}", fix=mend)
    return CheckResult(ok=True, found=found)


def plain(requirement: Requirement) -> str:
    """A requirement as pip takes it, without the extra it comes with."""
    return f"{requirement.name}{requirement.specifier}"


@final
class Python(Check):
    """The interpreter."""

    def __call__(self) -> CheckResult:
        new_enough = sys.version_info >= (3, 11)
        fix = None if new_enough else "install Python 3.11 or newer and make a new virtual environment"
        return CheckResult(ok=new_enough, found=f"{platform.python_version()} on {platform.system()}", fix=fix)


@final
class Torch(Check):
    """Torch: its version, that it computes, and on which device."""

    def __call__(self) -> CheckResult:
        import torch

        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
        device = device or torch.device("cpu")

        def attempt() -> None:
            assert torch.ones(2, 2, device=device).mm(torch.ones(2, 2, device=device)).sum().item() == 8.0

        found = library("torch", attempt=attempt, fix=f'pip install --force-reinstall "{own_requirement("torch")}"')
        if not found.ok:
            return found
        kind = (
            f"{torch.get_num_threads()} threads"
            if device.type == "cpu"
            else torch.cuda.get_device_name()
            if device.type == "cuda"
            else ""
        )
        return CheckResult(ok=True, found=f"{torch.__version__} on {device.type} {kind}".strip())


@final
class Accelerate(Check):
    """What runs a training on one or many devices."""

    def __call__(self) -> CheckResult:
        return library("accelerate", attempt=lambda: import_module("accelerate").Accelerator)


@final
class Disk(Check):
    """Room for checkpoints, where one would start a run."""

    def __call__(self) -> CheckResult:
        free = shutil.disk_usage(Path.cwd()).free
        found = f"{free / 1e9:.1f} GB free in the current folder"
        if free < LEAST_DISK:
            return CheckResult(ok=False, found=found, fix="free some disk, or pass --output_dir on another one")
        fix = None if free >= GOOD_DISK else "enough for small models only: two checkpoints are kept at a time"
        return CheckResult(ok=True, found=found, fix=fix)
