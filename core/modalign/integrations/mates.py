"""Libraries that are built for one release of torch: which fits the torch that is here, and what a bad one breaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

from packaging.version import Version

from modalign.checks import library, plain
from modalign.registration.discovery import own_requirement
from modalign.roles import CheckResult

MATES = ("torchvision", "torchaudio", "torchcodec")


def mate(package: str, *, attempt: Callable[[], object], breaks: str, without: str | None = None) -> CheckResult:
    """Whether a mate of torch works, else what else does not work for it, and the command that mends it.

    attempt: the first thing that fails where it was built for another torch.
    breaks: what fails where it is installed and broken.
    without: what is different where it is not installed, if a plugin can do without it.
    """
    found = library(package, attempt=attempt)
    if found.ok is None:
        return replace(found, found=": ".join(filter(None, [found.found, without])), fix=torch_mate(package))
    if found.ok is False:
        mend = f"{torch_mate(package, again=True)}; or, to do without it, pip uninstall -y {package}"
        return replace(found, found=f"{found.found}; it breaks {breaks}", fix=mend)
    return found


def torch_mate(package: str, *, again: bool = False) -> str:
    """The command that installs the release of torchvision, torchaudio or torchcodec that fits this torch.

    torchvision 0.N+15 is built for torch 2.N, torchaudio's last release is 2.11, torchcodec's versions are their own.
    The two from the package index are built for the index's torch, so that another build of torch needs its own index.

    again: in place of the one that is installed.
    """
    torch = Version(version("torch"))
    pins = {
        "torchvision": f"torchvision==0.{torch.minor + 15}.*",
        "torchaudio": f"torchaudio==2.{min(torch.minor, 11)}.*",
    }
    index = f"--index-url https://download.pytorch.org/whl/{torch.local} " if torch.local else ""
    asked = own_requirement("torch")
    if asked is not None and torch not in asked.specifier:
        return f'pip install "{plain(asked)}" {package}'
    force = "--force-reinstall " if again else ""
    return f'pip install {force}--no-deps {index}"{pins.get(package, package)}"'
