"""Modules as folders: what one was made with as JSON, its weights as safetensors."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar, cast

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modalign.errors import CheckpointError, ModelError

CONFIG: Final = "config.json"
WEIGHTS: Final = "model.safetensors"

M = TypeVar("M", bound=nn.Module)


def store(module: nn.Module, folder: Path, state: Mapping[str, Tensor] | None = None) -> Path:
    """Write a module that keeps each argument it was made with as an attribute of that name; returns the folder.

    state: weights to write in the place of its own.
    """
    whole = {"class": type(module).__name__, "settings": _settings(module)}
    weights = module.state_dict() if state is None else state
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    save_file({name: value.detach().cpu().clone().contiguous() for name, value in weights.items()}, folder / WEIGHTS)
    return folder


def holds(kind: type[nn.Module], folder: Path) -> bool:
    """Whether `store` has written a module of this class there, by its small file only."""
    if not (folder / CONFIG).is_file():
        return False
    found = _read(folder / CONFIG)
    return found.get("class") == kind.__name__ and isinstance(found.get("settings"), dict)


def said(kind: type[nn.Module], folder: Path) -> Mapping[str, object]:
    """What a module that `store` has written was made with; nothing where it has written none of this class there."""
    return cast("Mapping[str, object]", _read(folder / CONFIG)["settings"]) if holds(kind, folder) else {}


def made(kind: type[M], folder: Path) -> M:
    """A module as it was made, without the weights that it was stored with."""
    if not holds(kind, folder):
        found = _read(folder / CONFIG).get("class") if (folder / CONFIG).is_file() else f"no {CONFIG}"
        raise ModelError(
            f"this folder holds no {kind.__name__}", where=str(folder), got=found, fix="give the one it was saved in"
        )
    try:
        return kind(**said(kind, folder))
    except TypeError as error:
        raise CheckpointError(
            f"a {kind.__name__} cannot be made with these settings",
            where=str(folder / CONFIG),
            got=error,
            fix="copy the folder again, or install the version of the plugin that wrote it",
        ) from error


def restore(kind: type[M], folder: Path) -> M:
    """The module that `store` has written."""
    module = made(kind, folder)
    read_weights(module, folder)
    return module


def read_weights(module: nn.Module, folder: Path) -> None:
    """Load what `store` has written of a module's weights."""
    try:
        module.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            "these weights cannot be read",
            where=str(folder / WEIGHTS),
            got=" ".join(str(error).split())[:300],
            fix="save it again",
        ) from error


def _settings(module: nn.Module) -> dict[str, object]:
    name = type(module).__name__
    asked = list(inspect.signature(type(module).__init__).parameters.values())[1:]
    taken = [one.name for one in asked if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    lost = [one for one in taken if not hasattr(module, one)]
    found = {one: getattr(module, one) for one in taken if one not in lost}
    if lost or any(not _plain(value) for value in found.values()):
        wrong = lost or [one for one, value in found.items() if not _plain(value)]
        raise ModelError(
            f"{name} cannot be saved by itself: it must keep what it was made with, which JSON can say",
            got=f"{'without' if lost else 'not JSON'}: {', '.join(wrong)}",
            fix=f"set self.{wrong[0]} = {wrong[0]}, or write its `save` and `load`",
        )
    return found


def _plain(value: object) -> bool:
    try:
        return json.loads(json.dumps(value)) == (list(value) if isinstance(value, tuple) else value)
    except (TypeError, ValueError):
        return False


def _read(file: Path) -> Mapping[str, object]:
    try:
        found: object = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError("this file is no JSON", where=str(file), got=error, fix="copy it again") from error
    return cast("dict[str, object]", found) if isinstance(found, dict) else {}
