"""Continuous actions: an expert that learns the flow from noise to a chunk of actions.

After pi0, Black et al., https://arxiv.org/abs/2410.24164: a small transformer over the steps of a chunk, which sees
what a language model says, with time mixed into its input (appendix B), sampled by Euler steps. Here it sees states of
learned queries (`modalign.connectors.conditioner`), not the keys and values of every layer, so that it stands behind
any language model. Alone it reads the letters of its prompt in their place.

b samples, t steps, a dimensions, k states, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, cast, final

import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from pydantic import PositiveInt, model_validator
from safetensors.torch import save_file
from torch import Tensor, nn

from modalign.batch import Medium
from modalign.config import Config, GenerationConfig
from modalign.connectors.block import Block
from modalign.connectors.conditioner import Wanted, Wide
from modalign.connectors.options import seeded
from modalign.content import Part
from modalign.decoders.denoiser import Denoiser
from modalign.decoders.generating import FITTED, WORDS, prompt_medium
from modalign.decoders.readers import Condition
from modalign.denoising import Process
from modalign.timeline import Timeline
from modalign_action.modality import RATE
from modalign_action.space import ActionSpace
from modalign_action.waves import waves

SIZES: Final = "expert.json"
WEIGHTS: Final = "model.safetensors"
STEPS: Final = 10  #: of sampling where nobody says, as pi0's
STATES: Final = "states"  #: what a language model says in the place of letters
LETTERS: Final = "letters"

_TIMES: Final = 1000  #: what diffusers calls time 1, and what times are multiplied by before waves are made of them


class ExpertSizes(Config):
    """How large an expert is."""

    width: PositiveInt = 256
    """Of its states."""

    depth: PositiveInt = 4
    """Layers."""

    heads: PositiveInt = 4
    """Attention heads; they divide the width."""

    @model_validator(mode="after")
    def _divides(self) -> ExpertSizes:
        if self.width % (2 * self.heads):
            msg = f"heads must divide the width, which is even: {self.heads}, of {self.width}"
            raise ValueError(msg)
        return self


@final
class Expert(nn.Module):
    """The network: noisy actions, times and what is asked for to the flow it predicts."""

    def __init__(self, dimensions: int, sizes: ExpertSizes) -> None:
        super().__init__()
        d = sizes.width
        self.letter = nn.Embedding(256, d)
        self.enter = nn.Linear(dimensions, d)
        self.time = nn.Sequential(nn.Linear(2 * d, d), nn.SiLU(), nn.Linear(d, d))
        self.blocks = nn.ModuleList(Block(d, sizes.heads, 4) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(d)
        self.leave = nn.Linear(d, dimensions)

    def forward(self, noisy: Tensor, time: Tensor, asked: Tensor) -> Tensor:
        """The flow ``b t a``.

        noisy: ``b t a`` in units of their ranges.
        time: ``b`` from 0 (clean) to 1 (noise).
        asked: ``b k d`` states; or ``b k`` letters, as bytes of UTF-8.
        """
        given = asked if asked.is_floating_point() else self._places(self.letter(asked))  # b k d
        steps = self._places(self.enter(noisy))  # b t d
        when = waves(time * _TIMES, steps.shape[-1]).to(steps)[:, None].expand_as(steps)
        x = torch.cat([given.to(steps), self.time(torch.cat([steps, when], -1))], 1)
        for block in self.blocks:
            x = block(x)
        return self.leave(self.norm(x[:, given.shape[1] :]))

    def _places(self, x: Tensor) -> Tensor:
        return x + waves(torch.arange(x.shape[1], device=x.device), x.shape[2]).to(x)


@final
class ExpertDenoiser(Denoiser):
    """An expert with the ranges that its actions are in units of.

    space: of the actions.
    """

    def __init__(self, space: ActionSpace, sizes: ExpertSizes) -> None:
        super().__init__()
        self.space, self.sizes = space, sizes
        self.process = Process(prediction="flow")
        self.network = Expert(space.dimensions, sizes)

    def latents(self, media: Sequence[Medium]) -> list[Tensor]:
        return [self.space.unit(one.tensors[FITTED]) for one in media]

    def conditions(self, prompts: Sequence[Medium]) -> list[Condition]:
        return [{LETTERS: letters(cast(str, one.extra[WORDS]))} for one in prompts]

    def nothing(self) -> Medium:
        return prompt_medium("", "text")

    @property
    def timeline(self) -> Timeline:
        return super().timeline if self.space.rate is None else Timeline(axis=0, each=1 / self.space.rate)

    def forward(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return self.network(noisy, time, condition[STATES] if STATES in condition else condition[LETTERS])

    def wanted(self) -> Wanted:
        rms = cast(Expert, self.network).letter.weight.detach().square().mean().sqrt().item()
        return Wanted(sequences={STATES: Wide(width=self.sizes.width, rms=rms)})

    def paint(
        self, condition: Condition, nothing: Condition, sources: Sequence[torch.Generator], config: GenerationConfig
    ) -> list[Part]:
        asked, free = condition[STATES], nothing[STATES].expand_as(condition[STATES])
        return self.make(asked, free, sources, config)

    @torch.no_grad()
    def make(
        self, asked: Tensor, nothing: Tensor, sources: Sequence[torch.Generator], config: GenerationConfig
    ) -> list[Part]:
        """A chunk of each condition ``b k ...``.

        nothing: what guidance compares with, ``b k ...``.
        sources: of noise, one for each, on the CPU.
        """
        guidance = 1.0 if config.guidance_scale is None else config.guidance_scale

        def flow(noisy: Tensor, time: Tensor) -> Tensor:
            found = self.network(noisy, time, asked)
            if guidance == 1:
                return found
            free = self.network(noisy, time, nothing)
            return free + guidance * (found - free)

        noise = torch.stack([torch.randn(self.space.shape, generator=one) for one in sources]).to(asked.device)
        unit = sampled(flow, noise, config.num_inference_steps or STEPS)
        facts = {} if self.space.rate is None else {RATE: self.space.rate}
        return [Part(modality="action", value=one, facts=facts) for one in self.space.back(unit).float().cpu()]


def sampled(flow: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
    """Clean samples ``b ...`` from noise, by Euler steps of equal length.

    flow: of noisy samples ``b ...`` at times ``b`` from 1 (noise) to 0.

    >>> sampled(lambda noisy, time: noisy / time[:, None], torch.ones(1, 2), 4)  # all that is left is noise
    tensor([[0., 0.]])
    """
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)], device=noise.device)
    x = noise
    for time in cast("list[torch.FloatTensor]", scheduler.timesteps):
        predicted = cast(torch.FloatTensor, flow(x, (time.double() / _TIMES).expand(len(x))))
        x = cast(Tensor, scheduler.step(predicted, time, x, return_dict=False)[0])
    return x


def letters(words: str) -> Tensor:
    """A prompt as the bytes of its letters, ``k``."""
    return torch.tensor(list(words.encode()), dtype=torch.long)


def new_expert(space: ActionSpace, folder: str | Path, *, seed: int = 0, **sizes: int) -> Path:
    """Write an untrained expert of a space of actions; returns the folder, which `modalign.compose` has as a decoder.

    seed: of the weights; the caller's random state is untouched.
    sizes: of `ExpertSizes`: `width`, `depth`, `heads`.
    """
    chosen = ExpertSizes.model_validate(sizes)
    with seeded(seed):
        denoiser = ExpertDenoiser(space, chosen)
    return write(Path(folder), space, chosen, denoiser.state_dict())


def write(folder: Path, space: ActionSpace, sizes: ExpertSizes, state: dict[str, Tensor]) -> Path:
    """Write an expert: its space, sizes and weights."""
    space.save(folder)
    (folder / SIZES).write_text(sizes.model_dump_json(indent=2) + "\n", encoding="utf-8")
    still = {name: value.detach().cpu().clone().contiguous() for name, value in state.items()}
    save_file(still, folder / WEIGHTS, metadata={"format": "pt"})
    return folder
