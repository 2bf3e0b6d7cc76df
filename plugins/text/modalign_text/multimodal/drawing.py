"""What is said around media that a language model makes while it writes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import final

from modalign.batch import Medium
from modalign.content import Part
from modalign_text.media import MediaWriter


@final
@dataclass(frozen=True, kw_only=True)
class Seen:
    """A medium that was made, as what follows reads it.

    tokens: that it stands in; none where nothing reads it.
    key, medium: what is embedded there, and what it is known by.
    behind: the tokens that close it.
    """

    tokens: Sequence[int]
    key: str
    medium: Medium | None
    behind: Sequence[int]


class Drawing(MediaWriter):
    """Writes media into texts for a model that makes some of them itself.

    openers: the tokens by which it says that a medium follows, and its modality.
    never: tokens that are given, and never said.
    """

    openers: Mapping[int, str]

    @property
    @abstractmethod
    def never(self) -> Set[int]:
        """Token ids that are given, and never said."""

    def ahead(self, modality: str) -> Sequence[int]:
        """The tokens that are given between the one that opens a medium and the medium."""
        return ()

    @abstractmethod
    def seen(self, part: Part) -> Seen:
        """A medium that the model has just made."""
