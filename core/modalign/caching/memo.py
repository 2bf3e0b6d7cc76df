"""What frozen encoders gave, remembered by the medium's digest: within a step, and on disk where a folder is given."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, cast, final

import torch
from torch import Tensor, nn

from modalign.frozen import empty

if TYPE_CHECKING:
    from modalign.batch import Medium
    from modalign.caching.features import FeatureCache
    from modalign.roles import Encoder


_LOG = logging.getLogger("modalign")


@final
class Memo:
    """The encodings of one step, shared by policy and reference, and how many media each kind of tower was run on.

    A copy of a model shares the memo of the model it was made from.

    passes: media that towers were run on since the count was last taken, by modality.
    cache: encodings on disk, of frozen encoders, and of frozen parts by encoders that know theirs.
    """

    def __init__(self) -> None:
        self.passes: Counter[str] = Counter()
        self.cache: FeatureCache | None = None
        self._kept: dict[tuple[str, str], object] | None = None
        self._said: set[tuple[str, str]] = set()

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Within it what frozen encoders give is kept: for one step, whose weights are the same throughout."""
        if self._kept is not None:
            yield
            return
        self._kept = {}
        try:
            yield
        finally:
            self._kept = None

    @property
    def keeps(self) -> bool:
        """Whether anything that is given now is kept."""
        return self._kept is not None or self.cache is not None

    def take(self) -> Counter[str]:
        """The passes since this was last asked."""
        passes, self.passes = self.passes, Counter()
        return passes

    def encode(self, name: str, encoder: Encoder, media: Mapping[str, Medium]) -> dict[str, Tensor]:
        """Each medium's embeddings by digest, ``m width``; the encoder is run once, on those that are not known."""
        self._say(name, encoder)
        if encoder.frozen:
            return cast("dict[str, Tensor]", self.frozen(name, encoder, media, encoder, encoder.facts))
        return dict(zip(media, encoder(list(media.values())), strict=True)) if media else {}

    def frozen(
        self,
        name: str,
        module: nn.Module,
        media: Mapping[str, Medium],
        run: Callable[[list[Medium]], Sequence[object]],
        facts: Mapping[str, object] = empty(),
    ) -> dict[str, object]:
        """What a frozen module gives of each medium, by digest; it is run once, on those that are not known.

        run: what it does.
        facts: its settings beside its weights, by name: what it gives depends on them.
        """
        kept = {digest: self.recall(name, digest) for digest in media}
        found = {digest: known for digest, known in kept.items() if known is not None}
        if self.cache is not None:
            for digest, medium in media.items():
                if digest not in found and medium.cacheable:
                    known = self.cache.get(module, digest, facts)
                    if known is not None:
                        found[digest] = known
        missing = [digest for digest in media if digest not in found]
        if missing:
            # a frozen encoder may begin with a table that trains: what is kept must not hold on to that graph
            with torch.no_grad():
                given = run([media[digest] for digest in missing])
            for digest, one in zip(missing, given, strict=True):
                found[digest] = one
                if self.cache is not None and media[digest].cacheable:
                    self.cache.put(module, digest, one, facts)
        for digest, one in found.items():
            self.keep(name, digest, one)
        return found

    def _say(self, name: str, encoder: Encoder) -> None:
        """Say once why a folder that was asked for gets nothing of an encoder."""
        if self.cache is not None and (why := encoder.unstored) and (name, why) not in self._said:
            self._said.add((name, why))
            _LOG.warning("the feature cache keeps nothing of %s: %s", name, why)

    def recall(self, name: str, digest: str) -> object:
        """What one encoder, or a part of one, kept of a medium in this step; None where it kept nothing."""
        return None if self._kept is None else self._kept.get((name, digest))

    def keep(self, name: str, digest: str, encoding: object) -> None:
        """Keep what a frozen encoder, or a frozen part of one, gave until the step ends; outside of one nothing is."""
        if self._kept is not None:
            self._kept[name, digest] = encoding
