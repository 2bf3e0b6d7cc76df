"""`modalign plugins new`: a plugin that keeps the contract as it is written, to be made one's own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

import modalign
from modalign.errors import ConfigError
from modalign.registry import registry

_NAME = "series"  # what the template calls its modality
_LEFT_OUT = ("__pycache__", ".pytest_cache", ".ruff_cache")


def new(name: str, /, *, folder: Annotated[Path | None, Parameter(negative=())] = None) -> None:
    """Write a new plugin: a modality, an encoder for it, and tests of the contract, all of which pass.

    Parameters
    ----------
    name
        Of the modality, in small letters: rows call their blocks by it.
    folder
        A new or empty folder for the distribution; by default modalign-NAME.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name):
        raise ConfigError(
            "a plugin's name is small letters, digits and single underscores, and begins with a letter",
            where="name",
            got=repr(name),
            fix="for example: modalign plugins new smell",
        )
    if name in registry.entries("modalities"):
        raise ConfigError(
            f"there is a modality {name!r} already",
            where="name",
            got=registry.entries("modalities")[name].owner,
            fix="take another name",
        )
    place = folder or Path(f"modalign-{name.replace('_', '-')}")
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise ConfigError("the folder has something in it", where=str(place), got="files", fix="name a new folder")
    for file, text in written(name):
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        (place / file).write_text(text, encoding="utf-8")
    print(f"written {place}")
    print(f"try it   pip install -e {place} && pytest {place}")
    print("see it   modalign plugins")


def written(name: str) -> Iterator[tuple[Path, str]]:
    """The files of a new plugin, and what is in them."""
    root = template()
    title = "".join(word.capitalize() for word in name.split("_"))
    for file in sorted(root.rglob("*")):
        place = file.relative_to(root)
        made = any(one in _LEFT_OUT or one.endswith(".egg-info") for one in place.parts)
        if not file.is_file() or made:
            continue
        yield Path(_called(str(place), name, title)), _called(file.read_text(encoding="utf-8"), name, title)


def template() -> Path:
    """The folder of the plugin that is copied: beside the package, or in the docs of the repository it lies in."""
    home = Path(modalign.__file__).parent
    places = (home / "template", home.parents[1] / "docs" / "template")
    found = next((place for place in places if (place / "pyproject.toml").is_file()), None)
    if found is None:
        raise ConfigError(
            "the plugin that would be copied is not there",
            where="modalign",
            got=", ".join(map(str, places)),
            fix="install modalign again",
        )
    return found


def _called(text: str, name: str, title: str) -> str:
    dashed = text.replace(f"modalign-{_NAME}", f"modalign-{name.replace('_', '-')}")
    return dashed.replace(_NAME, name).replace(_NAME.capitalize(), title)
