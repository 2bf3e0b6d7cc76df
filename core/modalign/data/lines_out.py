"""JSON lines in a folder, with media as files beside them, each named by its content."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import final

from torch import Tensor

from modalign.comparison import Comparison
from modalign.content import Part, digest
from modalign.data.convert import Tally, in_bytes, mapped, same_shape
from modalign.data.media_out import filed
from modalign.data.vocabulary import Vocabulary
from modalign.data.writing import RowWriter
from modalign.files import File
from modalign.registry import registry

ROWS = "data.jsonl"  #: the rows' file in the folder
MEDIA = "media"  #: the folder's folder of media


@final
class Lines:
    """Writes rows to `data.jsonl` of a folder, and each different medium once below `media`.

    folder: to be made.
    tally: of the data set.
    scratch: a folder for what is only passed on.
    """

    def __init__(self, folder: Path, tally: Tally, scratch: Path) -> None:
        self._folder, self._tally, self._scratch = folder, tally, scratch
        self._writer = RowWriter(Vocabulary.of(registry), blocks=False)
        self._shape: str | None = None
        folder.mkdir()
        self._file = (folder / ROWS).open("x", encoding="ascii")

    def plan(self, number: int, found: Comparison) -> None:
        self._shape = same_shape(self._shape, self._writer.row(found)[0])

    def add(self, number: int, found: Comparison) -> None:
        counts = [0, 0]

        def filed(part: Part) -> Part:
            counts[0] += 1
            counts[1] += isinstance(part.value, Tensor)
            return self._filed(part)

        meant = mapped(found, filed)
        row, media = self._writer.row(meant)
        row |= {column: [str(part.value) for part in parts] for column, parts in media.items()}
        line = json.dumps(row)
        if self._tally.check([(number, meant)], [json.loads(line)], self._folder):
            self._file.write(f"{line}\n")
            self._tally.rows += 1
            self._tally.media += counts[0]
            self._tally.encoded += counts[1]

    def planned(self) -> None:
        pass  # JSON needs no common types

    def finish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def _filed(self, part: Part) -> Part:
        """The same medium as a file of the folder."""
        held = in_bytes(part, self._scratch) if isinstance(part.value, Tensor) else part
        name = digest(held.value)
        home = self._folder / MEDIA / name[:2]
        home.mkdir(parents=True, exist_ok=True)
        if (there := next(home.glob(f"{name}.*"), None)) is None:
            return filed(held, home / name, self._folder)
        return replace(held, value=File(root=self._folder, name=there.relative_to(self._folder).as_posix()))
