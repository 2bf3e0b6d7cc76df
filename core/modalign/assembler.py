"""Comparisons to batches: which responses a loss needs, where their trunk ends, and where each token lies.

a responses of a comparison or a batch, n tokens of a row, u units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import final

import torch
from torch import Tensor

from modalign.batch import Batch, Medium, Segment, Slot, Targets, TokenUnits
from modalign.comparison import Comparison
from modalign.content import Response
from modalign.draws import DrawKey
from modalign.errors import DataError
from modalign.layout import Layout, Span
from modalign.objectives.base import Needs, Pairing
from modalign.roles import Encoded, EncodedSlot, Preparer


@final
@dataclass(frozen=True, kw_only=True)
class Sample:
    """One comparison as an objective needs it, encoded.

    comparison: what it came from.
    encoded: its own responses, then the mismatched ones.
    own: how many are its own.
    labels: of its own responses, where the objective asked for labels.
    weight: in the loss; 0 fills a batch up so that every rank has one.
    """

    comparison: Comparison
    encoded: tuple[Encoded, ...]
    own: int
    labels: tuple[bool, ...] = ()
    weight: float = 1.0

    @property
    def length(self) -> int:
        """Tokens of the longest sequence."""
        return max((len(one.tokens) for one in self.encoded), default=0)


def select(comparison: Comparison, pairing: Pairing) -> tuple[tuple[Response, ...], tuple[bool, ...]]:
    """The responses an objective of this pairing takes from a comparison, and their labels (none but for `label`)."""
    kind, responses = comparison.kind, comparison.responses
    match pairing, kind:
        case "pair", "pair":
            return responses, ()
        case "label", "pair":
            return responses, (True, False)
        case "label", "unpaired" if responses[0].label is not None:
            return responses, (responses[0].label,)
        case "response", "pair":
            return responses[:1], ()
        case "response", "unpaired" if responses[0].label is not False:
            return responses, ()
        case _:
            pass
    wanted = {
        "pair": "a chosen and a rejected response",
        "label": "a pair, or one response with a label",
        "response": "a pair, or one response that is not labelled undesirable",
    }[pairing]
    raise DataError(
        f"this objective needs {wanted}",
        got=f"{kind} with {len(responses)} response(s), labels {[one.label for one in responses]}",
        fix="use data of that shape, or an objective that takes this one",
    )


def encode(
    comparison: Comparison,
    preparer: Preparer,
    needs: Needs,
    *,
    partner: Comparison | None = None,
    max_length: int | None = None,
    truncate: str | None = None,
) -> Sample:
    """A comparison as sequences, or a `DataError` that says what is wrong with its row.

    partner: another comparison, whose responses are laid under this prompt, where the objective needs mismatched ones.
    """
    responses, labels = select(comparison, needs.pairing)
    strangers: tuple[Response, ...] = ()
    if needs.mismatched and partner is not None:
        others, _ = select(partner, needs.pairing)
        strangers = tuple(others[number % len(others)] for number in range(len(responses)))
    taken = responses + strangers
    # a pair stays one, so that what is wrong with a response is said of `chosen` or `rejected`
    kind = "pair" if comparison.kind == "pair" and len(taken) == 2 else "group"
    whole = replace(comparison, responses=taken, kind=kind)
    encoded = preparer.encode(whole, max_length=max_length, truncate=truncate)
    if needs.pairing == "pair" and _same(encoded[0], encoded[1]):
        raise DataError(
            "chosen and rejected are the same once encoded, so the pair says nothing",
            field="rejected",
            got=f"{len(encoded[0].tokens)} equal tokens",
            fix="remove the row, or raise max_length if it was truncated",
        )
    return Sample(comparison=comparison, encoded=encoded, own=len(responses), labels=labels, weight=comparison.weight)


def assemble(samples: Sequence[Sample], *, share: bool, pad: int = 0, units: bool = True) -> Batch:
    """One micro-batch.

    share: lay the responses to a prompt out as branches of one trunk; else each gets a row of its own.
    units: whether decoders are asked; without them the batch has no segments, and only reward heads answer.
    """
    rows = _Rows()
    for sample in samples:
        key = sample.comparison.key
        if share and len(sample.encoded) > 1:
            row, trunk = rows.open(sample.encoded[0], _trunk(sample.encoded))
            for one in sample.encoded:
                rows.add(row, trunk, one, key)
        else:
            for one in sample.encoded:
                rows.add(*rows.open(one, 0), one, key)
    batch = rows.batch(samples, pad)
    return batch if units else replace(batch, segments=(), units={})


def _same(one: Encoded, other: Encoded) -> bool:
    return (
        one.tokens == other.tokens
        and one.slots == other.slots
        and [segment.digest for segment in one.segments] == [segment.digest for segment in other.segments]
    )


def _trunk(encoded: Sequence[Encoded]) -> int:
    """Tokens that all sequences share, never past the prompt and never inside a slot."""
    first, *rest = encoded
    trunk = min(one.prompt for one in encoded)
    for one in rest:
        pairs = zip(first.tokens[:trunk], one.tokens[:trunk], strict=False)
        trunk = min(trunk, next((at for at, (a, b) in enumerate(pairs) if a != b), trunk), len(one.tokens))
    for one in encoded:
        for slot in one.slots:
            shared = all(slot in other.slots for other in encoded)
            if slot.start < trunk and (slot.stop > trunk or not shared):
                trunk = slot.start
    return trunk


@dataclass
class _Rows:
    """The rows of a batch as they grow."""

    tokens: list[list[int]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    roots: dict[int, int] = field(default_factory=dict)  # row -> its trunk's span
    segments: list[Segment] = field(default_factory=list)
    units: dict[str, list[tuple[int, int, int, int]]] = field(default_factory=dict)  # row, index, token, segment
    slots: list[Slot] = field(default_factory=list)
    media: dict[str, Medium] = field(default_factory=dict)
    ends: list[tuple[int, int]] = field(default_factory=list)

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
            for number in (number for after, number in queries if after == cut):
                begin = len(line)
                line.extend(one.segments[number].query)
                leaves[number] = len(self.spans)
                self.spans.append(Span(row=row, start=begin, stop=len(line), parent=parent, offset=len(place)))
        self._slot(row, [slot for slot in one.slots if slot.start >= trunk], place)
        self.media |= one.media
        self._score(row, one, key, place, leaves)
        self.ends.append((row, place[-1] if place else 0))

    def _slot(self, row: int, slots: Sequence[EncodedSlot], place: Sequence[int]) -> None:
        for slot in slots:
            start, stop = place[slot.start], place[slot.stop - 1] + 1
            self.slots.append(Slot(row=row, start=start, stop=stop, digest=slot.digest))

    def _score(self, row: int, one: Encoded, key: str, place: list[int], leaves: Mapping[int, int]) -> None:
        seen: dict[str, int] = {}
        for number, segment in enumerate(one.segments):
            occurrence = seen.get(segment.modality, 0)
            seen[segment.modality] = occurrence + 1
            units = self.units.setdefault(segment.decoder, []) if segment.kind == "token" else []
            # the first token of a sequence has no context, and so no unit
            units.extend(
                (row, place[at - 1], one.tokens[at], len(self.segments))
                for at in range(max(segment.start, 1), segment.stop)
            )
            self.segments.append(
                Segment(
                    response=len(self.ends),
                    modality=segment.modality,
                    decoder=segment.decoder,
                    kind=segment.kind,
                    key=DrawKey(comparison=key, modality=segment.modality, occurrence=occurrence),
                    weight=segment.weight,
                    digest=segment.digest,
                    condition=leaves.get(number),
                )
            )

    def batch(self, samples: Sequence[Sample], pad: int) -> Batch:
        width = max((len(line) for line in self.tokens), default=0)
        tokens = torch.full((len(self.tokens), width), pad)
        for row, line in enumerate(self.tokens):
            tokens[row, : len(line)] = torch.tensor(line, dtype=torch.long)
        return Batch(
            tokens=tokens,
            layout=Layout(tuple(self.spans), rows=len(self.tokens), width=width),
            segments=tuple(self.segments),
            units={name: TokenUnits(**_columns(found)) for name, found in self.units.items()},
            ends=torch.tensor(self.ends, dtype=torch.long).reshape(-1, 2),
            targets=_targets(samples),
            ids=tuple(_name(sample) for sample in samples for _ in sample.encoded),
            slots=tuple(self.slots),
            media=self.media,
        )


def _columns(found: Sequence[tuple[int, int, int, int]]) -> dict[str, Tensor]:
    columns = torch.tensor(found, dtype=torch.long).reshape(-1, 4).unbind(-1)
    return dict(zip(("row", "index", "token", "segment"), columns, strict=True))


def _name(sample: Sample) -> str:
    return str(sample.comparison.origin or sample.comparison.id or "a comparison in memory")


def _targets(samples: Sequence[Sample]) -> Targets:
    own: list[int] = []
    mismatched: list[int] = []
    pairs: list[tuple[int, int]] = []
    group: list[int] = []
    response_weights: list[float] = []
    labels: list[bool] = []
    first = 0
    for number, sample in enumerate(samples):
        own.extend(range(first, first + sample.own))
        group.extend([number] * sample.own)
        mismatched.extend(range(first + sample.own, first + len(sample.encoded)))
        response_weights.extend([sample.weight] * sample.own)
        labels.extend(sample.labels)
        if sample.own == 2 and not sample.labels:
            pairs.append((first, first + 1))
        first += len(sample.encoded)
    paired = len(pairs) == len(samples)
    weights = [sample.weight for sample in samples] if paired else response_weights
    margins = [sample.comparison.margin for sample in samples]
    return Targets(
        pairs=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2),
        own=torch.tensor(own, dtype=torch.long),
        group=torch.tensor(group, dtype=torch.long),
        weights=torch.tensor(weights, dtype=torch.float64),
        margins=torch.tensor([margin or 0.0 for margin in margins], dtype=torch.float64)
        if paired and any(margin is not None for margin in margins)
        else None,
        labels=torch.tensor(labels, dtype=torch.float64) if labels else None,
        mismatched=torch.tensor(mismatched, dtype=torch.long) if mismatched else None,
        rewards=_rewards(samples),
    )


def _rewards(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """What people scored, by dimension, NaN where nobody said; `reward` is the whole response's."""
    said: list[dict[str, float]] = []
    for sample in samples:
        for response in sample.comparison.responses[: sample.own]:
            whole = {} if response.reward is None else {"reward": response.reward}
            said.append({**response.scores, **whole})
    names = sorted({name for scores in said for name in scores})
    return {
        name: torch.tensor([scores.get(name, float("nan")) for scores in said], dtype=torch.float64) for name in names
    }
