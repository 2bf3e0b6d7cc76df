"""Any readable data set as parquet with its media inside, or as a folder of JSON lines with its media beside them.

What is written is read back row by row before it counts: a row that would not mean the same is a bad row.
"""

from __future__ import annotations

import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Protocol, final

from torch import Tensor

from modalign.comparison import Comparison
from modalign.content import Message, Part
from modalign.data.badrows import BadRow, Names, judge
from modalign.data.data import Data, read
from modalign.errors import ConfigError, DataError, Skipped
from modalign.files import File
from modalign.registry import registry
from modalign.shown import located

if TYPE_CHECKING:
    from modalign.data.writing import Row

_TELL = 100  #: rows between two words of progress


@final
@dataclass(frozen=True, kw_only=True)
class Converted:
    """What became of a data set.

    path: the file or folder that was written.
    rows, media: how many of each are in it.
    encoded: how many of the media were in memory only, and are now as their modality encodes them.
    bad_rows: rows that could not be used, where the policy is to leave them out.
    skipped: by reason, rows that say themselves that they are not to be used.
    """

    path: Path
    rows: int
    media: int
    encoded: int
    bad_rows: tuple[BadRow, ...]
    skipped: dict[str, int]


class Sink(Protocol):
    """Where rows go."""

    def plan(self, number: int, found: Comparison) -> None:
        """Look at a row before any is written."""
        ...

    def add(self, number: int, found: Comparison) -> None:
        """Write a row; a `DataError` says that it has no place."""
        ...

    def planned(self) -> None:
        """Every row has been looked at."""
        ...

    def finish(self) -> None:
        """Write what is left, and flush it to the disk."""
        ...

    def close(self) -> None:
        """Close what is open, whatever happened."""
        ...


@final
class Tally:
    """The rows of a data set as they come and go: what is wrong with which is kept, the others are counted.

    data: the rows.
    """

    def __init__(self, data: Data) -> None:
        self.data = data
        self.bad: dict[int, BadRow] = {}
        self.skipped: Counter[str] = Counter()
        self.rows = self.media = self.encoded = 0

    def good(self, progress: Callable[[int], None] | None = None) -> Iterator[tuple[int, Comparison]]:
        """The rows that nothing is known against, in order."""
        names = Names()
        self.skipped.clear()
        for number, found in enumerate(self.data.scan()):
            if progress is not None and number % _TELL == 0:
                progress(number)
            if isinstance(found, Skipped):
                self.skipped[found.what] += 1
                continue
            if isinstance(found, DataError):
                self.fail(number, found)
            elif (error := names.repeated(found, self.data.place(number))) is not None:
                self.fail(number, error)
            elif number not in self.bad:
                yield number, found

    def fail(self, number: int, error: DataError) -> None:
        """Keep what is wrong with a row."""
        file, row = self.data.place(number)
        self.bad.setdefault(number, BadRow.of(located(error, file=file, row=row)))

    def listed(self) -> tuple[BadRow, ...]:
        """The bad rows in the order of the data."""
        return tuple(self.bad[number] for number in sorted(self.bad))

    def judge(self) -> None:
        """Raise where they are more than the policy allows."""
        judge(self.data.name, len(self.data), self.data.config, self.listed())

    def check(self, written: Sequence[tuple[int, Comparison]], rows: Sequence[Row], root: Path | None) -> list[int]:
        """Which of some rows mean what was meant when they are read back; the others are kept as bad.

        written: number and meaning of each.
        """
        good: list[int] = []
        for at, ((number, meant), back) in enumerate(zip(written, read(rows, root=root).scan(), strict=True)):
            if isinstance(back, DataError):
                self.fail(number, DataError(f"it cannot be read back: {back.what}", field=back.field, got=back.got))
            elif replace(back, origin=None) != replace(meant, origin=None):
                self.fail(
                    number,
                    DataError(
                        "a row that would not mean the same once written",
                        field=_difference(meant, back),
                        got="another value when it is read back",
                        fix="convert to a folder of JSON lines, or remove the row",
                    ),
                )
            else:
                good.append(at)
        return good


