"""The oracle as a reward: exact, free, and no model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

from modalign.content import Message, Response
from modalign.roles import Depiction, Reward
from modalign.world.harmony import judge_together
from modalign.world.measure import judge


@final
class OracleReward(Reward):
    """How much of what was asked a response shows: 1 for everything, 0 where it is unreadable.

    The mean of the share of attributes that are right and of whether all are; of a response in several modalities what
    `Seen.reward` says. A prompt that is no request of the oracle world, and no question about a medium of it, gives
    NaN: the oracle has nothing to say about it.
    """

    def __call__(self, prompts: Sequence[Sequence[Message]], responses: Sequence[Response]) -> list[float]:
        from modalign.registry import registry

        depictions = registry.depictions()
        return [_reward(prompt, one, depictions) for prompt, one in zip(prompts, responses, strict=True)]


def _reward(prompt: Sequence[Message], response: Response, depictions: Mapping[str, Depiction]) -> float:
    found = judge(prompt, response, depictions) or judge_together(prompt, response, depictions)
    return math.nan if found is None else found.reward
