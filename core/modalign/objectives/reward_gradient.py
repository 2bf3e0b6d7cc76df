"""Reward backpropagation: a denoiser makes media of prompts, and follows the gradient of their reward.

a responses the loss is about: here the media that are made.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Self, cast, final

from pydantic import Field, NonNegativeFloat, PositiveInt, field_serializer, field_validator, model_validator
from torch import Tensor, nn

from modalign.batch import Targets
from modalign.decoders.backprop import MADE, Backprop, MediaReward
from modalign.errors import ConfigError, ModelError, ShapeError
from modalign.objectives.base import Loss, Mean, Needs, Objective, inert, weighted
from modalign.registration.admission import describe_error, quietly
from modalign.registration.targets import resolve
from modalign.scores import Scores, UnitKind

_TARGET = re.compile(r"[\w.]+:[\w.]+")


class RewardGradient(Objective, ABC):
    """An objective whose responses the model makes itself, so that the gradient of their reward reaches it.

    `Scores.rewards` has the mean reward of each prompt's media (`draws.count` of them) under `MADE`.
    """

    needs: ClassVar[Needs] = Needs(pairing="prompt", kinds=frozenset({"draw"}))

    reward: str | Callable[..., Tensor] | None = None
    """What media are judged by: `package.module:function`, called with prompts and media, which gives a tensor of one
    number each whose gradient reaches the media; or a class of such, made without arguments. From Python also the
    function itself."""

    num_inference_steps: PositiveInt
    """Steps of the sampler."""

    guidance_scale: NonNegativeFloat | None = None
    """How strongly media are pushed towards their prompt while they are made; by default not at all."""

    ceiling: float | None = Field(default=None, allow_inf_nan=False)
    """Reward above which nothing is gained: the loss of a medium is then `max(0, ceiling - reward)`."""

    @field_validator("reward")
    @classmethod
    def _names_something(cls, reward: object) -> object:
        if isinstance(reward, str) and not _TARGET.fullmatch(reward):
            msg = "an import string `package.module:function`"
            raise ValueError(msg)
        return reward

    @field_serializer("reward")
    def _named(self, reward: object) -> str | None:
        if reward is None or isinstance(reward, str):
            return reward
        found = reward if hasattr(reward, "__qualname__") else type(reward)
        return f"{found.__module__}:{getattr(found, '__qualname__', '')}"

    @property
    @abstractmethod
    def leaps(self) -> range | None:
        """The steps after one of which what they predict as clean is the medium; None goes on to the end."""

    @property
    @abstractmethod
    def last(self) -> int | None:
        """How many of the last steps have a graph; None is all."""

    def judge(self) -> MediaReward:
        """The reward, imported; a module is frozen."""
        found = self.reward
        if found is None:
            raise ConfigError(
                f"{type(self).__name__} follows the gradient of a reward",
                where="objective.reward",
                got="none",
                fix="name one: package.module:function",
            )
        if isinstance(found, str):
            found = _imported(found)
        if isinstance(found, nn.Module):
            found.requires_grad_(False).eval()
        return cast(MediaReward, found)

    def backprop(self) -> Backprop:
        return Backprop(
            reward=self.judge(),
            steps=self.num_inference_steps,
            last=self.last,
            leaps=self.leaps,
            guidance=self.guidance_scale,
        )

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        found = scores["policy"].rewards.get(MADE)
        if found is None or found.shape != (scores["policy"].responses, 1):
            raise ShapeError(
                f'{type(self).__name__} takes rewards "r 1" of media that the model makes',
                got="none" if found is None else tuple(found.shape),
                fix="score with modalign.training.reference.Rollouts",
            )
        weights = targets.weights.double()
        rewards = inert(found[:, 0].double()[targets.own], weights)  # a
        losses = -rewards if self.ceiling is None else (self.ceiling - rewards).clamp(min=0)
        return Loss(
            sum=(losses * weights).sum(),
            count=self.count(targets, weights),
            metrics={"reward": weighted(rewards, weights)},
        )

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return targets.weights.double().sum()

    def refuse(self, kinds: frozenset[UnitKind]) -> None:
        if wrong := sorted(kinds - self.needs.kinds):
            raise ModelError(
                f"{type(self).__name__} needs a denoiser, through whose steps the gradient of a reward passes",
                got=f"units of kind {', '.join(wrong)}",
                fix="train a diffusion or flow generator, or use an objective that learns from responses (DPO, SFT)",
            )


@final
class DRaFT(RewardGradient):
    """Minus the reward of what is sampled from noise, with a gradient through the last steps of the sampler.

    Eq. 1 and Algorithm 1 of Clark et al., "Directly fine-tuning diffusion models on differentiable rewards",
    https://arxiv.org/abs/2309.17400: DRaFT-K, and DRaFT where K is all.

    >>> DRaFT(last_steps=None, num_inference_steps=8).last is None
    True
    """

    num_inference_steps: PositiveInt = 50
    """Steps of the sampler."""

    last_steps: PositiveInt | None = 1
    """K: how many of the last steps have a gradient, and are kept in memory; none is all."""

    @property
    def leaps(self) -> range | None:
        return None

    @property
    def last(self) -> int | None:
        return self.last_steps


@final
class ReFL(RewardGradient):
    """Minus the reward of what one late step of the sampler predicts as clean, with a gradient through that step.

    Algorithm 1 of Xu et al., "ImageReward", https://arxiv.org/abs/2304.05977, whose map from reward to loss is that of
    a `ceiling` of 2, times 0.001; the step is drawn for each medium.

    >>> ReFL().leaps
    range(30, 40)
    """

    num_inference_steps: PositiveInt = 40
    """Steps of the sampler."""

    earliest: float = Field(default=0.75, ge=0.0, lt=1.0)
    """Share of the steps that are always taken before the one with the gradient."""

    latest: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the steps among the first of which that one always is."""

    @model_validator(mode="after")
    def _some_step(self) -> Self:
        if not self.leaps:
            msg = f"no step lies between {self.earliest:g} and {self.latest:g} of {self.num_inference_steps}"
            raise ValueError(msg)
        return self

    @property
    def leaps(self) -> range:
        steps = self.num_inference_steps
        return range(int(self.earliest * steps), int(self.latest * steps))

    @property
    def last(self) -> int | None:
        return 1


def _imported(name: str) -> object:
    """What an import string names; a class is made."""
    where = "objective.reward"
    try:
        found = quietly(lambda: resolve(name))
        found = found() if isinstance(found, type) else found
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: what is imported may not end the program
        raise ConfigError(
            f"the reward {name!r} cannot be imported",
            where=where,
            got=describe_error(error),
            fix="check the name; a module of your own must be installed, or in a folder of PYTHONPATH",
        ) from error
    if not callable(found):
        raise ConfigError(
            "a reward is called with prompts and media", where=where, got=f"{name} is a {type(found).__name__}"
        )
    return found
