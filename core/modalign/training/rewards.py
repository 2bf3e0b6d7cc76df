"""A reward by what a user calls it: the name of a registered one, or a reward model's folder or id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from modalign.content import Message, Response
from modalign.errors import ConfigError, PluginError
from modalign.registry import registry
from modalign.roles import Reward

if TYPE_CHECKING:
    from modalign.reward import RewardModel

USUAL: Final = "reward"  #: the dimension that is meant where a model judges several and none is named


@final
class ModelReward(Reward):
    """One dimension of a reward model.

    judge: the model.
    dimension: by default the only one, or `usual`.
    usual: what is meant where a model judges several dimensions and none is named.
    """

    def __init__(self, judge: RewardModel, *, dimension: str | None = None, usual: str = USUAL) -> None:
        known = judge.dimensions
        chosen = dimension or (known[0] if len(known) == 1 else usual)
        if chosen not in known:
            raise ConfigError(
                f"which dimension is the {usual}?" if dimension is None else f"this reward model judges no {chosen!r}",
                got=f"dimensions: {', '.join(known)}",
                fix=f"name one of them, for example {known[0]}",
            )
        self.judge, self.dimension = judge, chosen

    def __call__(self, prompts: Sequence[Sequence[Message]], responses: Sequence[Response]) -> list[float]:
        return [verdict[self.dimension] for verdict in self.judge.judge(list(prompts), list(responses))]


def find_reward(name: str, *, dimension: str | None = None, batch_size: int = 8, usual: str = USUAL) -> Reward:
    """The reward of a name.

    name: of a registered reward, else a reward model's folder or id; `./NAME` is a folder in any case.
    dimension: of a reward model, the one that counts.
    batch_size: responses that a reward model judges at a time.
    usual: the dimension that is meant where a reward model judges several and none is named.
    """
    try:
        found = registry.reward(name)
    except PluginError as error:
        if name in registry.entries("rewards"):
            raise  # there, but broken
        if "/" not in name and not Path(name).expanduser().is_dir():
            raise type(error)(
                error.what,
                got=f"{error.got}; and no folder of that name",
                fix=error.fix,
            ) from error
    else:
        if dimension is None:
            return found
        raise ConfigError(
            "only a reward model has dimensions",
            where=f"the reward {name!r}",
            got=f"dimension {dimension!r}",
            fix="leave it out, or name a reward model's folder",
        )
    from modalign.reward import RewardModel

    return ModelReward(RewardModel.load(name, batch_size=batch_size), dimension=dimension, usual=usual)
