"""The metrics of a run as JSON lines: appended one at a time, whole or not at all.

A line is an object with `step` and numbers by name; what JSON has no number for is "NaN", "Infinity" or "-Infinity".
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, cast, final

from modalign.errors import DataError
from modalign.failpoints import hit
from modalign.training.storage.durable import disk_errors, replace_file, write_all

log = logging.getLogger(__name__)

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


@final
class MetricsLog:
    """An append-only file with one writer; anyone may read it at any time.

    path: the file; made if it is not there. A last line that was cut off by a kill is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = -1
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def append(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one line; it is with the operating system when this returns, so that a kill cannot take it back."""
        record = {"step": int(step)} | {name: _number(name, value) for name, value in metrics.items()}
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        end = os.fstat(self._file).st_size
        with disk_errors(self.path, len(line)):
            hit("metrics-append")
            try:
                write_all(self._file, line)
            except OSError:
                with suppress(OSError):  # half a line would swallow the next one
                    os.ftruncate(self._file, end)
                raise

    def sync(self) -> None:
        """Flush to the disk, as before a checkpoint, so that a power cut loses no line up to it."""
        with disk_errors(self.path, 0):
            os.fsync(self._file)

    def truncate_after(self, step: int, *, owed: str | None = None) -> int:
        """Drop the lines of later steps, as a resumed run will write them again; returns how many.

        owed: a metric that step itself still owes: its lines with it, of an earlier resumption, go too.
        """
        records = list(read_metrics(self.path))
        lines = self.path.read_bytes().splitlines(keepends=True)[: len(records)]
        kept = [
            line
            for line, record in zip(lines, records, strict=True)
            if record["step"] < step or (record["step"] == step and owed not in record)
        ]
        if len(kept) < len(records):
            self.close()
            try:
                replace_file(self.path, b"".join(kept))
            finally:
                self._open()
        return len(records) - len(kept)

    def close(self) -> None:
        """Close the file; a log may be closed twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self) -> None:
        with disk_errors(self.path, 0):
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            data = self.path.read_bytes()
            if whole := len(data) - (data.rfind(b"\n") + 1):
                log.warning("removing a last line of %d bytes that was cut off from %s", whole, self.path)
                os.ftruncate(self._file, len(data) - whole)


def read_metrics(path: Path) -> Iterator[dict[str, float]]:
    """The lines of a metrics file, oldest first; a last line that is still being written is left out."""
    with path.open("rb") as file:
        for row, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line, parse_constant=_refuse)
                if not isinstance(record, dict) or type(record.get("step")) is not int:
                    raise ValueError("no object with a step")
                yield {name: _NON_FINITE[value] if isinstance(value, str) else value for name, value in record.items()}
            except (ValueError, KeyError) as error:
                raise DataError(
                    "cannot read a line of metrics", file=str(path), row=row, got=error, fix="remove that line"
                ) from error


def _refuse(name: str) -> float:
    msg = f"{name} is not JSON"
    raise ValueError(msg)


def _number(name: str, value: object) -> float | int | str:
    if isinstance(value, bool | int):
        return int(value)
    try:
        number = float(cast(float, value))  # numpy scalars and 0-d tensors too
    except (TypeError, ValueError) as error:
        msg = f"the metric {name!r} is no number but {type(value).__name__}"
        raise TypeError(msg) from error
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number
