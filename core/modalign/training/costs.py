"""A reward under a cost: what a response is worth less what it harms, or the best of those that harm little enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, final

from modalign.content import Message, Response
from modalign.errors import ConfigError
from modalign.training.rollout import Judge, Verdict, verdicts

COST: Final = "cost"  #: the score that a response keeps of what it costs


@final
class Penalised:
    """``reward - weight * cost`` of each response.

    The Lagrangian of section 3.3 of Dai et al., "Safe RLHF", https://arxiv.org/abs/2310.12773, at a fixed multiplier.

    reward, cost: judges; higher is better of the one, and worse of the other.
    weight: of a unit of cost, in reward.
    name: the score under which a response keeps its cost.

    >>> judge = Penalised(lambda asked, said: [3.0, 2.0], lambda asked, said: [2.0, 0.0], weight=0.75)
    >>> [one.reward for one in judge([(), ()], [Response(messages=())] * 2)]
    [1.5, 2.0]
    """

    def __init__(self, reward: Judge, cost: Judge, *, weight: float, name: str = COST) -> None:
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError("a cost counts with a weight above 0", where="weight", got=weight, fix="for example 1")
        self.reward, self.cost, self.weight, self.name = reward, cost, weight, name

    def __call__(self, prompts: Sequence[Sequence[Message]], responses: Sequence[Response]) -> list[Verdict]:
        found: list[Verdict] = []
        for worth, harm in _both(self.reward, self.cost, prompts, responses):
            less = self.weight * harm
            *above, last = worth.rank
            scores = {**worth.scores, self.name: harm}
            found.append(Verdict(rank=(*above, last - less), reward=worth.reward - less, scores=scores))
        return found


@final
class Constrained:
    """The reward of responses whose cost is at most the limit; every other is worse than all of them.

    Among those that keep the limit the better reward is better, among those that break it the lower cost. The cost
    model of Safe RLHF (Dai et al., https://arxiv.org/abs/2310.12773) is above 0 for what is harmful: its limit is 0.

    reward, cost: judges; higher is better of the one, and worse of the other.
    limit: the highest cost that is allowed.
    name: the score under which a response keeps its cost.

    >>> judge = Constrained(lambda asked, said: [3.0, 2.0], lambda asked, said: [2.0, 0.0], limit=0.0)
    >>> dear, cheap = judge([(), ()], [Response(messages=())] * 2)
    >>> (dear.reward, cheap.reward), cheap.rank > dear.rank
    ((3.0, 2.0), True)
    """

    def __init__(self, reward: Judge, cost: Judge, *, limit: float, name: str = COST) -> None:
        if not math.isfinite(limit):
            raise ConfigError("a limit of costs is a finite number", where="limit", got=limit, fix="for example 0")
        self.reward, self.cost, self.limit, self.name = reward, cost, limit, name

    def __call__(self, prompts: Sequence[Sequence[Message]], responses: Sequence[Response]) -> list[Verdict]:
        found: list[Verdict] = []
        for worth, harm in _both(self.reward, self.cost, prompts, responses):
            rank = (1.0, *worth.rank) if harm <= self.limit else (0.0, -harm)
            found.append(Verdict(rank=rank, reward=worth.reward, scores={**worth.scores, self.name: harm}))
        return found


def _both(
    reward: Judge, cost: Judge, prompts: Sequence[Sequence[Message]], responses: Sequence[Response]
) -> list[tuple[Verdict, float]]:
    worth = verdicts(reward, prompts, responses, "reward")
    harm = verdicts(cost, prompts, responses, "cost")
    return [(one, other.reward) for one, other in zip(worth, harm, strict=True)]
