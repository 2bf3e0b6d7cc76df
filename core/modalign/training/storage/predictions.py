"""What a reward model predicted in a run's last evaluation, kept in its folder beside the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, final

import torch
from torch import Tensor

from modalign.errors import CheckpointError
from modalign.objectives.base import Predictions
from modalign.shown import shown
from modalign.training.storage.durable import replace_file
from modalign.training.storage.tensorfile import pieces, read

NAME = "predictions.safetensors"  #: the file in a run folder

_STEP = "step"
_SIDES = ("predicted", "said")
_KINDS = ("preference", "label", "number")
_FIX = "remove the file; the run's next evaluation writes it again"


@final
@dataclass(frozen=True, kw_only=True)
class Kept:
    """The predictions of one evaluation.

    step: of training, after which it was made.
    by_name: what was predicted of each dimension or label, and what people said of the same.
    """

    step: int
    by_name: Mapping[str, Predictions]


def keep(folder: Path, predictions: Mapping[str, Predictions], *, step: int) -> Path | None:
    """Write predictions into a run folder, in place of those of an earlier evaluation; returns the file.

    None, and nothing is left there, where an objective predicts nothing.
    """
    file = folder / NAME
    if not predictions:
        file.unlink(missing_ok=True)
        return None
    tensors: dict[str, Tensor] = {_STEP: torch.tensor([step])}
    for number, (name, one) in enumerate(predictions.items()):
        for side, values in zip(_SIDES, (one.predicted, one.said), strict=True):
            tensors[f"{number:06}/{one.kind}/{side}/{name}"] = values.detach().cpu().double()
    replace_file(file, b"".join(pieces(tensors)))
    return file


def kept(folder: Path) -> Kept | None:
    """The predictions in a run folder; None where it has none."""
    file = folder / NAME
    if not file.is_file():
        return None
    tensors = read(file)
    step = tensors.pop(_STEP, None)
    if step is None or step.shape != (1,):
        raise _broken(file, "no step")
    sides: dict[tuple[str, str, str], dict[str, Tensor]] = {}
    for key in sorted(tensors):  # the number in front keeps the order of the objective
        number, kind, side, name = (*key.split("/", 3), *[""] * 3)[:4]
        if not number.isdecimal() or kind not in _KINDS or side not in _SIDES or tensors[key].ndim != 1:
            raise _broken(file, f"an entry {shown(key)} of shape {tuple(tensors[key].shape)}")
        sides.setdefault((number, kind, name), {})[side] = tensors[key].double()
    by_name: dict[str, Predictions] = {}
    for (_, kind, name), both in sides.items():
        if name in by_name or both.keys() != set(_SIDES) or len({len(one) for one in both.values()}) != 1:
            raise _broken(file, f"predictions of {shown(name)} that do not match what was said")
        by_name[name] = Predictions(kind=cast(Literal["preference", "label", "number"], kind), **both)
    return Kept(step=int(step), by_name=by_name)


def forget_after(folder: Path, step: int) -> None:
    """Remove predictions of a later step than the run goes on from, and what is no file of them."""
    try:
        found = kept(folder)
    except CheckpointError:
        found = None
    if found is None or found.step > step:
        (folder / NAME).unlink(missing_ok=True)


def _broken(file: Path, got: str) -> CheckpointError:
    return CheckpointError("this is no file of predictions", where=str(file), got=got, fix=_FIX)
