"""The oracle world's tiny flow model as a model: saved, loaded, adapted and asked like any other.

b samples, n patches, k latents.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Final, cast, final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from modalign.batch import Medium
from modalign.config import GenerationConfig, ModelConfig
from modalign.connectors.conditioner import Wanted, Wide
from modalign.content import Part
from modalign.decoders.backprop import Route
from modalign.decoders.denoiser import Denoiser, DenoisingDecoder
from modalign.decoders.euler import sample, starts
from modalign.decoders.generating import FITTED, WORDS, Fit, GeneratorAssembly, GeneratorPreparer, prompt_medium
from modalign.decoders.readers import LATENTS, Condition
from modalign.denoising import Process
from modalign.errors import CheckpointError, ConfigError
from modalign.integrations import peft
from modalign.integrations.diffusers.index import adapted, read_object
from modalign.model import Model
from modalign.registry import registry
from modalign.roles import Content, Depiction, Loader
from modalign.timeline import Timeline
from modalign.world.concept import concepts
from modalign.world.painter import MOST, SHIFT, Canvas, Painter, PainterSizes, PatchCodec, phrases
from modalign.world.source import words_modality

CONFIG: Final = "painter.json"
WEIGHTS: Final = "model.safetensors"
STATES: Final = "states"  #: what a backbone says in the place of phrases
STEPS: Final = 16  #: of sampling, where nobody says

_EXAMPLES: Final = 1024  #: media that patches are measured on


@final
@dataclass(frozen=True)
class CanvasFit(Fit):
    """Media as the depiction makes them."""

    canvas: Canvas

    def __call__(self, content: Content) -> Tensor:
        return self.canvas.fitted(content)

    def seconds(self, fitted: Tensor, rate: float | None) -> float | None:
        each = self.canvas.seconds
        return None if each is None else self.canvas.patches(fitted[None]).shape[1] * each

    @property
    def facts(self) -> Mapping[str, object]:
        return {"canvas": type(self.canvas).__name__}


@final
class PainterDenoiser(Denoiser):
    """A painter with the directions its latents are of."""

    def __init__(self, sizes: PainterSizes, canvas: Canvas, words: str) -> None:
        super().__init__()
        self.canvas, self.words, self.shape = canvas, words, (sizes.patches, sizes.latents)
        self.process = Process(prediction="flow", shift=SHIFT)
        self.network = Painter(sizes)
        self.codec = PatchCodec(sizes)
        self.readers = {LATENTS: self.codec}

    def latents(self, media: Sequence[Medium]) -> list[Tensor]:
        there = self.codec.basis.device
        return [self.codec.encode(self.canvas.patches(one.tensors[FITTED][None].to(there)))[0] for one in media]

    def conditions(self, prompts: Sequence[Medium]) -> list[Condition]:
        return [{"phrase": phrases(cast(str, one.extra[WORDS]))} for one in prompts]

    def nothing(self) -> Medium:
        return prompt_medium("", self.words)

    @property
    def timeline(self) -> Timeline:
        if self.canvas.seconds is None:
            return super().timeline
        return Timeline(axis=0, each=self.canvas.seconds)

    def sample(self, prompts: Sequence[Medium], sources: Sequence[torch.Generator], route: Route) -> Tensor:
        there = self.codec.basis.device
        noise = torch.stack([torch.randn(self.shape, generator=one) for one in sources]).to(there)
        asked = torch.stack([phrases(cast(str, one.extra[WORDS])) for one in prompts]).to(there)
        latents = sample(self.network, asked, noise, route, shift=SHIFT)
        return torch.stack([cast(Tensor, one.value) for one in self.canvas.parts(self.codec.decode(latents))])

    def forward(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return self.network(noisy, time, condition[STATES] if STATES in condition else condition["phrase"])

    def wanted(self) -> Wanted:
        table = cast(Painter, self.network).phrase.weight
        wide = Wide(width=table.shape[1], rms=table.detach().square().mean().sqrt().item())
        return Wanted(sequences={STATES: wide}, most=MOST)

    def paint(
        self, condition: Condition, nothing: Condition, sources: Sequence[torch.Generator], config: GenerationConfig
    ) -> list[Part]:
        noise = torch.stack([torch.randn(self.shape, generator=one) for one in sources]).to(self.codec.basis.device)
        route = Route(steps=config.num_inference_steps or STEPS, guidance=config.guidance_scale)
        latents = sample(
            self.network,
            condition[STATES],
            noise,
            route,
            nothing=nothing[STATES].expand(len(noise), -1, -1),
            shift=SHIFT,
        )
        return self.canvas.parts(self.codec.decode(latents).cpu())


def save_painter(folder: str | Path, depiction: Depiction, canvas: Canvas, *, seed: int = 0) -> Path:
    """Write an untrained painter of a modality; returns the folder.

    Its latents are measured on examples of the world; nothing else of it is known to the model.

    seed: of the weights; the caller's random state is untouched.
    """
    every = list(concepts(depiction.attributes))
    shown = [depiction.depict(every[number % len(every)], seed=number) for number in range(_EXAMPLES)]
    patches = canvas.patches(torch.stack([cast(Tensor, one.value) for one in shown]))
    sizes = PainterSizes(patches=patches.shape[1], latents=canvas.latents, values=patches.shape[2], width=canvas.width)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        denoiser = PainterDenoiser(sizes, canvas, words_modality())
    denoiser.codec.fit(patches)
    return _write(Path(folder), depiction.modality, sizes, denoiser.state_dict())


def _write(folder: Path, modality: str, sizes: PainterSizes, state: Mapping[str, Tensor]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.detach().cpu().clone().contiguous() for name, value in state.items()}, folder / WEIGHTS)
    said = {"modality": modality, "sizes": asdict(sizes)}
    (folder / CONFIG).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return folder


@final
class PainterAssembly(GeneratorAssembly):
    """How a painter reads, writes and is saved."""

    def __init__(
        self,
        denoiser: PainterDenoiser,
        sizes: PainterSizes,
        preparer: GeneratorPreparer,
        adapters: peft.LoraAdapters | None,
    ) -> None:
        self.denoiser, self.sizes = denoiser, sizes
        super().__init__(preparer, adapters)
        self._lora = adapters

    def store(self, folder: Path, *, merge: bool = False) -> None:
        if self._lora is not None and not merge:
            self._lora.save(folder)
            return
        state = self.denoiser.state_dict()
        if self._lora is not None:
            rest = {name: value for name, value in state.items() if not name.startswith("network.")}
            state = rest | {f"network.{name}": value for name, value in self._lora.merged().items()}
        _write(folder, self.words.modality, self.sizes, state)

    @torch.no_grad()
    def write(self, prompts: Sequence[str], config: GenerationConfig, first: int) -> list[Part]:
        sizes, there = self.sizes, self.denoiser.codec.basis.device
        latents = sample(
            self.denoiser.network,
            torch.stack([phrases(one) for one in prompts]).to(there),
            starts(len(prompts), config.seed, (sizes.patches, sizes.latents), first).to(there),
            Route(steps=config.num_inference_steps or STEPS, guidance=config.guidance_scale),
            shift=SHIFT,
        )
        return self.denoiser.canvas.parts(self.denoiser.codec.decode(latents).cpu())


class PainterLoader(Loader):
    """Painters of one modality.

    modality: of their media.
    canvas: how those are cut.
    """

    modality: ClassVar[str]
    canvas: ClassVar[type[Canvas]]

    def claims(self, config: ModelConfig) -> bool:
        said = _said(_base(config.path))
        return said is not None and said.get("modality") == self.modality

    def gives(self, config: ModelConfig) -> frozenset[str]:
        return frozenset({self.modality})

    def load(self, config: ModelConfig) -> Model:
        base = _base(config.path)
        said = _said(base)
        assert said is not None
        place = Path(base).expanduser()
        sizes = PainterSizes(**cast("Mapping[str, int]", said["sizes"]))
        for name in ("encoders", "media", "options"):
            if getattr(config, name):
                raise ConfigError("a painter has no such setting", where=f"model.{name}", fix="remove it")
        denoiser = PainterDenoiser(sizes, self.canvas(), words_modality())
        try:
            denoiser.load_state_dict(load_file(place / WEIGHTS))
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                "the painter's weights cannot be read", where=str(place / WEIGHTS), got=error, fix="save it again"
            ) from error
        settings = registry.modality(self.modality).settings()
        preparer = GeneratorPreparer(self.modality, denoiser.words, CanvasFit(denoiser.canvas), settings)
        adapters = peft.adapt(denoiser.network, config, base=base)
        return Model(
            assembly=PainterAssembly(denoiser, sizes, preparer, adapters),
            decoders={self.modality: DenoisingDecoder(denoiser, modality=self.modality)},
        )


def _base(path: str) -> str:
    """The folder of the painter that a path names, or whose adapters it holds."""
    return adapted(path) or path


def _said(base: str) -> Mapping[str, object] | None:
    file = Path(base).expanduser() / CONFIG
    return read_object(file) if file.is_file() else None
