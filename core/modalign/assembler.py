"""Comparisons to batches: which responses a loss needs, where their trunk ends, and where each token lies.

a responses of a comparison or a batch, n tokens of a row, u units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from modalign.batch import Batch, Targets
from modalign.comparison import Comparison
from modalign.content import Response
from modalign.errors import DataError
from modalign.objectives.base import Needs, Pairing
from modalign.roles import Encoded, Preparer
from modalign.rows import Rows, common_trunk
from modalign.timeline import FIELD, written


@final
@dataclass(frozen=True, kw_only=True)
class Sample:
    """One comparison as an objective needs it, encoded.

    comparison: what it came from.
    encoded: its own responses, then the mismatched ones.
    own: how many are its own; one where the model makes it itself.
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
        case "each", "pair" | "unpaired" | "group":
            return responses, ()
        case "prompt", _:
            return (), ()
        case _:
            pass
    wanted = {
        "pair": "a chosen and a rejected response",
        "label": "a pair, or one response with a label",
        "response": "a pair, or one response that is not labelled undesirable",
        "each": "at least one response",
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
    if needs.pairing == "prompt":  # responses that are there are of no use, nor is what was said of them
        asked = replace(comparison, responses=(), kind="prompt", preferences={}, margin=None)
        return Sample(comparison=asked, encoded=(preparer.ask(asked),), own=1, weight=comparison.weight)
    responses, labels = select(comparison, needs.pairing)
    needs.judgements.check(comparison)
    strangers: tuple[Response, ...] = ()
    if needs.mismatched and partner is not None:
        others, _ = select(partner, needs.pairing)
        strangers = tuple(others[number % len(others)] for number in range(len(responses)))
    taken = responses + strangers
    # a pair stays one, so that what is wrong with a response is said of `chosen` or `rejected`
    kind = "pair" if comparison.kind == "pair" and len(taken) == 2 else "group"
    whole = replace(comparison, responses=taken, kind=kind)
    encoded = preparer.encode(whole, max_length=max_length, truncate=truncate)
    for response, one in zip(taken, encoded, strict=True):
        _check_spans(response, one)
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
    rows = Rows()
    for sample in samples:
        key = sample.comparison.key
        if share and len(sample.encoded) > 1:
            row, trunk = rows.open(sample.encoded[0], common_trunk(sample.encoded))
            for one in sample.encoded:
                rows.add(row, trunk, one, key)
        else:
            for one in sample.encoded:
                rows.add(*rows.open(one, 0), one, key)
    ids = tuple(_name(sample) for sample in samples for _ in sample.encoded)
    batch = rows.batch(_targets(samples), ids, pad)
    return batch if units else replace(batch, segments=(), units={})


def _check_spans(response: Response, encoded: Encoded) -> None:
    """Raise where a part says which of its seconds are scored, and the model scores nothing of it, or all."""
    wanted = [part.spans for part in response.parts() if part.spans]
    if wanted and sorted(wanted) != sorted(one.spans for one in encoded.segments if one.spans):
        raise DataError(
            "this model does not score a medium by spans of time",
            field=FIELD,
            got=written(wanted[0]),
            fix="leave them out, or train a generator of media that last",
        )


def _same(one: Encoded, other: Encoded) -> bool:
    return (
        one.tokens == other.tokens
        and one.slots == other.slots
        and [(segment.digest, segment.spans) for segment in one.segments]
        == [(segment.digest, segment.spans) for segment in other.segments]
    )


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
        preferences=_columns([one.comparison.preferences for one in samples]) if paired else {},
    )


def _rewards(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """What people scored, by dimension, NaN where nobody said; `reward` is the whole response's."""
    said: list[dict[str, float]] = []
    for sample in samples:
        responses = sample.comparison.responses[: sample.own]
        for response in responses:
            whole = {} if response.reward is None else {"reward": response.reward}
            said.append({**response.scores, **whole})
        said += [{}] * (sample.own - len(responses))  # of what is yet to be made
    return _columns(said)


def _columns(said: Sequence[Mapping[str, float]]) -> dict[str, Tensor]:
    """One tensor for each name that any row says; NaN where a row does not."""
    names = sorted({name for row in said for name in row})
    return {name: torch.tensor([row.get(name, math.nan) for row in said], dtype=torch.float64) for name in names}
