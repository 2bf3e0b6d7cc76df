"""Rows of any source as comparisons, by number: the format is found once, each row is read when it is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import final

from modalign.comparison import Comparison, Origin
from modalign.config import DataConfig
from modalign.data.opening import open_object, open_path
from modalign.data.ordering import ordered
from modalign.data.source import Row, Rows, Source
from modalign.data.validate import validate
from modalign.data.vocabulary import Vocabulary, using
from modalign.errors import ConfigError, DataError, ModalignError, PluginError
from modalign.registration.admission import describe_error
from modalign.registry import registry
from modalign.roles import Format
from modalign.shown import located, printable

_PROBES = 32  #: rows that are looked at to find the format

ORACLE = "oracle"  #: the path that means the synthetic world


@final
class Data(Sequence[Comparison]):
    """Comparisons by number; a row that cannot be used raises a `DataError` with its file, row and field.

    source: of the rows.
    config: how they are read.
    root: the folder that media files must lie in; None allows no files.

    >>> data = read([{"prompt": "The sky is", "chosen": " blue.", "rejected": " loud."}])
    >>> data[0].chosen.messages[0].parts[0].value
    ' blue.'
    """

    def __init__(self, source: Source, config: DataConfig, *, root: Path | None = None) -> None:
        self.name = source.name
        self.config = config
        self.source = source
        self.root = root
        self._length = len(source) if config.limit is None else min(config.limit, len(source))
        if self._length == 0:
            raise DataError(
                "no rows", file=printable(self.name), got="an empty data set", fix="fetch or write it again"
            )
        self._vocabulary = Vocabulary.of(registry)
        self._format, self._reads = self._find_format(config.format)

    @property
    def format(self) -> str | None:
        """Name of the row format; None where the source holds comparisons."""
        return self._format

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found and put up with while the source was opened."""
        return self.source.notes

    @property
    def digest(self) -> str:
        """SHA-256 of the source's content, as hex, for the run's manifest."""
        return self.source.digest

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> Comparison:  # pyright: ignore[reportIncompatibleMethodOverride] - no slices
        at = number + self._length if number < 0 else number
        if not 0 <= at < self._length:
            msg = f"row {number} of {self._length}"
            raise IndexError(msg)
        try:
            row = self.source.row(at)
        except DataError as error:
            raise self._placed(error, at) from error
        found = self._comparison(row, at)
        if isinstance(found, DataError):
            raise found
        return found

    def __iter__(self) -> Iterator[Comparison]:
        for found in self.scan():
            if isinstance(found, DataError):
                raise found
            yield found

    def scan(self, columns: Counter[str] | None = None) -> Iterator[Comparison | DataError]:
        """Each row in order, read one after the other: its comparison, or what is wrong with it.

        columns: counts, by column, the rows that say something there.
        """
        for number, row in enumerate(islice(self.source, self._length)):
            if columns is not None and isinstance(row, Mapping):
                columns.update(name for name, value in row.items() if value is not None)
            yield self._placed(row, number) if isinstance(row, DataError) else self._comparison(row, number)

    def place(self, number: int) -> tuple[str, int]:
        """The file and row of a comparison, for messages."""
        return self.source.place(number)

    def _placed(self, error: DataError, number: int) -> DataError:
        file, row = self.source.place(number)
        placed = located(error, file=file, row=row)
        placed.__cause__ = error.__cause__
        return placed

    def _comparison(self, row: Row, number: int) -> Comparison | DataError:
        file, at = self.source.stable(number)
        origin = Origin(file=file, row=at)
        try:
            if isinstance(row, Comparison):
                return self._ordered(validate(row if row.origin is not None else replace(row, origin=origin)))
            if self._reads is None:
                raise DataError("a row of columns among comparisons", got=", ".join(row), fix="use one or the other")
            with using(self._vocabulary):
                return self._ordered(validate(self._reads.comparison(row, origin, root=self.root)))
        except DataError as error:
            return self._placed(error, number)
        except ModalignError:
            raise
        except Exception as error:  # a format is a plugin's: what it did not foresee is about this row
            unforeseen = DataError(
                f"the format {self._format!r} failed on this row",
                got=f"{type(error).__name__}: {error}"[:200],
                fix="remove the row, or tell the authors of the format",
            )
            unforeseen.__cause__ = error
            return self._placed(unforeseen, number)

    def _ordered(self, found: Comparison) -> Comparison:
        weights = self.config.preference_weights
        return found if weights is None else ordered(found, weights)

    def _find_format(self, name: str | None) -> tuple[str | None, Format | None]:
        """The format by name, or the first by priority that claims most of the first rows: one row decides nothing."""
        if name is not None:
            return name, registry.format(name)
        probes: list[Mapping[str, object]] = []
        first: DataError | None = None
        for number, row in enumerate(islice(self.source, min(self._length, _PROBES))):
            if isinstance(row, Comparison):
                return None, None
            if isinstance(row, DataError):
                first = first or self._placed(row, number)
            else:
                probes.append(row)
        if not probes:
            assert first is not None
            raise first
        formats = registry.formats()
        for known, found in formats.items():
            if sum(_claims(known, found, row) for row in probes) * 2 > len(probes):
                return known, found
        shapes = Counter(", ".join(sorted(str(key) for key in row)) for row in probes)
        file, row = self.source.place(0)
        raise DataError(
            "no format claims rows with these columns",
            file=printable(file),
            row=row,
            field="(whole row)",
            got=printable(shapes.most_common(1)[0][0] or "no columns"),
            fix=f"rename the columns, or say which format they are: {', '.join(formats) or 'no plugin has one'}",
        )


