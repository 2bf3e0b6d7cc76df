"""A parquet file with media inside, a row group at a time, that the `datasets` library reads too."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

from torch import Tensor

from modalign.comparison import Comparison
from modalign.content import Part
from modalign.data.convert import Tally, in_bytes, mapped, same_shape
from modalign.data.parquet import EXTRA
from modalign.data.vocabulary import Vocabulary
from modalign.data.writing import Row, RowWriter
from modalign.errors import DataError, MissingExtra
from modalign.files import File
from modalign.registry import registry

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

GROUP_ROWS = 1000  #: most rows of a row group,
GROUP_BYTES = 64 << 20  #: and the bytes of media that end one
MOST = (1 << 31) - 1  #: bytes of one value


@final
class ParquetFile:
    """Writes rows to a parquet file, whose types are found in a pass before.

    path: to be made.
    tally: of the data set.
    scratch: a folder for what is only passed on.
    """

    def __init__(self, path: Path, tally: Tally, scratch: Path) -> None:
        try:
            import datasets  # noqa: F401 - what the file says of its features is this library's
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise MissingExtra("parquet files need pyarrow and datasets", got=str(error), fix=EXTRA) from error
        self._path, self._tally, self._scratch = path, tally, scratch
        # one type for all content, strings and blocks alike
        self._writer = RowWriter(Vocabulary.of(registry), blocks=True)
        self._shape: str | None = None
        self._columns: dict[str, str] = {}  # of media -> their modality
        self._schema: pyarrow.Schema = pyarrow.schema([])
        self._planned: list[tuple[int, Row]] = []
        self._group: list[tuple[int, Comparison]] = []
        self._rows: list[Row] = []
        self._bytes = 0
        self._encoded = 0
        self._out: pyarrow.parquet.ParquetWriter | None = None
        self._file = path.open("xb")

    def plan(self, number: int, found: Comparison) -> None:
        row, media = self._writer.row(found)
        self._shape = same_shape(self._shape, row)
        self._columns |= {column: parts[0].modality for column, parts in media.items()}
        self._planned.append((number, row))
        if len(self._planned) == GROUP_ROWS:
            self._merge()

    def planned(self) -> None:
        self._merge()
        self._schema = self._featured()

    def add(self, number: int, found: Comparison) -> None:
        size = encodings = 0

        def held(part: Part) -> Part:
            nonlocal size, encodings
            encodings += isinstance(part.value, Tensor)
            inside = in_bytes(part, self._scratch)
            assert isinstance(inside.value, bytes)
            size += len(inside.value)
            if size > MOST:
                raise DataError("media of more than 2 GiB in one row", field=part.modality, got=f"{size} bytes")
            return inside

        meant = mapped(found, held)
        row, media = self._writer.row(meant)
        names = _names(found)
        for column, parts in media.items():
            row[column] = [{"bytes": part.value, "path": names.get(part.digest)} for part in parts]
        self._group.append((number, meant))
        self._rows.append(row)
        self._bytes += size
        self._encoded += encodings
        if len(self._rows) == GROUP_ROWS or self._bytes >= GROUP_BYTES:
            self._flush()

    def finish(self) -> None:
        self._flush()
        if self._out is not None:
            self._out.close()
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        if self._out is not None and self._out.is_open:
            self._out.close()
        self._file.close()

    def _merge(self) -> None:
        """Take the types of the planned rows into the schema; a row that does not fit the others is bad."""
        import pyarrow

        if not self._planned:
            return
        try:
            self._schema = _joined(self._schema, [row for _, row in self._planned])
        except (pyarrow.ArrowException, UnicodeError):
            for number, row in self._planned:
                try:
                    self._schema = _joined(self._schema, [row])
                except (pyarrow.ArrowException, UnicodeError) as error:
                    self._tally.fail(
                        number,
                        DataError(
                            "a row whose types do not fit those before it in one parquet file",
                            field="(whole row)",
                            got=str(error)[:200],
                            fix="convert to a folder of JSON lines, which needs no common types",
                        ),
                    )
        self._planned.clear()

    def _flush(self) -> None:
        group, rows, encodings = self._group, self._rows, self._encoded
        self._group, self._rows, self._bytes, self._encoded = [], [], 0, 0
        if not rows:
            return
        try:
            table = self._table(rows)
        except DataError as error:
            if len(rows) == 1:
                self._tally.fail(group[0][0], error)
                return
            for one, row in zip(group, rows, strict=True):  # to know which
                self._group, self._rows = [one], [row]
                self._flush()
            return
        good = self._tally.check(group, table.to_pylist(), None)
        if good:
            self._writer_of(table).write_table(table.take(good) if len(good) < len(rows) else table)
            self._tally.rows += len(good)
            media = (rows[at].get(column) for at in good for column in self._columns)
            self._tally.media += sum(len(one) for one in media if isinstance(one, list))
            self._tally.encoded += encodings

    def _table(self, rows: Sequence[Row]) -> pyarrow.Table:
        import pyarrow

        try:
            columns = [pyarrow.array([row.get(one.name) for row in rows], one.type) for one in self._schema]
            return pyarrow.Table.from_arrays(columns, schema=self._schema)
        except (pyarrow.ArrowException, UnicodeError) as error:
            raise DataError(
                "a row that parquet cannot say",
                field="(whole row)",
                got=str(error)[:200],
                fix="convert to a folder of JSON lines",
            ) from error

    def _featured(self) -> pyarrow.Schema:
        """The schema, with what the `datasets` library wants to know of it."""
        import datasets
        import pyarrow

        plain = self._schema
        stored = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        for column in self._columns:
            plain = plain.append(pyarrow.field(column, pyarrow.list_(stored)))
        features = datasets.Features.from_arrow_schema(plain)
        for column, modality in self._columns.items():
            # the library calls its feature by the modality's name, where it has one
            feature = getattr(datasets, modality.capitalize(), None)
            if feature is not None:
                features[column] = datasets.List(feature())
        return plain.with_metadata(features.arrow_schema.metadata)

    def _writer_of(self, table: pyarrow.Table) -> pyarrow.parquet.ParquetWriter:
        if self._out is None:
            import pyarrow.parquet

            self._out = pyarrow.parquet.ParquetWriter(self._file, table.schema)
        return self._out


def _joined(known: pyarrow.Schema, rows: Sequence[Row]) -> pyarrow.Schema:
    import pyarrow

    names = dict.fromkeys(name for row in rows for name in row)
    types = [(name, pyarrow.array([row.get(name) for row in rows]).type) for name in names]
    return pyarrow.unify_schemas([known, pyarrow.schema(types)], promote_options="permissive")


def _names(found: Comparison) -> dict[str, str]:
    """The names of the files that media were in, by digest."""
    every = [found.prompt, *(response.messages for response in found.responses)]
    parts = [part for messages in every for message in messages for part in message.parts]
    return {part.digest: part.value.name.rpartition("/")[2] for part in parts if isinstance(part.value, File)}
