"""What a row holds, put into an error message: short, on one line, and harmless to a terminal."""

from __future__ import annotations

from modalign.errors import DataError, TooLong

_LONGEST = 80  #: characters of a value that a message quotes

_NAMES = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", tuple: "a list"}


def printable(text: str) -> str:
    r"""The text with every control, bidirectional or otherwise invisible character as its escape.

    >>> print(printable("a\x1b[31m\u202e"))
    a\x1b[31m\u202e
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def shown(value: object) -> str:
    """A value as a message quotes it: what it is, and how it begins.

    >>> shown(["a", "b"])
    "a list ['a', 'b']"
    """
    if value is None:
        return "null"
    if isinstance(value, dict):
        keys = ", ".join(str(key) for key in list(value)[:8])
        return printable(_short(f"an object with {keys}" if value else "an empty object"))
    name = _NAMES.get(type(value), type(value).__name__)
    if not isinstance(value, str | bool | int | float | list | tuple):
        return printable(name)
    # a slice first: the repr of a long value would be built only to be thrown away
    start = repr(value[: _LONGEST + 1] if isinstance(value, str) else value[:8] if isinstance(value, list) else value)
    return printable(f"{name} {_short(start)}")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def located(error: DataError, *, file: str, row: int | None = None, field: str | None = None) -> DataError:
    """The same error with its place filled in where it was unknown, and nothing in it that a terminal obeys."""
    return type(error)(
        printable(error.what),
        file=printable(error.file or file),
        row=row if error.row is None else error.row,
        field=printable(error.field or field or "(whole row)"),
        got=None if error.got is None else printable(error.got),
        fix=None if error.fix is None else printable(error.fix),
    )


def reason(error: DataError) -> str:
    """What errors of its kind are counted under."""
    return "too long" if isinstance(error, TooLong) else error.what
