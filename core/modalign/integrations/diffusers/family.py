"""What differs from one architecture of diffusers to the next: a family is one small class.

b samples.
"""

from __future__ import annotations

import copy
import inspect
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Protocol, Self, cast

import torch
from torch import Tensor, nn

from modalign.config import Config, GenerationConfig
from modalign.content import Part
from modalign.decoders.generating import Buckets, Fit
from modalign.decoders.readers import Condition
from modalign.denoising import Process
from modalign.errors import ConfigError, ModelError
from modalign.integrations.diffusers.process import Scheduler, process_of
from modalign.timeline import Timeline, no_time


class Pipeline(Protocol):
    """What is asked of a pipeline of diffusers."""

    config: Mapping[str, object]
    components: Mapping[str, object]
    scheduler: Scheduler

    def __call__(self, **arguments: object) -> object: ...

    def encode_prompt(self, *args: object, **arguments: object) -> tuple[Tensor, ...]: ...


class Family(ABC):
    """One architecture: how the parts of its pipeline are called to make latents, conditions and one prediction.

    pipelines: names of the pipeline classes it is for.
    modality: what it makes.
    network: the part that denoises.
    texts: parts that read the prompt; those that are no modules, or are not there, are left out.
    options: its further settings: those of its modality.
    spoken: arguments of its pipeline that take what conditions the network, by its names in `condition`; none where a
        backbone's states cannot stand for the prompt.
    """

    pipelines: ClassVar[tuple[str, ...]]
    modality: ClassVar[str]
    network: ClassVar[str] = "transformer"
    autoencoder: ClassVar[str] = "vae"
    texts: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2", "text_encoder_3")
    options: ClassVar[type[Config]]
    spoken: ClassVar[Mapping[str, str]] = MappingProxyType({})

    _said: tuple[Condition, Condition] | None = None

    def __init__(self, pipe: Pipeline, settings: Config) -> None:
        self.pipe, self.settings = pipe, settings

    # --- what the parts of a pipeline are --------------------------------------------------------

    def part(self, name: str) -> nn.Module:
        """A module of the pipeline, or a `ConfigError` where it has been left out."""
        found = self.pipe.components.get(name)
        if not isinstance(found, nn.Module):
            raise ConfigError(
                f"this pipeline has no {name}",
                got=f"parts: {', '.join(self.pipe.components)}",
                fix="load the whole pipeline",
            )
        return found

    @property
    def readers(self) -> dict[str, tuple[nn.Module, ...]]:
        """The frozen modules that make latents, and those that make conditions."""
        texts = (self.pipe.components.get(name) for name in self.texts)
        return {
            "latents": (self.part(self.autoencoder),),
            "conditions": tuple(one for one in texts if isinstance(one, nn.Module)),
        }

    @property
    def process(self) -> Process:
        """How it was trained."""
        return process_of(self.pipe.scheduler)

    @property
    def rate(self) -> float | None:
        """Samples or frames per second that media are decoded at; None where they have none, or keep their own."""
        return None

    @property
    def decoding(self) -> Mapping[str, object]:
        """How media are decoded where nobody says otherwise, by the name of the modality's setting."""
        return {}

    @property
    def timeline(self) -> Timeline:
        """When each latent of a medium is; a `DataError` where its media have no time."""
        raise no_time(self.modality)

    @property
    def facts(self) -> Mapping[str, object]:
        """What conditions depend on beside weights, by name."""
        return {"family": type(self).__name__, **self.settings.model_dump()}

    # --- sizes -----------------------------------------------------------------------------------

    @property
    def sizes(self) -> Sequence[Mapping[str, object]]:
        """The settings of each size that media may be fitted to; none where they are all fitted to one."""
        return ()

    def at(self, size: Mapping[str, object]) -> Self:
        """The family with other settings: that of another size."""
        return type(self)(self.pipe, self.settings.model_copy(update=dict(size))) if size else self

    @property
    def fitting(self) -> Fit:
        """How media become what the autoencoder reads, of whichever size is nearest."""
        fits = tuple(self.at(size).fit for size in self.sizes)
        return Buckets(fits) if fits else self.fit

    # --- what a family says ----------------------------------------------------------------------

    @property
    @abstractmethod
    def fit(self) -> Fit:
        """How media become what the autoencoder reads."""

    @abstractmethod
    def encode(self, media: Tensor) -> Tensor:
        """Clean latents ``b ...`` of fitted media, scaled as the network knows them: the mode of what the autoencoder
        gives, which does not vary."""

    @abstractmethod
    def scaled(self, latents: Tensor) -> Tensor:
        """What the autoencoder gives, ``b ...``, scaled as the network knows it."""

    @abstractmethod
    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        """What conditions the network, each ``b ...``; `predict` gets it back."""

    @abstractmethod
    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The network's prediction, of the shape of ``noisy``.

        noisy: ``b ...`` of the network's type; its shape is what says the size of the media, which may be another
            than the settings'.
        time: ``b`` of the process.
        """

    @abstractmethod
    def parts(self, media: Sequence[Tensor]) -> list[Part]:
        """What it has made, as parts."""

    def write(self, prompts: Sequence[str], config: GenerationConfig, first: int) -> list[Part]:
        """What the pipeline makes of prompts.

        first: the number of the first prompt: one has the same noise whatever comes with it.
        """
        return self.parts(self.make(prompts, self.noise(len(prompts), config, first), config))

    def make(self, prompts: Sequence[str], sources: list[torch.Generator], config: GenerationConfig) -> list[Tensor]:
        """The same as tensors, as the modality lays out what is decoded, with the graph that the pipeline made.

        sources: of noise, one for each prompt.
        """
        raise ModelError(
            "no gradient passes through how this family makes media",
            got=type(self).__name__,
            fix="write its `make`, or use an objective that learns from responses (DPO, SFT)",
        )

    def saying(self, condition: Condition, nothing: Condition) -> Self:
        """The family with a pipeline that is given conditions in the place of prompts.

        condition: each tensor ``b ...``.
        nothing: what guidance compares with, without an axis ``b``.
        """
        found = copy.copy(self)
        found._said = (condition, nothing)
        return found

    def prompted(self, prompts: Sequence[str], first: int = 0) -> dict[str, object]:
        """What says to the pipeline what is wanted.

        first: the number of the first of these prompts.
        """
        if self._said is None:
            return {"prompt": list(prompts)}
        condition, nothing = self._said
        known = inspect.signature(type(self.pipe).__call__).parameters
        found: dict[str, object] = {}
        for name, argument in self.spoken.items():
            if name in condition:
                found[argument] = condition[name][first : first + len(prompts)]
                if (against := f"negative_{argument}") in known:
                    found[against] = nothing[name][None].expand(len(prompts), *nothing[name].shape)
        return found | ({"negative_prompt": None} if "negative_prompt" in known else {})  # it has a default in some

    @property
    def exactly(self) -> int | None:
        """How many vectors of a prompt the network reads, where it reads that number alone."""
        return None

    @property
    def unguided(self) -> float:
        """What its pipeline is told as `guidance_scale` where the network's own predictions are wanted."""
        return 1.0

    # --- what families share ---------------------------------------------------------------------

    def configured(self, part: str) -> Mapping[str, object]:
        """The settings of a part of diffusers."""
        return cast("Mapping[str, object]", self.part(part).config)

    @property
    def device(self) -> torch.device:
        """Where the text encoders are."""
        parts = self.readers["conditions"]
        return device_of(parts[0] if parts else self.denoise)

    @property
    def denoise(self) -> nn.Module:
        """The network, called with the arguments of its own `forward`."""
        return self.part(self.network)

    def clock(self, time: Tensor, like: Tensor, *, scale: float = 1000.0) -> Tensor:
        """Times as a network counts them: steps of a table as they are, those of a flow times ``scale``."""
        if self.process.path == "table":
            return time.long()
        # as pipelines give them: in bfloat16 one of 999 would be 1000, and the noise would not be of that time
        return (time * scale).to(torch.promote_types(like.dtype, torch.float32))

    def noise(self, count: int, config: GenerationConfig, first: int) -> list[torch.Generator]:
        """A seeded source of noise for each prompt, on the CPU."""
        return [torch.Generator().manual_seed(config.seed * 1_000_003 + first + number) for number in range(count)]

    def sampling(self, config: GenerationConfig) -> dict[str, object]:
        """What every pipeline is told, where something is said."""
        said = {"num_inference_steps": config.num_inference_steps, "guidance_scale": config.guidance_scale}
        return {name: value for name, value in said.items() if value is not None}


def called(module: nn.Module, **arguments: object) -> Tensor:
    """What a network of diffusers predicts."""
    return cast("tuple[Tensor]", module(**arguments, return_dict=False))[0]


def device_of(module: nn.Module) -> torch.device:
    """Where a module is."""
    return next(module.parameters()).device


def type_of(module: nn.Module) -> torch.dtype:
    """The type of a module's weights; where it keeps some in float32, as it does adapters, that of most numbers."""
    sizes: Counter[torch.dtype] = Counter()
    for value in module.parameters():
        if value.is_floating_point():
            sizes[value.dtype] += value.numel()
    return sizes.most_common(1)[0][0]
