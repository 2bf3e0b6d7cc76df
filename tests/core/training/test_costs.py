"""A reward under a cost: weights subtract, limits come first, and what the two said stays with the responses."""

import math
from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import final

import pytest

from modalign.comparison import Comparison
from modalign.config import GenerationConfig
from modalign.content import Message, Response
from modalign.errors import ConfigError, ModelError
from modalign.model import Model
from modalign.reward import RewardModel
from modalign.roles import Assembly
from modalign.testing import ask, say, toy_model
from modalign.training.costs import Constrained, Penalised
from modalign.training.rewards import ModelReward
from modalign.training.rollout import EQUAL, UNJUDGED, Judge, Rollout, Verdict, rollouts, sample_pairs

Prompts = Sequence[Sequence[Message]]


@final
class Said(Assembly):
    """Gives the same answers to every prompt, one for each seed in turn."""

    takes = frozenset({"text"})
    gives = frozenset({"text"})

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = answers, 0

    def save(self, model: Model, folder: Path, *, merge: bool = False) -> None:
        raise NotImplementedError

    def generate(
        self,
        model: Model,
        prompts: Prompts,
        config: GenerationConfig,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[Response]:
        self.asked += 1
        return [say(self.answers[(self.asked - 1) % len(self.answers)]) for _ in prompts]


def words(response: Response) -> str:
    return str(next(response.parts()).value)


def reward(asked: Prompts, said: Sequence[Response]) -> list[float]:
    """An answer is written `REWARD/COST`."""
    return [float(words(one).split("/")[0]) for one in said]


def cost(asked: Prompts, said: Sequence[Response]) -> list[float]:
    return [float(words(one).split("/")[1]) for one in said]


def rollout(judge: Judge, *answers: str) -> Rollout:
    prompts = [Comparison.prompt_only(ask("hi"))]
    (found,) = rollouts(Model(assembly=Said(*answers)), prompts, judge, count=len(answers))
    return found


def pair(judge: Judge, *answers: str) -> tuple[str, str, float | None]:
    """The best and the worst answer, and the margin between them."""
    found = rollout(judge, *answers).pair
    assert found is not None
    return words(found.chosen), words(found.rejected), found.margin


def ranking(judge: Judge, answers: Sequence[str]) -> list[str]:
    """All answers, the best first, as their pairs say."""
    return sorted(answers, key=lambda one: sum(pair(judge, one, other)[0] == one for other in answers if other != one))[
        ::-1
    ]


FIVE = ("1/-2", "2/0", "9/0.5", "8/3", "3/-1")  # two break a limit of 0, with the highest rewards


def test_whatever_keeps_the_limit_is_better_than_whatever_breaks_it() -> None:
    judge = Constrained(reward, cost, limit=0.0)
    # 0 keeps a limit of 0; of those that keep it by reward, of those that break it by cost
    assert ranking(judge, FIVE) == ["3/-1", "2/0", "1/-2", "9/0.5", "8/3"]
    for order in permutations(FIVE):
        assert pair(judge, *order)[:2] == ("3/-1", "8/3")


def test_a_limit_that_all_keep_is_none_and_one_that_all_break_ranks_by_cost() -> None:
    by_reward = sorted(FIVE, key=lambda one: -float(one.split("/")[0]))
    by_cost = sorted(FIVE, key=lambda one: float(one.split("/")[1]))
    assert ranking(Constrained(reward, cost, limit=3.0), FIVE) == by_reward
    assert ranking(Constrained(reward, cost, limit=-5.0), FIVE) == by_cost


def test_a_weight_is_what_a_unit_of_cost_takes_from_the_reward() -> None:
    # 1+2w, 2, 9-w/2, 8-3w, 3+w
    assert ranking(Penalised(reward, cost, weight=0.1), FIVE) == ["9/0.5", "8/3", "3/-1", "2/0", "1/-2"]
    assert ranking(Penalised(reward, cost, weight=2.5), FIVE) == ["9/0.5", "1/-2", "3/-1", "2/0", "8/3"]
    # a weight without end is the order of costs
    assert ranking(Penalised(reward, cost, weight=1e6), FIVE) == ["1/-2", "3/-1", "2/0", "9/0.5", "8/3"]


def test_responses_keep_what_was_said_of_them() -> None:
    weighted = rollout(Penalised(reward, cost, weight=2.0), *FIVE)
    assert weighted.rewards == (5.0, 2.0, 8.0, 2.0, 5.0)
    kept = rollout(Constrained(reward, cost, limit=0.0, name="harm"), *FIVE)
    assert kept.rewards == (1.0, 2.0, 9.0, 8.0, 3.0)
    assert [one.scores for one in kept.responses] == [{"harm": float(one.split("/")[1])} for one in FIVE]
    assert [one.scores["cost"] for one in weighted.responses] == [-2.0, 0.0, 0.5, 3.0, -1.0]


def test_a_margin_is_in_reward_where_reward_decided_and_else_is_not_there() -> None:
    judge = Constrained(reward, cost, limit=0.0)
    assert pair(judge, "3/-1", "1/-2") == ("3/-1", "1/-2", 2.0)
    assert pair(judge, "9/0.5", "1/-2") == ("1/-2", "9/0.5", None)  # 1 - 9 would say that the rejected is better
    assert pair(judge, "9/0.5", "8/3") == ("9/0.5", "8/3", None)
    assert pair(Penalised(reward, cost, weight=2.0), "9/0.5", "1/-2") == ("9/0.5", "1/-2", 3.0)


def test_costs_may_be_several() -> None:
    def second(asked: Prompts, said: Sequence[Response]) -> list[float]:
        return [float(words(one).split("/")[2]) for one in said]

    first = Constrained(reward, cost, limit=0.0)
    both = Constrained(first, second, limit=0.0, name="rudeness")
    answers = ("5/0/1", "4/1/0", "3/0/0", "2/0/0", "9/1/2")
    assert ranking(both, answers) == ["3/0/0", "2/0/0", "4/1/0", "5/0/1", "9/1/2"]
    assert rollout(both, *answers).responses[0].scores == {"cost": 0.0, "rudeness": 1.0}
    softer = Penalised(first, second, weight=1.0, name="rudeness")
    assert ranking(softer, answers) == ["5/0/1", "3/0/0", "2/0/0", "4/1/0", "9/1/2"]  # 5-1, 3, 2, and what breaks it


@pytest.mark.parametrize(
    "make", [lambda harm: Constrained(reward, harm, limit=0), lambda harm: Penalised(reward, harm, weight=1)]
)
def test_a_response_of_which_either_says_nothing_is_not_judged(make: Callable[[Judge], Judge]) -> None:
    judge = make(lambda asked, said: [math.nan if one < 0 else one for one in cost(asked, said)])
    assert rollout(judge, "1/-1", "2/0", "3/0").rewards == (2.0, 3.0)
    assert rollout(judge, "1/-1", "2/-1", "3/0").dropped == UNJUDGED


def test_equal_ranks_give_no_pair() -> None:
    assert rollout(Constrained(reward, cost, limit=0.0), "1/-1", "1/-2").dropped == EQUAL
    assert rollout(Constrained(reward, cost, limit=0.0), "1/2", "3/2").dropped == EQUAL  # both break it alike
    found = sample_pairs(
        Model(assembly=Said("1/0", "2/1")),
        [Comparison.prompt_only(ask("hi"))],
        Penalised(reward, cost, weight=1.0),
        count=2,
    )
    assert (found.pairs, found.dropped) == ((), {EQUAL: 1})


def test_what_cannot_be_right_is_said() -> None:
    for weight in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="a cost counts with a weight above 0"):
            Penalised(reward, cost, weight=weight)
    with pytest.raises(ConfigError, match="a limit of costs is a finite number"):
        Constrained(reward, cost, limit=math.nan)
    with pytest.raises(ModelError, match="a cost gives one number per response; found: 1 numbers for 2 responses"):
        rollout(Constrained(reward, lambda asked, said: [1.0], limit=0.0), "1/0", "2/0")


def test_a_verdict_of_a_number_is_that_number() -> None:
    assert Verdict.of(2.0) == Verdict(rank=(2.0,), reward=2.0)
    assert Verdict.of(Verdict.of(3.0)) == Verdict.of(3.0)
    assert not Verdict(rank=(1.0,), reward=1.0, scores={"cost": math.nan}).finite


def test_a_cost_model_is_a_cost() -> None:
    judge = RewardModel(toy_model(head=True))
    both = Penalised(ModelReward(judge), ModelReward(judge), weight=1.0)
    asked, said = [ask("say a: "), ask("say b: ")], [say("aa"), say("ab")]
    assert [one.reward for one in both(asked, said)] == [0.0, 0.0]  # reward - 1 * itself
    numbers = ModelReward(judge)(asked, said)
    assert [one.scores["cost"] for one in both(asked, said)] == numbers
