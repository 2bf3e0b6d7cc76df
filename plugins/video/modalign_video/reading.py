"""Content blocks to clips and back.

A block is `{"type": "video", "video": VALUE}`; `path` or `bytes` may stand for the second `video`. VALUE is

- frames in memory: a tensor ``t 3 h w`` of uint8 or of floats from 0 to 1, or an array ``t h w 3`` of uint8, with `fps`
  beside it (8 where it is absent, as in the oracle world);
- encoded bytes, or the name of a file inside the data root;
- either of the last two as data sets store them: `{"bytes", "path"}`, of which bytes win, perhaps with `sha256`.

Beside it `start` and `end`, in seconds from the first frame, say which stretch is meant, and `sha256` which file.

t frames, h w pixels.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

import numpy as np
from torch import Tensor

from modalign.content import Part
from modalign.data.fields import number, string, take_over
from modalign.errors import DataError
from modalign.files import File
from modalign.shown import shown
from modalign_video.config import MOST_BYTES
from modalign_video.containers import check_length, head_of, length_of, sniff
from modalign_video.decoding import check_sha256
from modalign_video.memory import check_clip, from_array

_VALUES: Final = ("video", "path", "bytes")
_FACTS: Final = ("fps", "start", "end", "sha256")
_STORED: Final[frozenset[object]] = frozenset({"bytes", "path", "sha256"})
_MOST_FPS: Final = 1000.0
_FIX: Final = "give a file's name, encoded bytes, a tensor (frames, 3, height, width) or an array with channels last"


def read_part(block: Mapping[str, object], root: Path | None) -> Part:
    """The clip a block says; its file is opened, and its size and container checked, at once.

    root: the folder that files must lie in; None allows no files.
    """
    given = {key: value for key, value in block.items() if key != "type" and value is not None}
    unknown = next((key for key in given if key not in (*_VALUES, *_FACTS)), None)
    if unknown is not None:
        raise DataError(
            "a block of a clip with a field that nothing reads",
            field=str(unknown),
            got=shown(given[unknown]),
            fix=f"remove it; what is read are {', '.join((*_VALUES, *_FACTS))}",
        )
    names = [name for name in _VALUES if name in given]
    if len(names) != 1:
        raise DataError(
            "a block of a clip needs one of video, path and bytes",
            field=names[-1] if names else "video",
            got=" and ".join(names) or "none of them",
            fix=_FIX,
        )
    name, value = names[0], given[names[0]]
    if isinstance(value, Mapping):
        name, value = _stored(value, name, given)
    held = _value(value, name, root)
    part = Part(modality="video", value=held, facts=_facts(given, memory=isinstance(held, Tensor)))
    check_part(part, field=name)
    return part


def write_block(part: Part) -> Mapping[str, object]:
    """The block that says a part: the inverse of `read_part`."""
    value = part.value
    if isinstance(value, Tensor):
        check_clip(value)
    return {"type": "video", "video": value.name if isinstance(value, File) else value, **part.facts}


def check_part(part: Part, *, field: str = "video") -> None:
    """Raise where a part can be no clip, by what can be told without decoding it."""
    value = part.value
    match value:
        case Tensor():
            check_clip(value, field=field)
        case bytes():
            check_length(len(value), MOST_BYTES, field=field)
            sniff(value[:1024], field=field)
            if "sha256" in part.facts:
                check_sha256(hashlib.sha256(value).hexdigest(), str(part.facts["sha256"]))
        case File():
            try:
                with value.open() as file:
                    check_length(length_of(file), MOST_BYTES, field=field)
                    sniff(head_of(file), field=field)
            except DataError as error:
                raise DataError(error.what, field=field, got=_named(error.got, value), fix=error.fix) from error
        case _:
            raise _nothing(value, field)


def _named(got: str | None, file: File) -> str:
    name = shown(file.name)
    return name if got is None else got if file.name in got else f"{name}: {got}"


def _stored(value: Mapping[object, object], name: str, given: dict[str, object]) -> tuple[str, object]:
    """The value in a data set's own form; its SHA-256 is added to what is given."""
    found = {key: one for key, one in value.items() if one is not None}
    if name != "video" or not {"bytes", "path"}.intersection(found) or not _STORED.issuperset(found):
        raise DataError("an object that says a clip has bytes or path", field=name, got=shown(dict(value)), fix=_FIX)
    take_over(given, found, "sha256")
    # with bytes the path is a name only, often of a file on its maker's disk
    return ("bytes", found["bytes"]) if "bytes" in found else ("path", found["path"])


def _value(value: object, name: str, root: Path | None) -> bytes | File | Tensor:
    match value:
        case str() if name != "bytes":
            if root is None:
                raise DataError(
                    "a file can be read inside a data root only",
                    field=name,
                    got=shown(value),
                    fix="set data.root (root= in Python), or give the encoded bytes",
                )
            return File(root=root, name=string(value, name))
        case bytes() | bytearray() | memoryview() if name != "path":
            return bytes(value)
        case Tensor() if name == "video":
            return value
        case np.ndarray() if name == "video":
            return from_array(value)
        case _:
            raise _nothing(value, name)


def _nothing(value: object, field: str) -> DataError:
    fix = _FIX
    if type(value).__module__.partition(".")[0] == "torchcodec":
        fix = "take the column undecoded: cast_column('video', Video(decode=False))"
    return DataError(
        "a clip is frames in memory, encoded bytes, or the name of a file", field=field, got=shown(value), fix=fix
    )


def _facts(given: Mapping[str, object], *, memory: bool) -> dict[str, str | float | bool]:
    facts: dict[str, str | float | bool] = {}
    if "fps" in given:
        fps = number(given["fps"], "fps")
        if not memory:
            raise DataError(
                "an encoded clip says its own times", field="fps", got=str(fps), fix="remove it, or set media.video.fps"
            )
        if not 1 / _MOST_FPS <= fps <= _MOST_FPS:
            raise DataError(
                f"frames per second lie between {1 / _MOST_FPS:g} and {_MOST_FPS:g}",
                field="fps",
                got=str(fps),
                fix="mend the row",
            )
        facts["fps"] = fps
    for name in ("start", "end"):
        if name in given:
            facts[name] = number(given[name], name)
            if cast(float, facts[name]) < 0:
                raise DataError("a time in a clip is at least 0 seconds", field=name, got=str(facts[name]))
    if "end" in facts and cast(float, facts["end"]) <= cast(float, facts.get("start", 0.0)):
        got = f"start {facts.get('start', 0.0)}, end {facts['end']}"
        raise DataError("a stretch of a clip must end after its start", field="end", got=got, fix="mend the row")
    if "sha256" in given:
        said = string(given["sha256"], "sha256").lower()
        if memory:
            raise DataError(
                "only a file or encoded bytes can have a SHA-256",
                field="sha256",
                got="frames in memory",
                fix="remove it",
            )
        if not re.fullmatch("[0-9a-f]{64}", said):
            raise DataError("a SHA-256 is 64 hexadecimal digits", field="sha256", got=shown(said))
        facts["sha256"] = said
    return facts