def convert(data: Data, target: str | Path, *, progress: Callable[[int], None] | None = None) -> Converted:
    """Write a data set to a new file or folder, all of it or nothing.

    data: its settings say what is done about rows that cannot be used.
    target: ending in `.parquet`: a file with the media's encoded bytes in it, as the `datasets` library stores them;
        without an ending: a folder with `data.jsonl` and the media as files.
    progress: told the number of rows done, now and then, in each of two passes.
    """
    from modalign.data.lines_out import Lines
    from modalign.data.parquet_out import ParquetFile

    path = Path(target).expanduser()
    if path.suffix not in ("", ".parquet"):
        raise ConfigError(
            "no writer for this kind of file", got=path.name, fix="name a file .parquet, or a folder without an ending"
        )
    _refuse_existing(path)
    tally = Tally(data)
    make = ParquetFile if path.suffix else Lines
    with _draft(path) as draft, TemporaryDirectory() as scratch, closing(make(draft, tally, Path(scratch))) as sink:
        _pass(tally, sink.plan, progress)
        sink.planned()
        tally.judge()
        _pass(tally, sink.add, progress)
        sink.finish()
        tally.judge()
        if tally.rows == 0:
            raise DataError("no row is left to write", file=data.name, got=f"{len(data)} rows, none of them usable")
        _refuse_existing(path)
        draft.rename(path)
    return Converted(
        path=path,
        rows=tally.rows,
        media=tally.media,
        encoded=tally.encoded,
        bad_rows=tally.listed(),
        skipped=dict(tally.skipped),
    )


def _pass(tally: Tally, step: Callable[[int, Comparison], None], progress: Callable[[int], None] | None) -> None:
    for number, found in tally.good(progress):
        try:
            step(number, found)
        except DataError as error:
            tally.fail(number, error)


def encoded(part: Part, scratch: Path) -> bytes:
    """The encoded content of a medium; one in memory is encoded by its modality.

    scratch: a folder to write into.
    """
    match part.value:
        case bytes():
            return part.value
        case File():
            with part.value.open() as file:
                return file.read()
        case Tensor():
            file = registry.modality(part.modality).save(part, scratch / "part")
            content = file.read_bytes()
            file.unlink()
            return content
        case _:
            raise DataError("words are no medium", field=part.modality, got=part.modality)


def mapped(found: Comparison, change: Callable[[Part], Part]) -> Comparison:
    """The comparison with each of its media changed."""

    def messages(old: Sequence[Message]) -> tuple[Message, ...]:
        return tuple(
            replace(one, parts=tuple(part if isinstance(part.value, str) else change(part) for part in one.parts))
            for one in old
        )

    answers = tuple(replace(one, messages=messages(one.messages)) for one in found.responses)
    return replace(found, prompt=messages(found.prompt), responses=answers)


def in_bytes(part: Part, scratch: Path) -> Part:
    """The same medium as encoded bytes; of one in memory, what its modality reads in its own encoding."""
    content = encoded(part, scratch)
    if not isinstance(part.value, Tensor):
        return replace(part, value=content)
    modality = registry.modality(part.modality)
    kind = str(modality.block(part)["type"])
    return replace(modality.read({"type": kind, kind: content}, root=None), spans=part.spans)


def _difference(meant: Comparison, back: Comparison) -> str:
    """The first field in which two comparisons differ."""
    names = (name for name in meant.__dataclass_fields__ if name != "origin")
    return next(name for name in names if getattr(meant, name) != getattr(back, name))


def _refuse_existing(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise ConfigError("this exists, and is not overwritten", got=str(path), fix="remove it, or name another")
    if not path.absolute().parent.is_dir():
        raise ConfigError("it cannot be written there", got=f"no folder {path.parent}", fix="make it")


@contextmanager
def _draft(path: Path) -> Iterator[Path]:
    """A name beside the target to write under; nothing of that name is left, whatever happens."""
    draft = path.absolute().with_name(f"tmp-{path.name}-{uuid.uuid4().hex}")
    try:
        yield draft
    finally:
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)


def same_shape(first: str | None, row: Mapping[str, object]) -> str:
    """The shape of a row, which must be that of the first one: a file has one format."""
    from modalign.data.writing import shape

    found = shape(row)
    if first not in (None, found):
        raise DataError(
            "a row of another kind than the first",
            field="(whole row)",
            got=f"{found}; the first has {first}",
            fix="convert rows of each kind by themselves",
        )
    return found
