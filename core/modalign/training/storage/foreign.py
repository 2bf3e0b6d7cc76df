"""Telling by content what a file is that is no checkpoint of ours, so that it is refused before anything parses it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from modalign.errors import CheckpointError
from modalign.training.storage.durable import open_regular

_HEAD = 512  # bytes that tell: tar says what it is at byte 257
_MOST = 1000  # files of a folder that are looked at
_MAGIC: Sequence[tuple[bytes, int, str]] = (
    (b"PK\x03\x04", 0, "a zip archive (torch's .pt, .bin or .ckpt: a pickle inside)"),
    (b"PK\x05\x06", 0, "a zip archive (torch's .pt, .bin or .ckpt: a pickle inside)"),
    (b"ustar", 257, "a tar archive"),
    (b"\x1f\x8b", 0, "a gzip archive"),
    (b"BZh", 0, "a bzip2 archive"),
    (b"\xfd7zXZ\0", 0, "an xz archive"),
    (b"\x28\xb5\x2f\xfd", 0, "a zstd archive"),
    (b"\x04\x22\x4d\x18", 0, "an lz4 archive"),
    (b"7z\xbc\xaf\x27\x1c", 0, "a 7z archive"),
    (b"\x93NUMPY", 0, "a numpy file"),
    (b"\x89HDF\r\n\x1a\n", 0, "an HDF5 file"),
)
_BINARY_PICKLE = re.compile(rb"\x80[\x01-\x05]", re.DOTALL)
# Protocols 0 and 1 have no magic: they open with a global, a mark and its container, or a value and where it is kept.
_OLD_PICKLE = re.compile(
    rb"\(?c[\w.]+\n[\w.]+\n|\([ld]p\d+\n|[\]})]q|[SVIFL][^\n]*\np\d+\n"
    rb"|\((?:[SVIFL][^\n]*\n(?:p\d+\n)?)+(?:[tld](?:p\d+\n|R)|i[\w.]+\n)",
    re.DOTALL,
)
FIX = (
    "where you trust the file, convert its weights to safetensors "
    "(https://huggingface.co/docs/safetensors/convert-weights) and start from them as the model; "
    "the optimizer's state of another trainer cannot be resumed"
)


def kind_of(head: bytes) -> str | None:
    """What a file that begins like this is, in words; None where it looks like none of the formats that can hide code.

    >>> kind_of(b"\\x80\\x04K\\x01.")
    'a pickle'
    """
    for magic, place, name in _MAGIC:
        if head[place : place + len(magic)] == magic:
            return name
    if _BINARY_PICKLE.match(head) or _OLD_PICKLE.match(head):
        return "a pickle"
    return None


def sniff(path: Path) -> str | None:
    """What a file is by its first bytes, whatever its name says; None where it looks harmless or cannot be read."""
    try:
        with open(open_regular(path), "rb") as file:
            return kind_of(file.read(_HEAD))
    except OSError:
        return None


def refuse_foreign(path: Path) -> None:
    """Raise where a path is a file, or a folder that some other program wrote; nothing in it is parsed."""
    if path.is_dir():
        for file in islice(path.rglob("*"), _MOST):
            if file.is_file() and (kind := sniff(file)):
                raise CheckpointError(
                    "not a checkpoint of modalign",
                    where=str(path),
                    got=f"{file.relative_to(path)} is {kind}, which can run code when it is read",
                    fix=FIX,
                )
        return
    if kind := sniff(path):
        raise CheckpointError(
            "a checkpoint is a folder of safetensors and JSON", where=str(path), got=f"this file is {kind}", fix=FIX
        )
    raise CheckpointError(
        "a checkpoint is a folder of safetensors and JSON",
        where=str(path),
        got="a file" if path.exists() else "nothing there",
        fix="name a folder checkpoint-<step>, or `auto` for the newest one of the run folder",
    )
