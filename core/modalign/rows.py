"""Token rows as they grow: a trunk and its branches laid side by side, with everything that is said of each token.

n tokens of a row, p axes of positions, u units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from modalign.batch import Batch, Medium, Segment, Slot, Targets, TokenUnits
from modalign.draws import DrawKey
from modalign.layout import Layout, Span
from modalign.roles import GIVEN, Encoded, EncodedSegment, EncodedSlot


def common_trunk(encoded: Sequence[Encoded]) -> int:
    """Tokens that all sequences share in every respect, never past the prompt and never inside a slot."""
    first, *rest = encoded
    trunk = min(one.prompt for one in encoded)
    for one in rest:
        pairs = zip(first.tokens[:trunk], one.tokens[:trunk], strict=False)
        trunk = min(trunk, next((at for at, (a, b) in enumerate(pairs) if a != b), trunk), len(one.tokens))
        mine, theirs = _inputs(first), _inputs(one)
        if (first.positions is None) != (one.positions is None):  # without media they are 0, 1, 2, ...
            mine, theirs = (own if "" in own else own | {"": torch.arange(trunk)} for own in (mine, theirs))
        for name in {*mine, *theirs}:
            trunk = min(trunk, _alike(mine.get(name), theirs.get(name), trunk))
    for one in encoded:
        for slot in one.slots:
            shared = all(slot in other.slots for other in encoded)
            if slot.start < trunk and (slot.stop > trunk or not shared):
                trunk = slot.start
    return trunk


def _inputs(one: Encoded) -> dict[str, Tensor]:
    """What a sequence gives of each token beside its id, ``... n``; positions have no name."""
    return {**one.features, **({} if one.positions is None else {"": one.positions})}


def _alike(one: Tensor | None, other: Tensor | None, trunk: int) -> int:
    """How many of the first tokens two per-token inputs have in common; a missing one is zeros."""
    if one is None or other is None:
        found = one if other is None else other
        differs = torch.zeros(0) if found is None else found[..., :trunk] != 0
    else:
        most = min(trunk, one.shape[-1], other.shape[-1])
        differs = one[..., :most] != other[..., :most]
    places = differs.reshape(-1, differs.shape[-1]).any(0).nonzero()
    return int(places[0]) if len(places) else trunk


@final
@dataclass
class Rows:
    """The rows of a batch as they grow."""

    tokens: list[list[int]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    roots: dict[int, int] = field(default_factory=dict)  # row -> its trunk's span
    segments: list[Segment] = field(default_factory=list)
    units: dict[str, list[tuple[int, int, int, int]]] = field(default_factory=dict)  # row, index, token, segment
    slots: list[Slot] = field(default_factory=list)
    media: dict[str, Medium] = field(default_factory=dict)
    ends: list[tuple[int, int]] = field(default_factory=list)
    inputs: list[tuple[int, list[int], dict[str, Tensor]]] = field(default_factory=list)  # row, places, by name

    def open(self, first: Encoded, trunk: int) -> tuple[int, int]:
        """A new row that begins with a trunk; returns the row and the trunk's tokens."""
        row = len(self.tokens)
        self.tokens.append(list(first.tokens[:trunk]))
        if trunk:
            self.roots[row] = len(self.spans)
            self.spans.append(Span(row=row, start=0, stop=trunk))
            self._slot(row, [slot for slot in first.slots if slot.stop <= trunk], range(trunk))
        return row, trunk

    def add(self, row: int, trunk: int, one: Encoded, key: str) -> None:
        """Lay one sequence out as a branch of a row's trunk: pieces between its query positions, each with its leaf."""
        tokens, line = one.tokens, self.tokens[row]
        parent = self.roots.get(row)
        place = list(range(trunk))
        leaves: dict[int, int] = {}  # number of a segment -> the span of its queries
        queries = [(segment.after, number) for number, segment in enumerate(one.segments) if segment.query]
        for cut in sorted({after for after, _ in queries} | {len(tokens)}):
            if cut > len(place):
                begin, done = len(line), len(place)
                line.extend(tokens[done:cut])
                self.spans.append(Span(row=row, start=begin, stop=len(line), parent=parent, offset=done))
                parent = len(self.spans) - 1
                place.extend(range(begin, len(line)))
            for after, number in (query for query in queries if query[0] == cut):
                begin = len(line)
                line.extend(one.segments[number].query)
                leaves[number] = len(self.spans)
                if (asks := one.segments[number].asks) is not None:
                    self.slots.append(Slot(row=row, start=begin, stop=len(line), digest=asks))
                self.spans.append(Span(row=row, start=begin, stop=len(line), parent=parent, offset=len(place)))
                if one.positions is not None:  # they go on from the token they follow
                    last = one.positions[:, :after].amax() if after else torch.tensor(-1)
                    queried = last + 1 + torch.arange(len(line) - begin).expand(one.positions.shape[0], -1)
                    self.inputs.append((row, list(range(begin, len(line))), {"": queried}))
        self._slot(row, [slot for slot in one.slots if slot.start >= trunk], place)
        self.media |= {digest: replace(medium, digest=digest) for digest, medium in one.media.items()}
        if found := _inputs(one):
            self.inputs.append((row, place, found))
        self._score(row, one, key, place, leaves)
        self.ends.append((row, place[-1] if place else 0))

    def _slot(self, row: int, slots: Sequence[EncodedSlot], place: Sequence[int]) -> None:
        for slot in slots:
            start, stop = place[slot.start], place[slot.stop - 1] + 1
            self.slots.append(Slot(row=row, start=start, stop=stop, digest=slot.digest, first=slot.first))

    def _score(self, row: int, one: Encoded, key: str, place: list[int], leaves: Mapping[int, int]) -> None:
        seen: dict[str, int] = {}
        for number, segment in enumerate(one.segments):
            occurrence = seen.get(segment.modality, 0)
            seen[segment.modality] = occurrence + 1
            units = self.units.setdefault(segment.decoder, []) if segment.kind == "token" else []
            # the first token of a sequence has no context, and so no unit
            said = ((at, _scored(one, segment, at)) for at in range(max(segment.start, 1), segment.stop))
            units.extend((row, place[at - 1], code, len(self.segments)) for at, code in said if code != GIVEN)
            self.segments.append(
                Segment(
                    response=len(self.ends),
                    modality=segment.modality,
                    decoder=segment.decoder,
                    kind=segment.kind,
                    key=DrawKey(comparison=key, modality=segment.modality, occurrence=occurrence),
                    weight=segment.weight,
                    digest=segment.digest,
                    given=segment.given,
                    condition=leaves.get(number),
                    row=row,
                    before=tuple(place[max(0, segment.after - segment.last) : segment.after]) if segment.last else (),
                    spans=segment.spans,
                )
            )

    def _features(self, width: int) -> dict[str, Tensor]:
        """Further per-token inputs, ``r n`` by name; zeros where a sequence says nothing."""
        laid: dict[str, Tensor] = {}
        for row, place, found in self.inputs:
            for name, value in found.items():
                if name:
                    whole = laid.setdefault(name, torch.zeros(len(self.tokens), width, dtype=value.dtype))
                    whole[row, torch.tensor(place)] = value
        return laid

    def _positions(self, layout: Layout) -> Tensor | None:
        """Positions of every axis, ``p r n``; the layout's own where a sequence says nothing."""
        said = [(row, place, found[""]) for row, place, found in self.inputs if "" in found]
        if not said:
            return None
        whole = layout.index.expand(said[0][2].shape[0], -1, -1).clone()
        if any(positions.is_floating_point() for *_, positions in said):  # some families place media between tokens
            whole = whole.float()
        for row, place, positions in said:
            whole[:, row, torch.tensor(place)] = positions.to(whole.dtype)
        return whole

    def batch(self, targets: Targets, ids: tuple[str, ...], pad: int) -> Batch:
        """The rows side by side, the short ones padded with token ``pad``."""
        width = max((len(line) for line in self.tokens), default=0)
        tokens = torch.full((len(self.tokens), width), pad)
        for row, line in enumerate(self.tokens):
            tokens[row, : len(line)] = torch.tensor(line, dtype=torch.long)
        layout = Layout(tuple(self.spans), rows=len(self.tokens), width=width)
        return Batch(
            tokens=tokens,
            layout=layout,
            positions=self._positions(layout),
            features=self._features(width),
            segments=tuple(self.segments),
            units={name: TokenUnits(**_columns(found)) for name, found in self.units.items()},
            ends=torch.tensor(self.ends, dtype=torch.long).reshape(-1, 2),
            targets=targets,
            ids=ids,
            slots=tuple(self.slots),
            media=self.media,
        )


def _scored(one: Encoded, segment: EncodedSegment, at: int) -> int:
    """What stands at a token of a segment, in the vocabulary of its decoder."""
    return segment.codes[at - segment.start] if segment.codes else one.tokens[at]


def _columns(found: Sequence[tuple[int, int, int, int]]) -> dict[str, Tensor]:
    columns = torch.tensor(found, dtype=torch.long).reshape(-1, 4).unbind(-1)
    return dict(zip(("row", "index", "token", "segment"), columns, strict=True))