def _claims(name: str, format: Format, row: Mapping[str, object]) -> bool:
    """What a format answers; one that fails to answer is named, since another might claim the rows in its place."""
    try:
        return bool(format.claims(_present(row), row))
    except ModalignError:
        raise
    except Exception as error:
        raise PluginError(
            f"the format {name!r} of {registry.entries('formats')[name].owner} failed to say whether it claims a row",
            got=describe_error(error),
            fix="name the format of the data, or tell the plugin's authors",
        ) from error


def _present(row: Mapping[str, object]) -> frozenset[str]:
    """Columns that say something: a null one is as good as absent."""
    return frozenset(name for name, value in row.items() if value is not None)


def read(source: object, **settings: object) -> Data:
    """Comparisons from whatever holds them.

    source: a path, an id on the hub, `oracle`, a `DataConfig`, a `datasets.Dataset`, or a list of rows or comparisons.
    settings: the other fields of `DataConfig`.

    >>> len(read([{"prompt": "2+2=", "completion": "4"}]))
    1
    """
    if isinstance(source, Data):
        if settings:
            raise ConfigError(
                "these data have been read, and how they are read is settled",
                got=", ".join(settings),
                fix="give the settings where the data are read first",
            )
        return source
    if isinstance(source, DataConfig):
        config = source.model_copy(update={}) if not settings else _config(source.path, source.model_dump() | settings)
        return _open(config)
    if isinstance(source, str | Path):
        return _open(_config(str(source), settings))
    config = _config("memory", settings)
    return Data(open_object(source, split=config.split), config, root=config.root)


def _config(path: str, settings: Mapping[str, object]) -> DataConfig:
    from pydantic import ValidationError

    try:
        return DataConfig.model_validate({**settings, "path": path})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(DataConfig.model_fields)
        raise ConfigError(
            first["msg"], where=f"data setting {where!r}", got=str(first["input"])[:80], fix=f"settings are {known}"
        ) from error


def _open(config: DataConfig) -> Data:
    if config.path == ORACLE:
        from modalign.world import data

        return Data(Rows(data(config), ORACLE), config, root=config.root)
    source = open_path(config.path, split=config.split, revision=config.revision)
    found = Path(config.path).expanduser()
    home = found if found.is_dir() else found.parent if found.is_file() else None
    return Data(source, config, root=config.root or home)
