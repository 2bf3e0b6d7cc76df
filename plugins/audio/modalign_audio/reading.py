"""Content blocks to sounds and back, and sounds to samples.

A block names a sound as `{"type": "audio", "audio": VALUE}`; instead of the second `audio`, `path` may name a file, or
`bytes` hold one. VALUE is

- samples in memory, ``c n`` or ``n`` of floats from -1 to 1: a tensor, or an array with `sampling_rate` beside it (a
  tensor without one is at the oracle world's 4 kHz);
- encoded bytes, or the name of a file inside the data root;
- either of them as data sets store it: `{"bytes", "path"}` or `{"array", "sampling_rate"}`; perhaps with `sha256`.

Beside it `start` and `end`, in seconds, say which part is meant, and `sha256` which file.

c channels, n samples.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from modalign.content import Part
from modalign.data.fields import expected, number, string, take_over
from modalign.errors import DataError, ModelError
from modalign.files import File
from modalign.roles import Content, MediaSettings
from modalign.shown import shown
from modalign_audio.codec import Channels, check_header, clip, decoded
from modalign_audio.config import MOST_BYTES, MOST_CHANNELS, AudioSettings
from modalign_audio.sound import FIELD, check_channels, check_finite, check_length, checked_rate, mix, sound
from modalign_audio.world import RATE

__all__ = ["decode", "read_part", "samples", "sound", "write_block"]

_VALUES = ("audio", "path", "bytes")
_FACTS = ("sampling_rate", "start", "end", "sha256")
_STORED = frozenset({"bytes", "path", "array", "sampling_rate", "sha256"})
#: What is checked while rows are read, before anyone's settings are known: only what no settings allow.
_WIDEST = AudioSettings(max_bytes=MOST_BYTES, max_channels=MOST_CHANNELS)


def read_part(block: Mapping[str, object], root: Path | None) -> Part:
    """The sound a block says; its file is opened and its header checked at once."""
    given = {key: value for key, value in block.items() if value is not None}
    unknown = next((key for key in given if key not in ("type", *_VALUES, *_FACTS)), None)
    if unknown is not None:
        raise DataError(
            "a block of a sound with a field that nothing reads",
            field=str(unknown),
            got=shown(block[unknown]),
            fix=f"remove it; what is read are {', '.join((*_VALUES, *_FACTS))}",
        )
    names = [name for name in _VALUES if name in given]
    if len(names) != 1:
        raise DataError(
            "a block of a sound needs one of audio, path and bytes",
            field=FIELD,
            got=" and ".join(names) or "none of them",
        )
    name, value = names[0], given[names[0]]
    if isinstance(value, Mapping):
        name, value = _stored(value, name, given)
    found = _value(value, name, root)
    facts = _facts(given)
    if isinstance(value, np.ndarray) and "sampling_rate" not in facts:
        raise DataError(
            "an array of samples without its rate", field="sampling_rate", got="null", fix="give samples per second"
        )
    part = Part(modality="audio", value=found, facts=facts)
    if isinstance(found, Tensor):
        _check_samples(found, facts)
    else:
        check_header(part, _WIDEST)
    return part


def write_block(part: Part) -> Mapping[str, object]:
    """The block that says a part: the inverse of `read_part`."""
    value = part.value
    if isinstance(value, Tensor):
        _check_samples(value, part.facts)
    return {"type": "audio", "audio": value.name if isinstance(value, File) else value, **part.facts}


def decode(part: Part, settings: MediaSettings, rate: float | None = None) -> Content:
    """What a part holds, float32 ``c n``: mixed, and resampled to the rate the model takes.

    settings: an `AudioSettings`. rate: samples per second; None takes the settings' rate, else the sound's own.
    """
    if not isinstance(settings, AudioSettings):
        raise ModelError("sounds are decoded with AudioSettings", got=type(settings).__name__)
    found, own = samples(part, settings, channels=settings.channels)
    return sound(found, own, settings, rate)


def samples(part: Part, settings: AudioSettings, *, channels: Channels | None = None) -> tuple[Tensor, int]:
    """The samples of a part at their own rate, float32 ``c n``, and that rate.

    channels: how they are mixed; None keeps them as they are.
    """
    if not isinstance(part.value, Tensor):
        return decoded(part, settings, channels=channels)
    rate = _check_samples(part.value, part.facts)
    check_channels(part.value.shape[0], settings)
    start, stop = clip(part.facts, rate, part.value.shape[1])
    check_length(stop - start, rate, settings, part.value.shape[0] if channels is None else None)
    return mix(part.value.detach().cpu()[:, start:stop].float(), channels), rate


def _stored(value: Mapping[object, object], name: str, given: dict[str, object]) -> tuple[str, object]:
    """The value in a data set's own form; its rate and its SHA-256 are added to what is given."""
    found = {key: one for key, one in value.items() if one is not None}
    if name != FIELD or not found or not _STORED.issuperset(cast("set[str]", set(found))):
        raise DataError(
            "an object that says a sound has bytes, path, or array and sampling_rate",
            field=name,
            got=shown(dict(value)),
        )
    take_over(given, found, "sha256")
    if "sampling_rate" in found:
        if given.get("sampling_rate", found["sampling_rate"]) != found["sampling_rate"]:
            raise DataError("two rates for one sound", field="sampling_rate", got=shown(given["sampling_rate"]))
        given["sampling_rate"] = found["sampling_rate"]
    if "array" in found:
        if "bytes" in found:
            raise DataError("a sound that is both bytes and array", field=FIELD, got=shown(dict(value)))
        if not isinstance(found["array"], np.ndarray | Tensor):
            raise expected("an array of samples", found["array"], f"{FIELD}.array")
        return FIELD, found["array"]
    # with bytes the path is a name only, often of a file on its maker's disk
    return ("bytes", found["bytes"]) if "bytes" in found else ("path", found.get("path"))


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
        case Tensor() if name == FIELD:
            return rearrange(value, "n -> 1 n") if value.ndim == 1 else value
        case np.ndarray() if name == FIELD:
            return _array(value)
        case _:
            raise DataError(
                "a sound is samples in memory, encoded bytes, or the name of a file",
                field=name,
                got=shown(value) if isinstance(value, str | int | float | list | dict) else type(value).__name__,
                fix="of a data set on the hub, take the column undecoded: cast_column('audio', Audio(decode=False))",
            )


