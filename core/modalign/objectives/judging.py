"""What reward objectives share: which head and dimensions they are about, what people said, and what nobody said.

b pairs, a responses the loss is about, r responses of the batch, k dimensions, m numbers of a head.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from modalign.batch import Targets
from modalign.errors import DataError, ShapeError
from modalign.objectives.base import (
    WHOLE,
    HeadSpec,
    Judgements,
    Loss,
    Mean,
    Needs,
    Objective,
    Pairing,
    Predictions,
    inert,
    needs_by,
)
from modalign.scores import Scores


def _asks(objective: RewardObjective) -> Needs:
    return objective.asks()


class RewardObjective(Objective, ABC):
    """An objective over the numbers of one head: the base of those that train reward models."""

    pairing: ClassVar[Pairing]
    needs: ClassVar[Needs] = needs_by(_asks)

    head: str = Field(default="reward", min_length=1, pattern=r"^[^.]+$")
    """Name of the head in the model."""

    dimensions: tuple[str, ...] = ("reward",)
    """What is judged, several at once; what nobody said of a pair or a response is left out, dimension by dimension.
    `reward` is the response as a whole."""

    head_options: dict[str, object] = Field(default={})
    """Settings of the head when it is made, beside its dimensions: `read`, `bias`."""

    @field_validator("dimensions")
    @classmethod
    def _each_once(cls, dimensions: tuple[str, ...]) -> tuple[str, ...]:
        if not dimensions or "" in dimensions or len(set(dimensions)) != len(dimensions):
            msg = "one or more names, each once"
            raise ValueError(msg)
        return dimensions

    @field_validator("head_options")
    @classmethod
    def _read_words(cls, options: dict[str, object]) -> dict[str, object]:
        return {name: _word(value) for name, value in options.items()}

    def asks(self) -> Needs:
        """What it needs, with these settings."""
        spec = HeadSpec(type=self.head_type, dimensions=self.dimensions, options=self.head_settings)
        return Needs(
            pairing=self.pairing,
            units=False,
            heads=(self.head,),
            specs={self.head: spec},
            judgements=self.judgements,
        )

    @property
    @abstractmethod
    def judgements(self) -> Judgements:
        """What people must have said of a row."""

    @property
    def head_type(self) -> str:
        """Registered name of the head."""
        return "linear"

    @property
    def head_settings(self) -> Mapping[str, object]:
        """Settings the head is made with."""
        return self.head_options

    @abstractmethod
    def known(self, targets: Targets) -> Tensor:
        """Weight of each judgement; 0 where nobody said."""

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return self.known(targets).sum()

    def numbers(self, scores: Scores, *widths: int) -> Tensor:
        """The head's numbers, ``r m`` in float64, where m is one of ``widths``."""
        found = scores.rewards.get(self.head)
        if found is None or found.ndim != 2 or found.shape[0] != scores.responses or found.shape[1] not in widths:
            got = f"heads: {', '.join(scores.rewards) or 'none'}" if found is None else f"{tuple(found.shape)}"
            wanted = " or ".join(f"k={width}" for width in widths)
            raise ShapeError(
                f'{type(self).__name__} takes rewards of shape "r k" with {wanted} from a head named `{self.head}`',
                got=f"{got} with r={scores.responses}",
                fix=f"give the model a head of type {self.head_type} under that name, of dimensions "
                f"{', '.join(self.dimensions)}",
            )
        return found.double()


