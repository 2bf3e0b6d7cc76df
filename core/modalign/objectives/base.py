"""What every objective is: a frozen, configurable, pure function of scores and targets.

b pairs, a responses the loss is about, r responses of the batch (with mismatched ones), m judgements.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal, TypeVar, cast, final

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from modalign.batch import Targets
from modalign.comparison import Comparison
from modalign.errors import DataError, ModelError
from modalign.scores import ALL_KINDS, Scores, UnitKind

if TYPE_CHECKING:
    from modalign.decoders.backprop import Backprop

Pairing = Literal["pair", "label", "response", "each", "prompt"]

WHOLE = "reward"  #: the dimension of a response as a whole: a pair's order says which is better in it


@final
@dataclass(frozen=True, kw_only=True)
class HeadSpec:
    """A reward head an objective asks for: `registry.head(type)(width, dimensions=dimensions, **options)` makes it.

    type: registered name of the head.
    dimensions: what it judges.
    options: its further settings.
    """

    type: str = "linear"
    dimensions: tuple[str, ...] = ("reward",)
    options: Mapping[str, object] = field(default_factory=dict[str, object])


@final
@dataclass(frozen=True, kw_only=True)
class Judgements:
    """What people must have said of a row for an objective to learn from it.

    preferences: dimensions of which one must be said of a pair.
    scores: dimensions of which one must be said of a response, which is as good.
    most: scores lie between 0 and this.
    whole: scores are whole numbers.
    least: responses to a prompt that must have one, where they are compared with one another.
    """

    preferences: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    most: float | None = None
    whole: bool = False
    least: int = 1

    def check(self, comparison: Comparison) -> None:
        """Raise a `DataError` where nothing that is asked for is said, or what is said cannot be right."""
        said = {**({WHOLE: 1.0} if comparison.kind == "pair" else {}), **comparison.preferences}
        found = [(f"preferences.{name}", said[name], 1.0) for name in self.preferences if name in said]
        scored = 0
        for response in comparison.responses:
            scores = {**response.scores, **({} if response.reward is None else {WHOLE: response.reward})}
            mine = [(f"scores.{name}", scores[name], self.most) for name in self.scores if name in scores]
            scored += any(not math.isnan(one[1]) for one in mine)
            found += mine
        found = [one for one in found if not math.isnan(one[1])]
        if not found and (self.preferences or self.scores):
            raise DataError(
                "nobody judged what this objective learns",
                got=f"preferences: {', '.join(comparison.preferences) or 'none'}; scores: "
                f"{', '.join(sorted({name for one in comparison.responses for name in one.scores})) or 'none'}",
                fix=f"give one of {', '.join(dict.fromkeys((*self.preferences, *self.scores)))}, or set "
                "on_bad_row: skip to leave such rows out",
            )
        if self.least > 1 and scored < self.least:
            raise DataError(
                "this objective compares responses to a prompt with one another",
                got=f"{scored} of {len(comparison.responses)} responses with {', '.join(self.scores)}",
                fix=f"give it to {self.least} or more, or set objective.baseline, which each is compared with alone",
            )
        for field_, value, most in found:
            broken = self.whole and field_.startswith("scores.") and not float(value).is_integer()
            if broken or (most is not None and not 0 <= value <= most):
                raise DataError(
                    f"expected a {'whole ' if self.whole else ''}number from 0 to {most:g}",
                    field=field_,
                    got=f"{value:g}",
                )


@final
@dataclass(frozen=True, kw_only=True)
class Needs:
    """What an objective asks of the trainer and the assembler.

    roles: whose scores it compares; `policy` is the model being trained.
    pairing: `pair` takes (chosen, rejected); `label` takes each response with a label, and a pair as one desirable
        and one undesirable response; `response` takes desirable responses only, of a pair the chosen; `each` takes
        every response of whatever there is.
    mismatched: each response also laid under another prompt, for a KL estimate.
    units: whether decoders are asked at all.
    heads: reward heads the model must have, by name.
    specs: what each of them is; one that is not said is linear, of one dimension that is called like it.
    judgements: what people must have said.
    kinds: kinds of unit for which its mathematics holds.
    """

    roles: tuple[str, ...] = ("policy",)
    pairing: Pairing = "pair"
    mismatched: bool = False
    units: bool = True
    heads: tuple[str, ...] = ()
    kinds: frozenset[UnitKind] = ALL_KINDS
    specs: Mapping[str, HeadSpec] = field(default_factory=dict[str, HeadSpec])  # what workers are sent is pickled
    judgements: Judgements = field(default_factory=Judgements)

    def spec(self, head: str) -> HeadSpec:
        """What the head of a name is."""
        return self.specs.get(head) or HeadSpec(dimensions=(head,))


_O = TypeVar("_O", bound="Objective")


@final
class _Asking:
    """A class variable whose value depends on the instance; the class has that of its default settings."""

    def __init__(self, ask: Callable[[Objective], Needs]) -> None:
        self.ask = ask

    def __get__(self, instance: Objective | None, owner: Callable[[], Objective]) -> Needs:
        return self.ask(owner() if instance is None else instance)


def needs_by(ask: Callable[[_O], Needs]) -> Needs:
    """`Objective.needs` that depend on its settings: ``needs: ClassVar[Needs] = needs_by(lambda self: Needs(...))``."""
    return cast(Needs, _Asking(cast("Callable[[Objective], Needs]", ask)))


@final
@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What an objective's model said of something people also said, one entry for each that somebody judged.

    kind: `preference` is the probability that the first response is better; `label` that a label holds; `number` a
        number people gave.
    predicted, said: ``m`` in float64.
    """

    kind: Literal["preference", "label", "number"]
    predicted: Tensor
    said: Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean in two parts, so that it can be added over micro-batches and ranks. Both are 0-d tensors."""

    sum: Tensor
    count: Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Loss:
    """What an objective returns.

    sum: 0-d, differentiable: the loss summed over what it counts.
    count: 0-d: pairs, tokens or responses, weighted.
    metrics: by name, detached. The names never depend on the batch, so that ranks can add them up: where a batch has
        nothing to say, the count is 0.
    """

    sum: Tensor
    count: Tensor
    metrics: Mapping[str, Mean] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def mean(self) -> Tensor:
        """The loss of this batch alone."""
        return self.sum / self.count.clamp(min=torch.finfo(torch.float64).tiny)


class Objective(BaseModel, ABC):
    """A pure function of scores and targets. Its fields are its settings; its class variables say what it needs."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    needs: ClassVar[Needs]

    @abstractmethod
    def __call__(
        self,
        scores: Mapping[str, Scores],
        targets: Targets,
        statistics: Mapping[str, Mean] | None = None,
    ) -> Loss:
        """The loss of a batch.

        scores: by role, in any device's numbers; the loss is float64, because that is what `Scores.logps` are.
        statistics: of `statistics`, added up over all ranks; None takes this batch's own.
        """

    @abstractmethod
    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        """What `Loss.count` will be, 0-d, known before the forward pass.

        tokens: ``r`` scored tokens of each response of the batch, as `Scores.counts` will give them.
        """

    def statistics(self, scores: Mapping[str, Scores], targets: Targets) -> Mapping[str, Mean]:
        """Batch statistics the loss depends on, detached, to be added up over ranks before the loss is taken."""
        return {}

    def predictions(self, scores: Mapping[str, Scores], targets: Targets) -> Mapping[str, Predictions]:
        """What the model predicts of what people said, by dimension or label, for exact measures over a whole data set.

        The names never depend on the batch; what has weight 0, or what nobody said, is left out.
        """
        return {}

    def backprop(self) -> Backprop | None:
        """How the policy makes the responses, and what judges them, so that a reward's gradient reaches it.

        None where it scores responses that are there.
        """
        return None

    def refuse(self, kinds: frozenset[UnitKind]) -> None:
        """Raise where this objective's mathematics does not hold for a kind of unit."""
        if wrong := sorted(kinds - self.needs.kinds):
            name = type(self).__name__
            raise ModelError(
                f"{name} needs a normalised likelihood of the response",
                got=f"units of kind {', '.join(wrong)}, which are bounds or sums over sampler steps",
                fix=f"use an objective that compares with a reference (DPO, IPO, KTO), or decoders whose units are "
                f"{' or '.join(sorted(self.needs.kinds))}",
            )


