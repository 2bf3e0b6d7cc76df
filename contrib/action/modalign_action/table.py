"""Chunks of actions as tables of numbers: checked, and read from what files hold.

t steps, a dimensions.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
from numpy.lib import format as npy
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from modalign.data.fields import expected, number
from modalign.errors import DataError
from modalign.shown import shown

FIELD: Final = "action"
_WANTED: Final = "a chunk of actions: a list of steps, each a list of as many numbers"
_NPY: Final = b"\x93NUMPY"
_HEADERS: Final = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def table(value: object) -> Tensor:
    """A chunk of actions, ``t a`` of float32; a `DataError` that names the number which is wrong.

    value: a list of lists, an array or a tensor.

    >>> table([[0.5, 1], [0, -1]]).shape
    torch.Size([2, 2])
    """
    match value:
        case Tensor():
            return _checked(value.detach().cpu())
        case np.ndarray() if value.dtype.kind in "fiu":
            return _checked(torch.from_numpy(value.astype(np.float64)))
        case np.ndarray():
            return table(value.tolist())  # an array of rows, as a table of Arrow gives it
        case list() | tuple():
            return _checked(torch.tensor(_rows(value), dtype=torch.float64))
        case _:
            raise expected(_WANTED, value, FIELD)


def _rows(value: Sequence[object]) -> list[list[float]]:
    rows: list[list[float]] = []
    for at, one in enumerate(value):
        row = one.tolist() if isinstance(one, np.ndarray) else one
        if not isinstance(row, list | tuple):
            raise expected("the numbers of one step, a list", row, f"{FIELD}[{at}]", fix=f"write {_WANTED}")
        if rows and len(row) != len(rows[0]):
            raise DataError(
                "steps of one chunk have equally many dimensions",
                field=f"{FIELD}[{at}]",
                got=f"{len(row)} numbers, and {len(rows[0])} in the first step",
                fix="correct the row",
            )
        rows.append([number(each, f"{FIELD}[{at}][{place}]") for place, each in enumerate(row)])
    return rows


def _checked(value: Tensor) -> Tensor:
    if value.ndim != 2 or not value.numel() or value.dtype == torch.bool or value.is_complex():
        got = f"{value.dtype} of shape {tuple(value.shape)}"
        raise DataError(f"expected {_WANTED}", field=FIELD, got=got, fix="give at least one step of one number")
    found = value.to(torch.float32)
    if len(wrong := (~found.isfinite()).nonzero()):
        step, place = wrong[0].tolist()
        raise DataError(
            "expected a finite number",
            field=f"{FIELD}[{step}][{place}]",
            got=str(value[step, place].item()),
            fix="remove the row, or the value",
        )
    return found


def parsed(data: bytes, name: str) -> tuple[Tensor, float | None]:
    """What a file of actions holds: the table, and actions per second where it says so.

    data: of a .npy, a .safetensors (one tensor, or the one called `action`), or a .json: the table, or an object with
        `action` and `rate`.
    name: of the file, for messages.
    """
    try:
        if data.startswith(_NPY):
            return table(_array(data)), None
        if b"\0" in data[:8] and data[8:9] == b"{":  # the length of a header, and the header
            return table(_tensor(data)), None
        return _json(data)
    except DataError as error:
        raise DataError(error.what, field=error.field, got=f"{name}: {error.got}", fix=error.fix) from error


def _array(data: bytes) -> np.ndarray:
    file = io.BytesIO(data)
    try:
        header = _HEADERS[npy.read_magic(file)]
        shape, _, kind = header(file)
        # before anything is made of that size: a header may promise more than there is
        if kind.hasobject or math.prod(shape) * kind.itemsize != len(data) - file.tell():
            raise ValueError(f"{kind} of shape {shape} in {len(data) - file.tell()} bytes")
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, KeyError, OSError, SyntaxError) as error:
        raise DataError(
            "this .npy file cannot be read", field=FIELD, got=shown(str(error)), fix="save it again"
        ) from error


def _tensor(data: bytes) -> Tensor:
    try:
        found = load_tensors(data)
    except (SafetensorError, ValueError) as error:
        got = shown(str(error))
        raise DataError("this .safetensors file cannot be read", field=FIELD, got=got, fix="save it again") from error
    if FIELD not in found and len(found) != 1:
        names = ", ".join(found) or "none"
        raise DataError("which of these tensors are the actions?", field=FIELD, got=names, fix="call it `action`")
    return found[FIELD] if FIELD in found else next(iter(found.values()))


def _json(data: bytes) -> tuple[Tensor, float | None]:
    try:
        said: object = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(
            "a file of actions is .npy, .safetensors or .json",
            field=FIELD,
            got=shown(str(error)),
            fix="save it as one of these",
        ) from error
    if not isinstance(said, Mapping):
        return table(said), None
    if unknown := sorted(set(said) - {FIELD, "rate"}):
        raise DataError("a file of actions with a field that nothing reads", field=FIELD, got=shown(unknown[0]))
    return table(said.get(FIELD)), None if said.get("rate") is None else hertz(said["rate"])


def hertz(value: object) -> float:
    """Actions per second; a `DataError` where it is no such number."""
    found = number(value, "rate")
    if found <= 0:
        raise DataError("a control rate is above 0 Hz", field="rate", got=found, fix="give actions per second")
    return found
