"""The oracle as a reward: exact, free, and no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from modalign.content import Message, Response
from modalign.roles import Reward
from modalign.world.measure import judge


@final
class OracleReward(Reward):
    """How much of what was asked a response shows: 1 for everything, 0 where it is unreadable.

    The mean of the share of attributes that are right and of whether all are. A prompt that is no request of the oracle
    world, and no question about a medium of it, gives NaN: the oracle has nothing to say about it.
    """

    def __call__(self, prompts: Sequence[Sequence[Message]], responses: Sequence[Response]) -> list[float]:
        from modalign.registry import registry

        depictions = registry.depictions()
        verdicts = [judge(*pair, depictions) for pair in zip(prompts, responses, strict=True)]
        return [math.nan if verdict is None else verdict.reward for verdict in verdicts]
