"""JSON read strictly: no second key of one name, no NaN, no half characters, and errors that say at which byte."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NoReturn

from modalign.data.fields import string
from modalign.errors import DataError
from modalign.shown import shown

WHOLE = "(whole row)"  #: the field of an error that concerns no column

_SURROGATE = re.compile(r"\\[uU][dD][89a-fA-F]")
_MARKS = {
    b"\xff\xfe": "UTF-16 or UTF-32, little-endian",
    b"\xfe\xff": "UTF-16, big-endian",
    b"\x1f\x8b": "gzip",
    b"PK": "zip",
    b"PAR1": "parquet",
    b"(\xb5/\xfd": "zstandard",
}


def decode(raw: bytes, *, offset: int = 0) -> str:
    """The text of a row, or a `DataError` with the byte where it stops being UTF-8.

    offset: of the row in its file.
    """
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        kind = next((name for mark, name in _MARKS.items() if offset == 0 and raw.startswith(mark)), None)
        raise DataError(
            "not valid UTF-8",
            field=WHOLE,
            got=f"byte 0x{raw[error.start]:02x} at offset {offset + error.start} of the file, {error.start} of the row"
            + (f"; the file begins like {kind}" if kind else ""),
            fix="convert the file to UTF-8 (iconv -t UTF-8), or remove the row",
        ) from None


def parse(text: str) -> object:
    """The JSON value of a text, or a `DataError`."""
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
    except DataError:
        raise  # ours, from inside; it is a ValueError too
    except json.JSONDecodeError as error:
        rest = text[error.pos : error.pos + 30]
        raise DataError(
            "not valid JSON",
            field=WHOLE,
            got=f"{error.msg} at character {error.pos}: {shown(rest) if rest else 'the end'}",
            fix="write one JSON object per line, or remove the row",
        ) from None
    except RecursionError:
        raise DataError("JSON nested too deeply", field=WHOLE, got="more levels than Python allows") from None
    except ValueError as error:  # an integer of more digits than Python converts
        raise DataError("a number that cannot be read", field=WHOLE, got=str(error)[:80]) from None
    if _SURROGATE.search(text):
        _whole_characters(value, "")
    return value


def record(value: object) -> Mapping[str, object]:
    """A row, which must be an object."""
    if not isinstance(value, dict):
        raise DataError("expected an object of columns", field=WHOLE, got=shown(value), fix="remove the row")
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError("a key occurs twice in one object", field=twice, got=shown(names), fix="remove one of them")
    return found


def _refuse(constant: str) -> NoReturn:
    raise DataError("a number that JSON does not have", field=WHOLE, got=constant, fix="write null, or remove the row")


def _whole_characters(value: object, field: str) -> None:
    match value:
        case str():
            string(value, field)
        case dict():
            for key, one in value.items():
                string(key, field or WHOLE)
                _whole_characters(one, f"{field}.{key}" if field else key)
        case list():
            for at, one in enumerate(value):
                _whole_characters(one, f"{field}[{at}]")
        case _:
            pass
