"""Finds the rows a user means: a file, a folder of files, an id on the hub, or something in memory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from modalign.data.jsonlines import json_file
from modalign.data.parquet import EXTRA, Parquet
from modalign.data.source import Chain, Rows, Source, Table, TableRows
from modalign.errors import DataError, MissingExtra
from modalign.shown import printable, shown

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")

_SPLITS = frozenset({"train", "training", "test", "validation", "valid", "val", "dev", "eval"})
_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_SHARD = re.compile(r"[-_.]\d[\d-]*(of[-_]?\d+(-[0-9a-f]{16})?)?$")  # the hub's older files end with a hash


def open_path(path: str, *, split: str | None = None, revision: str | None = None) -> Source:
    """The rows of a file, a folder, or a data set on the hub."""
    found = Path(path).expanduser()
    try:
        if found.is_dir():
            return open_folder(found, split)
        if found.is_file():
            return open_file(found)
        if found.exists():
            raise DataError("expected a file or a folder", file=path, got="something else", fix="name a data file")
    except (OSError, ValueError) as error:  # no permission, a name too long, a null byte in it
        if isinstance(error, DataError):
            raise
        raise DataError("the data cannot be read", file=printable(path), got=str(error)) from error
    if _HUB.fullmatch(path) and not path.endswith(SUFFIXES):
        return open_hub(path, split=split, revision=revision)
    near = (
        sorted(one.name for one in found.parent.iterdir() if one.name.endswith(SUFFIXES))
        if found.parent.is_dir()
        else []
    )
    raise DataError(
        "no such file or folder",
        file=printable(path),
        got=f"in that folder: {', '.join(near[:8]) or 'no data files'}" if found.parent.is_dir() else "no such folder",
        fix="check the path",
    )


def open_file(path: Path) -> Source:
    """The rows of a file, by its suffix."""
    if not path.name.endswith(SUFFIXES):
        raise DataError(
            "no reader for this kind of file", file=str(path), got=shown(path.name), fix=f"use {', '.join(SUFFIXES)}"
        )
    return Parquet(path) if path.suffix == ".parquet" else json_file(path)


def open_folder(folder: Path, split: str | None) -> Source:
    """The rows of a folder's files, in order of their names; files of one split only."""
    inner = folder / "data"
    files = sorted(one for one in folder.iterdir() if one.name.endswith(SUFFIXES) and one.is_file())
    if not files and inner.is_dir():
        files = sorted(one for one in inner.iterdir() if one.name.endswith(SUFFIXES) and one.is_file())
    if not files:
        raise DataError("no data files in the folder", file=str(folder), fix=f"it needs files of {', '.join(SUFFIXES)}")
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(split_of(file), []).append(file)
    # `train_prefs` beside `test_prefs` too: nobody trains on both
    if split is None and len(splits) > 1 and any(re.split(r"[-_.]", name)[0] in _SPLITS for name in splits):
        one = next((name for name in splits if name.startswith("train")), next(iter(splits)))
        raise DataError(
            "the folder has more than one split", file=str(folder), got=", ".join(splits), fix=f"say which: split={one}"
        )
    if split is not None and split not in splits:
        raise DataError(
            f"the folder has no split {split!r}", file=str(folder), got=", ".join(splits), fix="use one of those"
        )
    chosen = files if split is None else splits[split]
    if len(kinds := {"".join(_kind(file)) for file in chosen}) > 1:
        raise DataError(
            "the same split in files of several kinds",
            file=str(folder),
            got=f"{', '.join(file.name for file in chosen[:8])}: {', '.join(sorted(kinds))}",
            fix="name one of the files, or remove the copies",
        )
    sources = [open_file(file) for file in chosen]
    _same_columns(sources)
    return sources[0] if len(sources) == 1 else Chain(sources, str(folder))


def split_of(path: Path) -> str:
    """The split a file's name says: `train` of `train-00000-of-00003.parquet`."""
    return _SHARD.sub("", path.name.removesuffix(_kind(path)))


def open_hub(name: str, *, split: str | None, revision: str | None) -> Source:
    """The rows of a data set on the hub."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra(
            "no such file; data sets on the hub need the datasets library", where=name, got=str(error), fix=EXTRA
        ) from error
    try:
        found: object = datasets.load_dataset(name, split=split, revision=revision)
    except Exception as error:  # the library raises what its dependencies raise: every one is about this name
        line = next(iter(str(error).splitlines()), "")
        raise DataError(
            "no such file, and no such data set on the hub that can be loaded",
            file=name,
            got=printable(f"{type(error).__name__}: {line}"[:200]),
            fix="check the name, the split and the connection; a private data set needs `hf auth login`",
        ) from error
    return open_dataset(found, name if split is None else f"{name}[{split}]", split=split)


def open_dataset(found: object, name: str, *, split: str | None = None) -> Source:
    """The rows of an object of the `datasets` library."""
    if isinstance(found, dict):
        if split is None and len(found) != 1:
            raise DataError(
                "a data set of several splits", file=name, got=", ".join(found), fix="say which: split=train"
            )
        if split is not None and split not in found:
            raise DataError(f"the data set has no split {split!r}", file=name, got=", ".join(found))
        return open_dataset(next(iter(found.values())) if split is None else found[split], name)
    if not (hasattr(found, "column_names") and hasattr(found, "__len__") and hasattr(found, "__getitem__")):
        raise DataError(
            "a stream of rows has no length and no order of its own",
            file=name,
            got=type(found).__name__,
            fix="load it without streaming=True",
        )
    plain = getattr(found, "with_format", None)
    if plain is None:
        return TableRows(cast(Table, found), name)
    return TableRows(cast(Table, plain("arrow" if _decodes(getattr(found, "features", None)) else None)), name)


def _decodes(feature: object) -> bool:
    """Whether the library would decode what a feature, or one inside it, holds: media are our plugins' to decode."""
    if isinstance(feature, Mapping):
        return any(_decodes(one) for one in feature.values())
    if isinstance(feature, list | tuple):
        return any(_decodes(one) for one in feature)
    return getattr(feature, "decode", None) is True or _decodes(getattr(feature, "feature", ()))


def open_object(source: object, *, split: str | None = None) -> Source:
    """The rows of something in memory: a list of rows or comparisons, or an object of the `datasets` library."""
    if type(source).__module__.partition(".")[0] == "datasets":
        return open_dataset(source, "dataset", split=split)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return Rows(source)
    raise DataError(
        "expected a path, a data set, or a list of rows or comparisons",
        got=type(source).__name__,
        fix="list(...) turns an iterable into a list",
    )


def _kind(path: Path) -> str:
    return max((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), key=len)


def _same_columns(sources: Sequence[Source]) -> None:
    """Shards of one table have the same columns."""
    tables = [source for source in sources if isinstance(source, Parquet)]
    for other in tables[1:]:
        if different := sorted(set(tables[0].columns) ^ set(other.columns)):
            raise DataError(
                "files of one data set with different columns",
                file=other.name,
                field=different[0],
                got=f"{', '.join(other.columns)}; but {tables[0].name} has {', '.join(tables[0].columns)}",
                fix="read them one at a time, or rewrite them with the same columns",
            )