def _array(value: np.ndarray) -> Tensor:
    """A copy as float32, ``c n``: an array may be read-only, or change later."""
    if value.dtype.kind != "f" or value.ndim not in (1, 2):
        raise _no_samples(f"{value.dtype} of shape {value.shape}")
    with np.errstate(over="ignore"):  # to infinity, which is refused
        found = torch.from_numpy(np.array(value, dtype=np.float32))
    return found if found.ndim == 2 else rearrange(found, "n -> 1 n")


def _facts(given: Mapping[str, object]) -> dict[str, str | float | bool]:
    facts: dict[str, str | float | bool] = {}
    if "sampling_rate" in given:
        facts["sampling_rate"] = checked_rate(number(given["sampling_rate"], "sampling_rate"), field="sampling_rate")
    start, end = (number(given[name], name) if name in given else None for name in ("start", "end"))
    for name, seconds in (("start", start), ("end", end)):
        if seconds is not None:
            if seconds < 0:
                raise DataError("a time in a sound is at least 0 seconds", field=name, got=seconds)
            facts[name] = seconds
    if end is not None and end <= (start or 0.0):
        got = f"start {start or 0.0}, end {end}"
        raise DataError("a part of a sound must end after its start", field="end", got=got, fix="correct the row")
    if "sha256" in given:
        said = string(given["sha256"], "sha256").lower()
        if not re.fullmatch("[0-9a-f]{64}", said):
            raise DataError("a SHA-256 is 64 hexadecimal digits", field="sha256", got=shown(said))
        facts["sha256"] = said
    return facts


def _check_samples(value: Tensor, facts: Mapping[str, object]) -> int:
    """The rate of samples in memory, once they are found right."""
    if value.ndim != 2 or not value.is_floating_point():
        raise _no_samples(f"{value.dtype} of shape {tuple(value.shape)}")
    if not value.numel():
        raise DataError("a sound without samples", field=FIELD, got=f"shape {tuple(value.shape)}")
    check_channels(value.shape[0], _WIDEST)
    check_finite(value)
    if "sha256" in facts:
        raise DataError(
            "only a file or encoded bytes can have a SHA-256", field="sha256", got="samples in memory", fix="remove it"
        )
    return checked_rate(cast(float, facts.get("sampling_rate", RATE)), field="sampling_rate")


def _no_samples(found: str) -> DataError:
    return DataError(
        'samples in memory are "c n" or "n" of floats from -1 to 1',
        field=FIELD,
        got=found,
        fix="divide 16-bit integers by 32768, and put channels before samples",
    )
