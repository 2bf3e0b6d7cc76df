"""Weights that ship with a package: half as large as those of a run, and written whole where they are used."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import torch
from safetensors import safe_open
from safetensors.torch import save_file

_WEIGHTS: Final = ".safetensors"


def pack(source: Path, folder: Path) -> Path:
    """Copy a folder, its weights in float16; returns the copy."""
    return _copy(source, folder, torch.float16)


def unpack(source: Path, folder: Path) -> Path:
    """Copy a folder into another one that may hold something, its weights in float32; returns that one."""
    return _copy(source, folder, torch.float32)


def _copy(source: Path, folder: Path, dtype: torch.dtype) -> Path:
    for file in sorted(one for one in source.rglob("*") if one.is_file()):
        there = folder / file.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix != _WEIGHTS:
            shutil.copyfile(file, there)
            continue
        with safe_open(file, framework="pt") as held:
            values = {name: held.get_tensor(name) for name in held.keys()}  # noqa: SIM118
            metadata = held.metadata()
        cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in values.items()}
        save_file(cast, there, metadata=metadata)
    return folder
