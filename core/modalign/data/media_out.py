"""Media of messages as files of one folder, named so that rows beside it can say them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

from torch import Tensor

from modalign.content import Message, Part
from modalign.errors import ConfigError, DataError
from modalign.files import File, components
from modalign.registry import registry


def filed(part: Part, stem: Path, root: Path) -> Part:
    """The same medium as a file below ``root``: one in memory as its modality encodes it, others to the byte.

    stem: the file without its suffix, which its modality knows.
    """
    modality = registry.modality(part.modality)
    file = modality.save(part, stem)
    name = file.relative_to(root).as_posix()
    if isinstance(part.value, Tensor):
        # what has to be known of a medium in memory is said by its encoding, and read from there
        kind = str(modality.block(part)["type"])
        return replace(modality.read({"type": kind, kind: name}, root=root), spans=part.spans)
    content = _content(part)
    if file.read_bytes() != content:
        file.write_bytes(content)
    return replace(part, value=File(root=root, name=name))


def _content(part: Part) -> bytes:
    match part.value:
        case bytes():
            return part.value
        case File():
            with part.value.open() as file:
                return file.read()
        case _:
            raise DataError("words are no medium", field=part.modality, got=part.modality)


@final
class MediaFolder:
    """Writes media into a folder, which is made when the first one comes; nothing in it is overwritten.

    folder: below ``root``, or the same.
    root: the folder that the files' names start from: that of the rows.
    """

    def __init__(self, folder: Path, *, root: Path) -> None:
        self.folder, self.root = folder, root
        self.count = 0  #: files written
        self._known: dict[str, Part] = {}  # by digest: what the rows bring along is written once
        below = folder != root
        if (below and folder.is_symlink()) or (folder.exists() and not folder.is_dir()):
            raise ConfigError(
                "media are written into a folder",
                where=str(folder),
                got="a link" if folder.is_symlink() else "a file",
                fix="remove it, or name another",
            )
        if below:
            components(folder.relative_to(root).as_posix())  # a name that no reader would open is refused now

    @property
    def filled(self) -> bool:
        """Whether anything is in it."""
        return self.folder.is_dir() and any(self.folder.iterdir())

    @property
    def free(self) -> int:
        """The first number that begins the name of no file in it, nor does any above."""
        names = [one.name for one in self.folder.iterdir()] if self.folder.is_dir() else []
        return 1 + max((int(found[0]) for name in names if (found := re.match(r"\d+", name))), default=0)

    def take(self, messages: Sequence[Message], name: str) -> tuple[Message, ...]:
        """The same messages with their media as files.

        name: of the first medium that has to be written; the next is `name-2`.
        """
        written = 0

        def moved(part: Part) -> Part:
            nonlocal written
            if isinstance(part.value, str):
                return part
            if (there := self._there(part)) is not None:
                return there
            written += 1
            self.folder.mkdir(parents=True, exist_ok=True)
            found = filed(part, self.folder / (name if written == 1 else f"{name}-{written}"), self.root)
            self.count += 1
            if not isinstance(part.value, Tensor):
                self._known[part.digest] = found
            return found

        return tuple(replace(one, parts=tuple(moved(part) for part in one.parts)) for one in messages)

    def _there(self, part: Part) -> Part | None:
        """The medium where it lies, if rows beside this folder can say it."""
        if isinstance(part.value, Tensor):
            return None  # a response has a file of its own, whatever another one shows
        if isinstance(part.value, File):
            place, root = part.value.root.resolve() / part.value.name, self.root.resolve()
            if place.is_relative_to(root):
                return replace(part, value=File(root=self.root, name=place.relative_to(root).as_posix()))
        known = self._known.get(part.digest)
        return None if known is None else replace(known, spans=part.spans)
