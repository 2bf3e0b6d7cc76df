"""A generator of a plugin's own: it brings a network that predicts a flow, and this makes a model of it.

b samples, k vectors of a condition, w their width.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, cast, final

import torch
from torch import Tensor, nn

from modalign.batch import Medium
from modalign.config import GenerationConfig, ModelConfig
from modalign.connectors.conditioner import Wanted, Wide
from modalign.content import Part
from modalign.decoders.backprop import Route
from modalign.decoders.denoiser import Denoiser, DenoisingDecoder
from modalign.decoders.euler import sample, starts
from modalign.decoders.generating import FITTED, WORDS, Fit, GeneratorAssembly, GeneratorPreparer, prompt_medium
from modalign.decoders.readers import Condition
from modalign.denoising import Process
from modalign.errors import ConfigError, DataError
from modalign.integrations import peft
from modalign.integrations.diffusers.index import adapted
from modalign.model import Model
from modalign.registry import registry
from modalign.roles import Content, Loader
from modalign.stored import holds, made, read_weights, store
from modalign.world.source import words_modality

STATES: Final = "states"  #: what a backbone says
ASKED: Final = "asked"  #: a prompt's words, where there is no backbone
MOST: Final = 32  #: words of a prompt that are read
STEPS: Final = 16  #: of sampling, where nobody says

_TABLE: Final = 1024  #: rows that words share by their hash (Weinberger et al., https://arxiv.org/abs/0902.2206)


class FlowNetwork(nn.Module, ABC):
    """What a plugin writes of a generator: media as numbers, and the flow from noise to them.

    Each argument of its constructor is kept as an attribute of the same name, so that it can be saved.

    modality: of the media.
    shape: of a medium as numbers.
    width: of the vectors that condition it (w).
    """

    modality: ClassVar[str]
    shape: ClassVar[tuple[int, ...]]
    width: int

    @staticmethod
    @abstractmethod
    def numbers(content: Content) -> Tensor:
        """A decoded medium as numbers of this shape, about as large as noise."""

    @staticmethod
    @abstractmethod
    def part(numbers: Tensor) -> Part:
        """The medium that such numbers are, whatever a network made them."""

    @abstractmethod
    def forward(self, noisy: Tensor, time: Tensor, states: Tensor) -> Tensor:
        """The flow ``b ...``, noise less what is clean (Liu et al., https://arxiv.org/abs/2209.03003).

        noisy: ``b ...`` of this shape.
        time: ``b`` from 0 (clean) to 1 (noise).
        states: ``b k w`` that say what is asked for; any number of them, those without a word 0.
        """


@final
@dataclass(frozen=True)
class FlowFit(Fit):
    """Media as numbers of the one shape that a network makes."""

    kind: type[FlowNetwork]

    def __call__(self, content: Content) -> Tensor:
        found = self.kind.numbers(content)
        if tuple(found.shape) != self.kind.shape:
            raise DataError(
                f"this generator makes {self.kind.modality} of one shape, {self.kind.shape}",
                field=self.kind.modality,
                got=tuple(found.shape),
                fix="leave the row out, or make it of that shape",
            )
        return found.float()

    @property
    def facts(self) -> Mapping[str, object]:
        return {"network": self.kind.__qualname__, "shape": self.kind.shape}


@final
class Asked(nn.Module):
    """A network with a table of words, by which it is conditioned where no backbone does it."""

    def __init__(self, flow: FlowNetwork) -> None:
        super().__init__()
        self.flow = flow
        self.words = nn.Embedding(_TABLE, flow.width, padding_idx=0)

    def forward(self, noisy: Tensor, time: Tensor, asked: Tensor) -> Tensor:
        """The flow ``b ...``.

        asked: ``b k w`` states; or ``b k`` numbers of words.
        """
        states = asked if asked.is_floating_point() else self.words(asked)
        return self.flow(noisy, time.to(noisy.dtype), states.to(noisy.dtype))


def words_of(prompt: str) -> Tensor:
    """Numbers of a prompt's first words, ``k`` padded with 0."""
    found = [1 + zlib.crc32(word.encode()) % (_TABLE - 1) for word in prompt.lower().split()][:MOST]
    return torch.tensor([*found, *[0] * (MOST - len(found))])


@final
class FlowDenoiser(Denoiser):
    """A network that predicts a flow, and media as its numbers."""

    def __init__(self, flow: FlowNetwork, words: str) -> None:
        super().__init__()
        self.kind, self.width, self.words = type(flow), flow.width, words
        self.process = Process(prediction="flow")
        self.network = Asked(flow)

    def latents(self, media: Sequence[Medium]) -> list[Tensor]:
        return [one.tensors[FITTED] for one in media]

    def conditions(self, prompts: Sequence[Medium]) -> list[Condition]:
        return [{ASKED: words_of(cast(str, one.extra[WORDS]))} for one in prompts]

    def nothing(self) -> Medium:
        return prompt_medium("", self.words)

    def forward(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return self.network(noisy, time, condition[STATES] if STATES in condition else condition[ASKED])

    def wanted(self) -> Wanted:
        return Wanted(sequences={STATES: Wide(width=self.width)})  # a new table's vectors are as large, 1

    def paint(
        self, condition: Condition, nothing: Condition, sources: Sequence[torch.Generator], config: GenerationConfig
    ) -> list[Part]:
        noise = torch.stack([torch.randn(self.kind.shape, generator=one) for one in sources])
        return self.made(condition[STATES], noise, config, nothing[STATES].expand(len(noise), -1, -1))

    @torch.no_grad()
    def made(self, asked: Tensor, noise: Tensor, config: GenerationConfig, nothing: Tensor | None = None) -> list[Part]:
        """Media ``b`` of what is asked for, from noise ``b ...``; ``nothing`` is what guidance compares with."""
        there = next(self.network.parameters()).device
        route = Route(steps=config.num_inference_steps or STEPS, guidance=config.guidance_scale)
        numbers = sample(self.network, asked.to(there), noise.to(there), route, nothing=nothing)
        return [self.kind.part(one.cpu()) for one in numbers]


@final
class FlowAssembly(GeneratorAssembly):
    """How such a generator reads, writes and is saved."""

    def __init__(
        self, denoiser: FlowDenoiser, flow: FlowNetwork, preparer: GeneratorPreparer, adapters: peft.LoraAdapters | None
    ) -> None:
        super().__init__(preparer, adapters)
        self.denoiser, self._flow, self._lora = denoiser, flow, adapters

    def store(self, folder: Path, *, merge: bool = False) -> None:
        if self._lora is not None and not merge:
            self._lora.save(folder)
            return
        store(self._flow, folder, self.denoiser.network.state_dict() if self._lora is None else self._lora.merged())

    def write(self, prompts: Sequence[str], config: GenerationConfig, first: int) -> list[Part]:
        noise = starts(len(prompts), config.seed, self.denoiser.kind.shape, first)
        return self.denoiser.made(torch.stack([words_of(one) for one in prompts]), noise, config)


class FlowLoader(Loader):
    """Generators of one network: alone they are asked in words, and behind a language model by its states.

    network: the class of the network.
    """

    network: ClassVar[type[FlowNetwork]]

    @classmethod
    def fresh(cls, folder: str | Path, *, seed: int = 0, **settings: object) -> Path:
        """Write an untrained generator; returns the folder.

        seed: of its weights; the caller's random state is untouched.
        settings: of its network.
        """
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
            flow = cls.network(**settings)
            return store(flow, Path(folder), Asked(flow).state_dict())

    def claims(self, config: ModelConfig) -> bool:
        return holds(self.network, _base(config.path))

    def gives(self, config: ModelConfig) -> frozenset[str]:
        return frozenset({self.network.modality})

    def load(self, config: ModelConfig) -> Model:
        for name in ("encoders", "decoders", "media", "options"):
            if getattr(config, name):
                raise ConfigError("this generator has no such setting", where=f"model.{name}", fix="remove it")
        base = _base(config.path)
        flow = made(self.network, base)
        denoiser, name = FlowDenoiser(flow, words_modality()), self.network.modality
        read_weights(denoiser.network, base)
        preparer = GeneratorPreparer(name, denoiser.words, FlowFit(self.network), registry.modality(name).settings())
        adapters = peft.adapt(denoiser.network, config, base=str(base) if adapted(config.path) else config.path)
        return Model(
            assembly=FlowAssembly(denoiser, flow, preparer, adapters),
            decoders={name: DenoisingDecoder(denoiser, modality=name)},
        )


def _base(path: str) -> Path:
    """The folder of the generator that a path names, or whose adapters it holds."""
    return Path(adapted(path) or path).expanduser()
