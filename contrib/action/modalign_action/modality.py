"""Actions as a modality: chunks in memory, encoded bytes, and files inside the data root.

A block says a chunk as `{"type": "action", "action": VALUE, "rate": HERTZ}`. VALUE is the table itself, a list of steps
that are lists of numbers; or the name of a .npy, .safetensors or .json file, or its bytes, or `{"bytes", "path"}` as
data sets store them. `rate`, actions per second, may be left out.

t steps, a dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

from torch import Tensor

from modalign.content import Part
from modalign.errors import DataError, ModelError
from modalign.files import File
from modalign.roles import Content, MediaSettings, Modality
from modalign.shown import shown
from modalign_action.config import MOST_BYTES, ActionSettings
from modalign_action.curves import curves
from modalign_action.table import FIELD, hertz, parsed, table

RATE = "rate"  #: the fact that says actions per second


@final
class ActionModality(Modality):
    """Chunks of actions, ``t a`` of float32: t steps of a dimensions, each in its own unit.

    Saved as JSON with their rate; shown as a curve for each dimension. They are never resampled: a model of another
    rate refuses them.

    >>> chunk = ActionModality().read({"type": "action", "action": [[0, 0.5], [1, 0.5]], "rate": 10}, root=None)
    >>> content = ActionModality().decode(chunk, ActionSettings(dimensions=2))
    >>> content.tensor.shape, content.rate, content.seconds
    (torch.Size([2, 2]), 10.0, 0.2)
    """

    name: ClassVar[str] = "action"
    blocks: ClassVar[tuple[str, ...]] = ("action",)
    columns: ClassVar[tuple[str, ...]] = ("action", "actions")
    settings: ClassVar[type[MediaSettings]] = ActionSettings
    timed: ClassVar[bool] = True

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        given = {key: one for key, one in block.items() if one is not None}
        if unknown := next((key for key in given if key not in ("type", FIELD, RATE)), None):
            raise DataError(
                "a block of actions with a field that nothing reads",
                field=unknown,
                got=shown(block[unknown]),
                fix=f"remove it; what is read are {FIELD} and {RATE}",
            )
        facts = {RATE: hertz(given[RATE])} if RATE in given else {}
        part = Part(modality=self.name, value=_value(given.get(FIELD), root), facts=facts)
        _known(part)  # what is wrong with a file is said of its row
        return part

    def block(self, part: Part) -> Mapping[str, object]:
        match part.value:
            case File():
                value: object = part.value.name
            case bytes():
                value = part.value
            case _:
                value = _known(part)[0].tolist()
        return {"type": self.name, FIELD: value, **part.facts}

    def save(self, part: Part, stem: Path) -> Path:
        found, rate = _known(part)
        said = {FIELD: found.tolist(), **({} if rate is None else {RATE: rate})}
        file = stem.with_name(f"{stem.name}.json")
        file.write_text(json.dumps(said), encoding="utf-8")
        return file

    def show(self, part: Part) -> str:
        return curves(*_known(part))

    def decode(self, part: Part, settings: MediaSettings, *, rate: float | None = None) -> Content:
        if not isinstance(settings, ActionSettings):
            raise ModelError("actions are decoded with ActionSettings", got=type(settings).__name__)
        found, own = _known(part)
        _check(found, settings)
        if rate is not None and own is not None and own != rate:
            raise DataError(
                "actions of another rate, and what a robot does at one cannot be told at another",
                field=RATE,
                got=f"{own:g} Hz, and a model of {rate:g} Hz",
                fix="record or resample them at the model's rate",
            )
        hz = own or rate
        return Content(modality=self.name, tensor=found, rate=hz, seconds=None if hz is None else len(found) / hz)


def _value(value: object, root: Path | None) -> bytes | File | Tensor:
    if isinstance(value, Mapping):
        said = {key: one for key, one in value.items() if one is not None}
        if not said or set(said) - {"bytes", "path"}:
            raise DataError("an object that says actions has bytes or path", field=FIELD, got=shown(dict(value)))
        value = said.get("bytes", said.get("path"))  # beside bytes the path is a name only
    match value:
        case str() if root is not None:
            return File(root=root, name=value)
        case str():
            raise DataError(
                "a file can be read inside a data root only",
                field=FIELD,
                got=shown(value),
                fix="set data.root (root= in Python), or write the numbers",
            )
        case bytes() | bytearray() | memoryview():
            return bytes(value)
        case _:
            return table(value)


def _known(part: Part) -> tuple[Tensor, float | None]:
    """The table of a part, and actions per second where they are known."""
    said = part.facts.get(RATE)
    own = None if said is None else hertz(said)
    match part.value:
        case Tensor():
            return table(part.value), own
        case bytes():
            data, name = part.value, "bytes"
        case File():
            with part.value.open() as file:
                data, name = file.read(MOST_BYTES + 1), part.value.name
        case _:
            raise DataError("actions are no words", field=FIELD, got=shown(part.value))
    if len(data) > MOST_BYTES:
        raise DataError("a file of actions is too large", field=FIELD, got=f"{name}: more than {MOST_BYTES >> 20} MiB")
    found, rate = parsed(data, name)
    if own is not None and rate is not None and own != rate:
        raise DataError("two rates for one chunk of actions", field=RATE, got=f"{own:g} Hz, and {rate:g} Hz in {name}")
    return found, rate if own is None else own


def _check(found: Tensor, settings: ActionSettings) -> None:
    """Raise where a table is not what the settings say."""
    steps, dimensions = found.shape
    sizes = [len(one) for one in (settings.low, settings.high) if one is not None]
    wanted = settings.dimensions or next(iter(sizes), None)
    for what, has, must in (("steps", steps, settings.steps), ("dimensions", dimensions, wanted)):
        if must is not None and has != must:
            raise DataError(f"expected {must} {what}", field=FIELD, got=f"{has}", fix=f"set media.action.{what}")
    if found.numel() > settings.max_values:
        raise DataError(
            "a chunk of too many numbers",
            field=FIELD,
            got=f"{steps} steps of {dimensions}",
            fix="cut it, or set media.action.max_values",
        )
    for limits, above in ((settings.low, False), (settings.high, True)):
        for place, limit in enumerate(limits or ()):
            values = found[:, place]
            wrong = values > limit if above else values < limit
            if bool(wrong.any()):
                step = int(wrong.nonzero()[0])
                raise DataError(
                    f"an action beyond what is allowed: at {'most' if above else 'least'} {limit:g}",
                    field=f"{FIELD}[{step}][{place}]",
                    got=f"{values[step].item():g}",
                    fix=f"remove the row, or set media.action.{'high' if above else 'low'}",
                )
