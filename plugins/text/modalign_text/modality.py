"""Words as a modality: a part is a string; shown escaped, saved as a text file."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, final

from modalign.content import Part
from modalign.data.fields import block_value, string
from modalign.errors import DataError
from modalign.roles import Modality


@final
class TextModality(Modality):
    """Words.

    >>> words = TextModality()
    >>> part = words.read({"type": "text", "text": "2 < 3"}, root=None)
    >>> words.show(part)
    '<span style="white-space: pre-wrap">2 &lt; 3</span>'
    """

    name: ClassVar[str] = "text"
    blocks: ClassVar[tuple[str, ...]] = ("text",)

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        return Part(modality=self.name, value=string(block_value(block, "text", "words"), "text"))

    def block(self, part: Part) -> Mapping[str, object]:
        return {"type": "text", "text": _words(part)}

    def save(self, part: Part, stem: Path) -> Path:
        file = stem.with_name(f"{stem.name}.txt")
        # bytes, so that no platform turns line ends into its own: what is saved is what was written
        file.write_bytes(_words(part).encode("utf-8", "backslashreplace"))
        return file

    def show(self, part: Part) -> str:
        return f'<span style="white-space: pre-wrap">{html.escape(_words(part))}</span>'


def _words(part: Part) -> str:
    if not isinstance(part.value, str):
        raise DataError("a part of words must be a string", field="value", got=type(part.value).__name__)
    return part.value
