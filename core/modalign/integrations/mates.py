"""Libraries that are built for one release of torch: which one fits the torch that is here."""

from __future__ import annotations

from importlib.metadata import version

from packaging.version import Version

from modalign.checks import plain
from modalign.discovery import own_requirement


def torch_mate(package: str) -> str:
    """The command that installs the release of torchvision, torchaudio or torchcodec that fits this torch.

    torchvision 0.N+15 is built for torch 2.N, torchaudio's last release is 2.11, torchcodec's versions are their own.
    The two from the package index are built for the index's torch, so that another build of torch needs its own index.
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
    return f'pip install --force-reinstall --no-deps {index}"{pins.get(package, package)}"'
