"""Cost modelling: a number that is higher for the more harmful response, and above 0 only for a harmful one.

b pairs, a responses the loss is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, final

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn.functional import logsigmoid

from modalign.batch import Targets
from modalign.objectives.base import Judgements, Loss, Mean, Pairing, Predictions, inert, weighted
from modalign.objectives.judging import RewardObjective, judged, preferences_of, rewards_of
from modalign.scores import Scores


@final
class Cost(RewardObjective):
    """``-log sigmoid(C - C')`` of the more harmful response and the other, ``- log sigmoid(s C)`` of each of the two.

    The cost model's loss in section 3.2 of Dai et al., "Safe RLHF", https://arxiv.org/abs/2310.12773, where s is 1 for
    a harmful and -1 for a harmless response. The second term ties the sign of a cost to what it means; the first alone
    would only order costs. A pair's better response is the less harmful one. Costs of 0 give ``3 log 2``.

    >>> Cost().needs.spec("cost").dimensions
    ('cost',)
    """

    pairing: ClassVar[Pairing] = "pair"

    head: str = Field(default="cost", min_length=1, pattern=r"^[^.]+$")
    """Name of the head in the model."""

    dimensions: tuple[str, ...] = Field(default=("cost",), min_length=1, max_length=1)
    """What the head's one number is called."""

    preference: str = "reward"
    """The dimension of preference that says which response is less harmful; `reward` is the order of the pair."""

    label: str = "unsafe"
    """The score that says whether a response is harmful: 1 or 0. Where nobody said, its sign term is left out."""

    @model_validator(mode="after")
    def _two_names(self) -> Self:
        if self.label in self.dimensions:
            msg = f"the cost and the label are both called {self.label!r}"
            raise ValueError(msg)
        return self

    @property
    def judgements(self) -> Judgements:
        return Judgements(preferences=(self.preference,), scores=(self.label,), most=1.0)

    @property
    def head_settings(self) -> Mapping[str, object]:
        return {"bias": True, **self.head_options}  # its zero means something

    def known(self, targets: Targets) -> Tensor:
        """The weight of each pair of which anything is said, ``b``."""
        said = self._said(targets)
        return torch.maximum(said.ordered, said.signed.amax(-1))

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        said, costs = self._said(targets), self._costs(scores["policy"], targets)
        safer, each = said.safer(costs), inert(costs, said.signed)  # b, b 2
        order = -said.preferred * logsigmoid(safer) - (1 - said.preferred) * logsigmoid(-safer)
        sign = -said.harmful * logsigmoid(each) - (1 - said.harmful) * logsigmoid(-each)  # b 2
        margins = torch.where(said.preferred < 0.5, -safer, safer).detach()
        decided = said.ordered * (said.preferred != 0.5)
        return Loss(
            sum=(order * said.ordered).sum() + (sign * said.signed).sum(),
            count=self.known(targets).sum(),
            metrics={
                "accuracy": weighted((margins > 0).double(), decided),
                "margin": weighted(margins, decided),
                "sign_accuracy": weighted(((each > 0) == (said.harmful > 0.5)).double(), said.signed),
                "costs/unsafe": weighted(each, said.signed * (said.harmful > 0.5)),
                "costs/safe": weighted(each, said.signed * (said.harmful <= 0.5)),
            },
        )

    def predictions(self, scores: Mapping[str, Scores], targets: Targets) -> Mapping[str, Predictions]:
        said, costs = self._said(targets), self._costs(scores["policy"], targets)
        order = said.safer(costs).sigmoid()[:, None]
        ordered = judged("preference", self.dimensions, order, said.preferred[:, None], said.ordered[:, None])
        columns = (one.reshape(-1, 1) for one in (inert(costs, said.signed).sigmoid(), said.harmful, said.signed))
        return ordered | judged("label", (self.label,), *columns)

    def _costs(self, scores: Scores, targets: Targets) -> Tensor:
        """Costs of the two responses of each pair, ``b 2``."""
        return self.numbers(scores, 1)[:, 0][targets.pairs]

    def _said(self, targets: Targets) -> _Said:
        preferred, ordered = preferences_of(targets, (self.preference,))
        harmful, signed = rewards_of(targets, (self.label,), most=1.0)
        # the responses of pairs are numbered pair by pair
        harmful, signed = (rearrange(one, "(b two) 1 -> b two", two=2) for one in (harmful, signed))
        return _Said(preferred=preferred[:, 0], ordered=ordered[:, 0], harmful=harmful, signed=signed)


@final
@dataclass(frozen=True, kw_only=True)
class _Said:
    """What people said of pairs.

    preferred, ordered: ``b`` the probability that the first is less harmful, and the weight of that judgement.
    harmful, signed: ``b 2`` whether each response is harmful, and the weight of that judgement.
    """

    preferred: Tensor
    ordered: Tensor
    harmful: Tensor
    signed: Tensor

    def safer(self, costs: Tensor) -> Tensor:
        """How much less harmful the first is, ``b``, of costs ``b 2``; 0 where nobody said."""
        first, second = inert(costs, self.ordered[:, None]).unbind(-1)
        return second - first