def weighted(values: Tensor, weights: Tensor) -> Mean:
    """A weighted mean in its two parts, detached; what has weight 0 does not matter, NaN or not."""
    values, weights = inert(values.detach().double(), weights), weights.double()
    return Mean(sum=(values * weights).sum(), count=weights.sum())


def inert(values: Tensor, weights: Tensor) -> Tensor:
    """``values`` with zeros where the weight is 0, so that neither they nor their gradients can be NaN there."""
    return torch.where(weights != 0, values, torch.zeros_like(values))


def pair_metrics(chosen_rewards: Tensor, rejected_rewards: Tensor, weights: Tensor) -> dict[str, Mean]:
    """Metrics every pairwise objective reports, under TRL's names. All are ``b``."""
    margins = chosen_rewards - rejected_rewards
    return {
        "rewards/chosen": weighted(chosen_rewards, weights),
        "rewards/rejected": weighted(rejected_rewards, weights),
        "rewards/margins": weighted(margins, weights),
        "rewards/accuracies": weighted((margins > 0).double(), weights),
    }


def displacement(policy: Scores, reference: Scores, targets: Targets) -> dict[str, Mean]:
    """How much larger the errors of what is drawn are than the reference's, per dimension: ``(E - E_ref) / dims``.

    Where both rise the pair moves apart while its winner gets less likely, which neither loss nor accuracy shows
    (Razin et al., https://arxiv.org/abs/2410.08847). Of responses without draws there is none.
    """
    (errors, dims), (before, _) = policy.detach().drawn, reference.detach().drawn
    found = (errors - before) / dims.clamp(min=1)  # r
    metrics: dict[str, Mean] = {}
    for place, name in enumerate(("chosen", "rejected")):
        which = targets.pairs[:, place]
        metrics[f"displacement/{name}"] = weighted(found[which], targets.weights * (dims[which] > 0))
    return metrics


def pair_logps(scores: Scores, targets: Targets) -> tuple[Tensor, Tensor]:
    """Log-likelihoods of chosen and rejected, ``b`` and ``b`` in float64; 0 where the pair has weight 0."""
    chosen, rejected = scores.logps[targets.pairs].unbind(-1)
    return inert(chosen, targets.weights), inert(rejected, targets.weights)


def pair_means(scores: Scores, targets: Targets) -> tuple[Tensor, Tensor]:
    """Mean log-probabilities per token of chosen and rejected, ``b`` and ``b`` in float64; 0 where there is none."""
    chosen, rejected = pair_logps(scores, targets)
    chosen_tokens, rejected_tokens = scores.counts[targets.pairs].clamp(min=1).unbind(-1)
    return chosen / chosen_tokens, rejected / rejected_tokens


def own_logps(scores: Scores, targets: Targets) -> Tensor:
    """Log-likelihoods of the responses the loss is about, ``a`` in float64; 0 where the weight is 0."""
    return inert(scores.logps[targets.own], targets.weights)
