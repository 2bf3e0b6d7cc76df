"""JSON as files of a run hold it: canonical, without duplicate keys, non-finite numbers written out.

Numbers that JSON lacks are objects of one key: `{"$float": "nan"}`, `"inf"` or `"-inf"`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import cast

from modalign.training.storage.state import JSON

_TAG = "$float"


def dumps(value: JSON, *, indent: int | None = None) -> bytes:
    """The one way of writing a value: keys sorted, UTF-8, a newline at the end.

    >>> dumps({"b": float("nan"), "a": [1, -0.0]})
    b'{"a":[1,-0.0],"b":{"$float":"nan"}}\\n'
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(
        _encode(value), allow_nan=False, sort_keys=True, ensure_ascii=True, indent=indent, separators=separators
    )
    return text.encode() + b"\n"


def loads(data: bytes) -> JSON:
    """The value of a document; raises ValueError for anything but strict JSON."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _encode(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return {_TAG: str(value)}
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            if wrong := [key for key in value if not isinstance(key, str)]:
                msg = f"a key of a JSON object is a string, not {wrong[0]!r}"
                raise TypeError(msg)
            if _TAG in value:
                msg = f"the key {_TAG!r} is taken: it marks non-finite numbers"
                raise ValueError(msg)
            return {key: _encode(item) for key, item in value.items()}
        case Sequence() if not isinstance(value, bytes | bytearray | memoryview):
            return [_encode(item) for item in value]
        case _:
            msg = f"JSON cannot hold {type(value).__name__}"
            raise TypeError(msg)


def _object(pairs: list[tuple[str, object]]) -> object:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    if _TAG in found:
        if len(found) != 1 or found[_TAG] not in ("nan", "inf", "-inf"):
            msg = f"not a number: {found}"
            raise ValueError(msg)
        return float(cast(str, found[_TAG]))
    return found


def _constant(name: str) -> object:
    msg = f"{name} is not JSON"
    raise ValueError(msg)
