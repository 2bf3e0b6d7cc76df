"""Every objective keeps the laws, and the laws can be broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, final

import pytest
import torch
from torch import Tensor

from modalign.batch import Targets
from modalign.errors import ModelError
from modalign.objectives import (
    DPO,
    IPO,
    KTO,
    ORPO,
    SFT,
    BradleyTerry,
    Cost,
    DRaFT,
    Loss,
    Mean,
    Moderation,
    Needs,
    Objective,
    Ordinal,
    RaoKupper,
    ReFL,
    Regression,
    RewardWeighted,
    SimPO,
    Thurstone,
)
from modalign.objectives.base import pair_metrics, weighted
from modalign.scores import Scores
from modalign.testing.laws import LAWS, check_objective
from modalign.testing.rows import Row, lay, random_row, scores_of

OBJECTIVES = [
    SFT(),
    DPO(),
    DPO(beta=5.0, label_smoothing=0.1),
    IPO(),
    IPO(beta=1.0, length_normalized=True),
    KTO(),
    KTO(desirable_weight=1.3, undesirable_weight=0.0),
    SimPO(),
    SimPO(gamma=0.0),
    ORPO(),
    ORPO(beta=1.0),
    RewardWeighted(),
    RewardWeighted(baseline=0.3, temperature=0.5, max_weight=2.0),
    DRaFT(),
    ReFL(ceiling=0.4),
    BradleyTerry(),
    BradleyTerry(center_rewards_coefficient=0.1),
    RaoKupper(),
    Thurstone(),
    Regression(),
    Ordinal(),
    Moderation(),
    Cost(),
]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_an_objective_keeps_the_law(objective: Objective, law: str) -> None:
    LAWS[law](objective)


@pytest.mark.parametrize("objective", [SimPO(), ORPO()], ids=repr)
@pytest.mark.parametrize("kind", ["draw", "step"])
def test_likelihoods_that_are_not_normalised_are_refused_in_words(objective: Objective, kind: str) -> None:
    with pytest.raises(ModelError, match=f"needs a normalised likelihood.*units of kind {kind}.*DPO, IPO, KTO"):
        objective.refuse(frozenset({"token", kind}))  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", [DRaFT(), ReFL()], ids=repr)
@pytest.mark.parametrize("kind", ["token", "step"])
def test_the_gradient_of_a_reward_needs_a_denoiser(objective: Objective, kind: str) -> None:
    objective.refuse(frozenset({"draw"}))
    with pytest.raises(ModelError, match=f"needs a denoiser.*units of kind {kind}.*DPO, SFT"):
        objective.refuse(frozenset({"draw", kind}))  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", [SFT(), DPO(), IPO(), KTO(), RewardWeighted(), BradleyTerry()], ids=repr)
def test_other_objectives_take_every_kind_of_unit(objective: Objective) -> None:
    objective.refuse(frozenset({"token", "draw", "step"}))


def test_a_length_that_draws_do_not_have_is_refused_in_words() -> None:
    IPO(length_normalized=True).refuse(frozenset({"token"}))
    with pytest.raises(ModelError, match=r"divides by a number of tokens.*draw.*length_normalized: false"):
        IPO(length_normalized=True).refuse(frozenset({"draw"}))


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_the_loss_is_float64(objective: Objective) -> None:
    loss = objective(*lay(objective.needs, [random_row(objective.needs, seed=0)]))
    assert loss.sum.dtype == loss.count.dtype == torch.float64


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_the_gradient_is_the_one_finite_differences_give(objective: Objective) -> None:
    rows = [random_row(objective.needs, seed=seed) for seed in range(3)]
    # statistics are constants of the loss
    statistics = objective.statistics(*lay(objective.needs, rows))
    leaves = [leaf for row in rows for leaf in row.leaves]

    def loss(*values: Tensor) -> Tensor:
        left = iter(values)
        moved = [row.with_leaves([next(left) for _ in row.leaves]) for row in rows]
        return objective(*lay(objective.needs, moved), statistics).sum

    assert torch.autograd.gradcheck(loss, leaves)


def test_scores_of_spreads_a_log_likelihood_over_units() -> None:
    logps = torch.tensor([-6.0, -1.0], dtype=torch.float64)
    for kind in ("token", "draw", "step"):
        assert scores_of(logps, (3, 2), kind=kind).logps.tolist() == pytest.approx([-6.0, -1.0])
    assert scores_of(logps, (3, 2)).counts.tolist() == [3, 2]
    assert scores_of(logps, (3, 2), kind="draw").counts.tolist() == [0, 0]


# --- the laws can be broken ------------------------------------------------------------------------


class _Base(Objective):
    """A right objective, for the wrong ones below: the mean margin."""

    needs: ClassVar[Needs] = Needs(pairing="pair")

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        rewards = self.rewards(scores["policy"].logps)[targets.pairs]
        masked = torch.where(targets.weights[:, None] != 0, rewards, 0.0)
        chosen, rejected = masked.unbind(-1)
        return Loss(
            sum=((rejected - chosen) * self.weights(targets)).sum(),
            count=targets.weights.sum(),
            metrics=self.metrics(chosen, rejected, targets.weights),
        )

    def rewards(self, logps: Tensor) -> Tensor:
        return logps

    def weights(self, targets: Targets) -> Tensor:
        return targets.weights

    def metrics(self, chosen: Tensor, rejected: Tensor, weights: Tensor) -> dict[str, Mean]:
        return pair_metrics(chosen, rejected, weights)

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return targets.weights.sum()


@final
class _WrongCount(_Base):
    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return tokens.sum()


@final
class _MeanInsteadOfSum(_Base):
    def weights(self, targets: Targets) -> Tensor:
        return targets.weights / targets.weights.sum().clamp(min=1)


@final
class _Unstable(_Base):
    def rewards(self, logps: Tensor) -> Tensor:
        return logps.nan_to_num().exp()


@final
class _IgnoresWeights(_Base):
    def weights(self, targets: Targets) -> Tensor:
        return torch.ones_like(targets.weights)


@final
class _MetricsWithAGraph(_Base):
    def metrics(self, chosen: Tensor, rejected: Tensor, weights: Tensor) -> dict[str, Mean]:
        return pair_metrics(chosen, rejected, weights) | {"x": Mean(sum=chosen.sum(), count=weights.sum())}


@final
class _MetricsThatDependOnTheBatch(_Base):
    def metrics(self, chosen: Tensor, rejected: Tensor, weights: Tensor) -> dict[str, Mean]:
        return pair_metrics(chosen, rejected, weights) | ({"x": weighted(chosen, weights)} if len(chosen) > 3 else {})


@final
class _MarginOfOneSide(_Base):
    def metrics(self, chosen: Tensor, rejected: Tensor, weights: Tensor) -> dict[str, Mean]:
        return {"rewards/margins": weighted(chosen, weights)}


@final
class _RefusesNothing(_Base):
    needs: ClassVar[Needs] = Needs(pairing="pair", kinds=frozenset({"token"}))

    def refuse(self, kinds: frozenset[str]) -> None:
        pass


def test_the_right_one_of_the_doubles_is_right() -> None:
    check_objective(_Base())


@pytest.mark.parametrize(
    ("wrong", "law"),
    [
        (_WrongCount, "count"),
        (_MeanInsteadOfSum, "not the sum over its parts"),
        (_Unstable, "not finite"),
        (_IgnoresWeights, "a weight does not multiply the loss"),
        (_MetricsWithAGraph, "carries a graph"),
        (_MetricsThatDependOnTheBatch, "names of metrics"),
        (_MarginOfOneSide, "negate the margin"),
        (_RefusesNothing, "outside needs.kinds"),
    ],
)
def test_a_broken_law_is_named_by_what_it_says(wrong: Callable[[], Objective], law: str) -> None:
    with pytest.raises(AssertionError, match=law):
        check_objective(wrong())


def test_a_row_swapped_twice_is_itself() -> None:
    row = Row(logps={"policy": torch.tensor([1.0, 2.0])}, rewards=torch.tensor([3.0, 4.0]), tokens=(5, 6), margin=0.5)
    once = row.swap()
    assert (once.logps["policy"].tolist(), once.tokens, once.margin) == ([2.0, 1.0], (6, 5), -0.5)
    again = once.swap()
    assert (again.logps["policy"].tolist(), again.tokens, again.margin) == ([1.0, 2.0], (5, 6), 0.5)
