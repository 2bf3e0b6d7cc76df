"""How the gradient of a reward reaches a denoiser: through some steps of its own sampler.

b media.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, final

from torch import Tensor

MADE: Final = "made"  #: the name under which rewards of what a model has made stand in `Scores.rewards`


class MediaReward(Protocol):
    """A reward with a gradient."""

    def __call__(self, prompts: list[str], media: Tensor, /) -> Tensor:
        """One number for each medium, ``b``, whose gradient reaches the medium.

        prompts: what each was asked to be.
        media: ``b ...`` as their modality lays out what is decoded, in float32, in its range of values.
        """
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Route:
    """The way from noise to a medium, and where a gradient comes back along it.

    steps: of the sampler.
    last: of the steps that are taken, how many of the last ones have a graph; None is all.
    leap: the step, counted from 0, after which what it predicts as clean is the medium; None goes on to the end.
    guidance: how strongly the sampler is pushed towards the prompt; None is the network's own predictions.

    >>> [Route(steps=4, last=1).graded(step) for step in range(4)]
    [False, False, False, True]
    """

    steps: int
    last: int | None = 1
    leap: int | None = None
    guidance: float | None = None

    def taken(self, steps: int | None = None) -> int:
        """How many steps are taken.

        steps: the sampler has, where that is not what was asked for.
        """
        whole = self.steps if steps is None else steps
        return whole if self.leap is None else min(self.leap + 1, whole)

    def graded(self, step: int, steps: int | None = None) -> bool:
        """Whether a step has a graph; where gradients are switched off, none has."""
        return self.last is None or step >= self.taken(steps) - self.last

    def leaps(self, step: int, steps: int | None = None) -> bool:
        """Whether a step is the last one, from which what is clean is predicted."""
        return self.leap is not None and step == self.taken(steps) - 1


@final
@dataclass(frozen=True, kw_only=True)
class Backprop:
    """Media that a model makes of prompts, judged by a reward, and the steps through which its gradient passes.

    reward: of media.
    steps, last, guidance: of every `Route`.
    leaps: the steps of which one is drawn for each medium, as its leap; None goes on to the end.
    """

    reward: MediaReward
    steps: int
    last: int | None = 1
    leaps: range | None = None
    guidance: float | None = None

    def route(self, quantile: float) -> Route:
        """The route of one medium.

        quantile: a number in [0, 1) by which its leap is drawn.
        """
        leap = None if self.leaps is None else self.leaps[int(quantile * len(self.leaps))]
        return Route(steps=self.steps, last=self.last, leap=leap, guidance=self.guidance)