def preferences_of(targets: Targets, dimensions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The probability that the first is better, ``b k``, and the weight of each such judgement, 0 where nobody said.

    The order of a pair is what its chosen and rejected say of `WHOLE`.
    """
    nothing = torch.full((len(targets.pairs),), torch.nan, dtype=torch.float64, device=targets.weights.device)
    columns = [targets.preferences.get(name, nothing).double() for name in dimensions]
    said = torch.stack(
        [column.nan_to_num(1.0) if name == WHOLE else column for name, column in zip(dimensions, columns, strict=True)],
        dim=-1,
    )
    weights = targets.weights.double()[:, None] * ~said.isnan()
    if targets.preferences:
        _within(said, 1.0, dimensions, "preferences")
    return said.nan_to_num(0.5), weights


def rewards_of(targets: Targets, dimensions: Sequence[str], *, most: float | None = None) -> tuple[Tensor, Tensor]:
    """What people scored, ``a k``, and the weight of each such judgement, 0 where nobody said.

    most: scores must lie between 0 and this.
    """
    nothing = torch.full((len(targets.own),), torch.nan, dtype=torch.float64, device=targets.weights.device)
    said = torch.stack([targets.rewards.get(name, nothing).double() for name in dimensions], dim=-1)
    if most is not None:
        _within(said, most, dimensions, "scores")
    weights = targets.weights.double()
    if len(weights) != len(targets.own):  # of pairs: each of their responses has the pair's
        weights = weights[targets.group]
    return said.nan_to_num(0.0), weights[:, None] * ~said.isnan()


def sides(numbers: Tensor, targets: Targets, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of the first and of the second of each pair, ``b m`` and ``b m``; 0 where the weight ``b m`` is 0."""
    first, second = numbers[targets.pairs].unbind(1)
    return inert(first, weights), inert(second, weights)


def by_dimension(name: str, dimensions: Sequence[str], values: Tensor, weights: Tensor) -> dict[str, Mean]:
    """The mean of each column of ``b k`` under ``name/dimension``, detached; none where only the whole is judged."""
    if tuple(dimensions) == (WHOLE,):
        return {}
    sums, counts = (inert(values.detach().double(), weights) * weights).sum(0), weights.double().sum(0)
    return {f"{name}/{one}": Mean(sum=sums[at], count=counts[at]) for at, one in enumerate(dimensions)}


def judged(
    kind: str, dimensions: Sequence[str], predicted: Tensor, said: Tensor, weights: Tensor
) -> dict[str, Predictions]:
    """`Predictions` of each column of ``b k``, without what has weight 0."""
    return {
        name: Predictions(
            kind=kind,  # pyright: ignore[reportArgumentType]
            predicted=predicted.detach()[weights[:, at] != 0, at],
            said=said[weights[:, at] != 0, at],
        )
        for at, name in enumerate(dimensions)
    }


def _word(value: object) -> object:
    """What a flag's word says: `false` is no string that is true."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _within(said: Tensor, most: float, dimensions: Sequence[str], column: str) -> None:
    wrong = ((said < 0) | (said > most)).nonzero()
    if len(wrong):
        row, at = wrong[0].tolist()
        raise DataError(
            f"expected a number from 0 to {most:g}",
            field=f"{column}.{dimensions[at]}",
            got=f"{said[row, at].item():g}",
            fix="correct the data, or leave the dimension out of the objective",
        )


class EachObjective(RewardObjective, ABC):
    """A reward objective that judges every response alone, against a number people gave it."""

    pairing: ClassVar[Pairing] = "each"
    most: ClassVar[float | None] = None

    @abstractmethod
    def losses(self, numbers: Tensor, said: Tensor) -> Tensor:
        """The loss of each judgement, ``a k``, of numbers ``a m`` and what was said, ``a k``."""

    @abstractmethod
    def told(self, numbers: Tensor) -> Tensor:
        """What the numbers ``a m`` predict of what people say, ``a k``."""

    @abstractmethod
    def metrics(self, told: Tensor, said: Tensor, weights: Tensor) -> dict[str, Mean]:
        """Metrics of what was told and said, all ``a k``."""

    @property
    def judgements(self) -> Judgements:
        return Judgements(scores=self.dimensions, most=self.most)

    @property
    def per_dimension(self) -> int:
        """How many numbers the head gives for each dimension, one after the other."""
        return 1

    def said(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """What people said and its weight, ``a k`` and ``a k``."""
        return rewards_of(targets, self.dimensions, most=self.most)

    def known(self, targets: Targets) -> Tensor:
        return self.said(targets)[1]

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        own, said, weights = self._own(scores["policy"], targets)
        return Loss(
            sum=(self.losses(own, said) * weights).sum(),
            count=weights.sum(),
            metrics=self.metrics(self.told(own.detach()), said, weights),
        )

    def predictions(self, scores: Mapping[str, Scores], targets: Targets) -> Mapping[str, Predictions]:
        own, said, weights = self._own(scores["policy"], targets)
        kind = "number" if self.most != 1.0 else "label"
        return judged(kind, self.dimensions, self.told(own), said, weights)

    def _own(self, scores: Scores, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        said, weights = self.said(targets)
        numbers = self.numbers(scores, len(self.dimensions) * self.per_dimension)[targets.own]
        return inert(numbers, weights.repeat_interleave(self.per_dimension, dim=-1)), said, weights
