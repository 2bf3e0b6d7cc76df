"""The contract catches what breaks it, in objectives, rewards, checks and ops."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from modalign.batch import Targets
from modalign.objectives import DPO
from modalign.objectives.base import Judgements, Loss, Mean, Needs, Objective, Pairing
from modalign.objectives.judging import RewardObjective
from modalign.roles import Check, CheckResult, Reward
from modalign.scores import Scores

Breaks = Callable[..., str]


class Faulty(Objective):
    """DPO, for a fault to be put in."""

    needs: ClassVar[Needs] = DPO.needs

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        return DPO()(scores, targets, statistics)

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return DPO().count(targets, tokens)


class MeansOfMeans(Faulty):
    def __call__(self, scores, targets, statistics=None):
        loss = super().__call__(scores, targets, statistics)
        return replace(loss, sum=loss.sum / loss.count, count=torch.ones_like(loss.count))

    def count(self, targets, tokens):
        return torch.ones((), dtype=torch.float64)


class Miscounts(Faulty):
    def count(self, targets, tokens):
        return super().count(targets, tokens) + 1


class Overflows(Faulty):
    def __call__(self, scores, targets, statistics=None):
        loss = super().__call__(scores, targets, statistics)
        logps = scores["policy"].logps
        return replace(loss, sum=loss.sum + 0 * logps.exp().sum() + logps.neg().exp().sum())


class Holds(Faulty):
    def __call__(self, scores, targets, statistics=None):
        loss = super().__call__(scores, targets, statistics)
        return replace(loss, metrics={**loss.metrics, "loss": replace(loss.metrics["rewards/chosen"], sum=loss.sum)})


class OneSided(Faulty):
    def __call__(self, scores, targets, statistics=None):
        loss = super().__call__(scores, targets, statistics)
        return replace(loss, metrics={**loss.metrics, "rewards/margins": loss.metrics["rewards/accuracies"]})


class Random(Faulty):
    def __call__(self, scores, targets, statistics=None):
        loss = super().__call__(scores, targets, statistics)
        return replace(loss, sum=loss.sum + torch.rand(()))


class Detached(Faulty):
    def __call__(self, scores, targets, statistics=None):
        loss = super().__call__(scores, targets, statistics)
        return replace(loss, sum=loss.sum.detach())


class NanAtWeightZero(Faulty):
    def __call__(self, scores, targets, statistics=None):
        loss = super().__call__(scores, targets, statistics)
        return replace(loss, sum=loss.sum + 0 * scores["policy"].logps.sum())


class Credulous(RewardObjective):
    """Counts every response, whether or not anybody scored it, and so learns from what is NaN."""

    pairing: ClassVar[Pairing] = "each"

    @property
    def judgements(self):
        return Judgements(scores=self.dimensions)

    def known(self, targets):
        return targets.weights[:, None] * torch.ones(1, len(self.dimensions))

    def __call__(self, scores, targets, statistics=None):
        said = torch.stack([targets.rewards[name] for name in self.dimensions], dim=-1)
        errors = (self.numbers(scores["policy"], len(self.dimensions))[targets.own] - said).square()
        known = self.known(targets)
        return Loss(sum=(errors * known).sum(), count=known.sum())


OBJECTIVES = {
    Credulous: "the loss of extreme scores is not finite",
    MeansOfMeans: "the sum of a batch is not the sum over its parts: ",
    Miscounts: "count() is not the count of the loss: ",
    Overflows: "the loss of extreme scores is not finite",
    Holds: "metric loss carries a graph",
    OneSided: "swapping chosen and rejected does not negate the margin: ",
    Random: "the same scores give another loss: ",
    NanAtWeightZero: "a comparison of weight 0 changes the loss: nan",
    Detached: "the loss has no gradient",
}


@pytest.mark.parametrize("thing", OBJECTIVES, ids=lambda one: one.__name__)
def test_a_bad_objective_is_told(thing: type[Objective], breaks: Breaks) -> None:
    assert OBJECTIVES[thing] in breaks("objectives", thing)


class NeedsAnArgument(Reward):
    def __init__(self, model: str) -> None:
        self.model = model

    def __call__(self, prompts, responses):
        return [0.0]


class Generous(Reward):
    def __call__(self, prompts, responses):
        return [1.0]


class Mute(Check):
    def __call__(self):
        return CheckResult(ok=False, found="broken")


def lonely(x: Tensor) -> Tensor:
    return x


def silent_fallback(x: Tensor, impl: str = "auto") -> Tensor:
    return x + (impl != "reference")


def test_a_thing_of_the_wrong_role_is_told(breaks: Breaks) -> None:
    found = breaks("objectives", nn.Linear)
    assert "must be a subclass of modalign.objectives.base.Objective" in found
    assert "is the class Linear" in found


def test_a_thing_that_cannot_be_made_is_told(breaks: Breaks) -> None:
    assert "cannot be made by" in breaks("rewards", NeedsAnArgument)


def test_a_reward_for_nothing_is_told(breaks: Breaks) -> None:
    assert "no responses have no rewards" in breaks("rewards", Generous)


def test_a_check_without_a_mend_is_told(breaks: Breaks) -> None:
    assert "must say what mends it" in breaks("checks", Mute)


def test_an_op_without_a_choice_is_told(breaks: Breaks) -> None:
    assert "an op takes `impl`" in breaks("ops", lonely, reference="modalign_seeded_for_tests:Thing")


def test_an_op_that_disagrees_with_its_twin_is_told(breaks: Breaks, seeded: ModuleType) -> None:
    seeded.__dict__.update(twin=lonely, arguments=lambda: (torch.ones(2),))
    found = breaks(
        "ops",
        silent_fallback,
        reference="modalign_seeded_for_tests:twin",
        probe="modalign_seeded_for_tests:arguments",
    )
    assert "it agrees with its twin" in found
