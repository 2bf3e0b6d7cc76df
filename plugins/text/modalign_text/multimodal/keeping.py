"""Prepared media, kept between the sequences and rows that repeat them, up to a size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar, final

from modalign.batch import Medium
from modalign.roles import EncodedSegment

_BYTES: Final = 256 << 20  #: of tensors that are kept

Made = TypeVar("Made", Medium, tuple[Medium, str], tuple[EncodedSegment, dict[str, Medium]])


@final
class Kept(Generic[Made]):
    """The last media that were asked for, by digest. A copy for another process starts empty."""

    def __init__(self) -> None:
        self._made: OrderedDict[str, Made] = OrderedDict()
        self._bytes = 0

    def __call__(self, digest: str, make: Callable[[], Made]) -> Made:
        """What was made of a medium, or what is made of it now."""
        if digest not in self._made:
            self.keep(digest, make())
        self._made.move_to_end(digest)
        return self._made[digest]

    def get(self, digest: str) -> Made | None:
        """What was made of a medium; None where that is not known."""
        if digest in self._made:
            self._made.move_to_end(digest)
        return self._made.get(digest)

    def keep(self, digest: str, made: Made) -> None:
        """Keep what was made, and drop what was not asked for longest."""
        if digest in self._made:
            self._bytes -= _size(self._made.pop(digest))
        self._made[digest] = made
        self._bytes += _size(made)
        while len(self._made) > 1 and self._bytes > _BYTES:
            _, dropped = self._made.popitem(last=False)
            self._bytes -= _size(dropped)

    def __getstate__(self) -> dict[str, object]:
        return {"_made": OrderedDict(), "_bytes": 0}


def _size(made: Medium | tuple[object, object]) -> int:
    """Bytes of the tensors in what was made of a medium."""
    if isinstance(made, Medium):
        return sum(tensor.nbytes for tensor in made.tensors.values())
    inside = (one for part in made for one in (part.values() if isinstance(part, dict) else (part,)))
    return sum(_size(one) for one in inside if isinstance(one, Medium))
