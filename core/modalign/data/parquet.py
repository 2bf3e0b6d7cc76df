"""Rows of parquet files, a row group at a time. Needs the `data` extra."""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, final

from modalign.data.fields import string
from modalign.data.jsonlines import digest_of_file
from modalign.data.source import Row, Source
from modalign.errors import DataError, MissingExtra

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

KEPT = 512 << 20  #: bytes of decoded row groups that are kept for the next row

EXTRA = 'pip install "modalign[data]"'


@final
class Parquet(Source):
    """A parquet file; only the row groups last asked for are in memory.

    path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.name, self._path = str(path), path
        self._file: pyarrow.parquet.ParquetFile | None = None
        self._groups: OrderedDict[int, pyarrow.Table] = OrderedDict()
        opened = self._opened()
        groups = opened.metadata.num_row_groups
        self._ends = list(accumulate(opened.metadata.row_group(at).num_rows for at in range(groups)))
        self.columns = tuple(opened.schema_arrow.names)
        for column in self.columns:
            string(column, column)
        if len(set(self.columns)) != len(self.columns):
            raise DataError("a column occurs twice", file=self.name, got=", ".join(self.columns), fix="rename one")

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def row(self, number: int) -> Row:
        group = bisect_right(self._ends, number)
        first = self._ends[group - 1] if group else 0
        return _row(self._group(group).slice(number - first, 1))

    def __iter__(self) -> Iterator[Row | DataError]:
        for group in range(len(self._ends)):
            for batch in self._group(group).to_batches(max_chunksize=1024):
                try:
                    yield from batch.to_pylist()
                except UnicodeDecodeError:
                    yield from (_row_or_error(batch.slice(at, 1)) for at in range(len(batch)))

    def stable(self, number: int) -> tuple[str, int]:
        return self._path.name, number + 1

    def _digest(self) -> str:
        return digest_of_file(self._path)

    def __getstate__(self) -> dict[str, object]:
        # a process opens the file itself
        state: dict[str, object] = dict(self.__dict__)
        state["_file"], state["_groups"] = None, OrderedDict()
        return state

    def _group(self, number: int) -> pyarrow.Table:
        if number not in self._groups:
            import pyarrow

            try:
                self._groups[number] = self._opened().read_row_group(number)
            except (pyarrow.ArrowException, OSError) as error:
                raise self._broken(error) from error
            while len(self._groups) > 1 and sum(table.nbytes for table in self._groups.values()) > KEPT:
                self._groups.popitem(last=False)
        self._groups.move_to_end(number)
        return self._groups[number]

    def _opened(self) -> pyarrow.parquet.ParquetFile:
        if self._file is None:
            try:
                import pyarrow
                import pyarrow.parquet
            except ImportError as error:
                raise MissingExtra("parquet files need pyarrow", got=str(error), fix=EXTRA) from error
            try:
                self._file = pyarrow.parquet.ParquetFile(self._path)
            except (pyarrow.ArrowException, OSError) as error:
                raise self._broken(error) from error
        return self._file

    def _broken(self, error: Exception) -> DataError:
        return DataError(
            "a parquet file that cannot be read", file=self.name, got=str(error)[:200], fix="fetch the file again"
        )


def _row(table: pyarrow.Table | pyarrow.RecordBatch) -> Row:
    try:
        return table.to_pylist()[0]
    except UnicodeDecodeError as error:  # arrow does not check the bytes of its strings
        found = f"byte 0x{error.object[error.start]:02x}, {error.start} bytes into a string"
        raise DataError("not valid UTF-8", field="(whole row)", got=found, fix="rewrite the file") from error


def _row_or_error(table: pyarrow.Table | pyarrow.RecordBatch) -> Row | DataError:
    try:
        return _row(table)
    except DataError as error:
        return error
