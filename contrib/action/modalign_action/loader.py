"""Experts of actions as models: loaded, adapted, asked and saved like any other generator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from modalign.config import GenerationConfig, ModelConfig
from modalign.content import Part
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.decoders.generating import Fit, GeneratorAssembly, GeneratorPreparer
from modalign.errors import CheckpointError, ConfigError
from modalign.integrations import peft
from modalign.integrations.diffusers.index import adapted
from modalign.model import Model
from modalign.roles import Content, Loader
from modalign_action.config import ActionSettings
from modalign_action.expert import SIZES, WEIGHTS, ExpertDenoiser, ExpertSizes, letters, write
from modalign_action.space import FILE, ActionSpace

LIMITS: Final = "action_media.json"  #: what the model's options said of its actions, beside its weights or adapters


@final
@dataclass(frozen=True)
class ActionFit(Fit):
    """Chunks as they are, where they are of the space."""

    space: ActionSpace

    def __call__(self, content: Content) -> Tensor:
        return self.space.check(content.tensor)

    def seconds(self, fitted: Tensor, rate: float | None) -> float | None:
        return None if rate is None else len(fitted) / rate

    @property
    def facts(self) -> dict[str, object]:
        return self.space.model_dump(mode="json")


@final
class ExpertAssembly(GeneratorAssembly):
    """How an expert reads, writes and is saved."""

    def __init__(
        self, denoiser: ExpertDenoiser, preparer: GeneratorPreparer, adapters: peft.LoraAdapters | None
    ) -> None:
        super().__init__(preparer, adapters)
        self.denoiser, self._lora = denoiser, adapters

    def store(self, folder: Path, *, merge: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LIMITS).write_text(self.words.settings.model_dump_json(indent=2) + "\n", encoding="utf-8")
        if self._lora is not None and not merge:
            self._lora.save(folder)
            return
        state = self.denoiser.state_dict()
        if self._lora is not None:
            state = {f"network.{name}": value for name, value in self._lora.merged().items()}
        write(folder, self.denoiser.space, self.denoiser.sizes, state)

    def write(self, prompts: Sequence[str], config: GenerationConfig, first: int) -> list[Part]:
        there = next(self.denoiser.network.parameters()).device
        found: list[Part] = []
        for number, words in enumerate(prompts, first):  # each by itself: prompts are of different lengths
            source = torch.Generator().manual_seed(config.seed * 1_000_003 + number)
            asked = letters(words)[None].to(there)
            found += self.denoiser.make(asked, asked[:, :0], [source], config)
        return found


@final
class ExpertLoader(Loader):
    """Folders that `new_expert` or training wrote, and adapters of them."""

    def claims(self, config: ModelConfig) -> bool:
        return (_base(config.path) / SIZES).is_file()

    def knows(self, config: ModelConfig) -> str | None:
        if not (_base(config.path) / FILE).is_file():
            return None
        return (
            "the folder says what actions are, and holds no expert: for discrete actions say `type: action-bins`, for "
            "continuous ones make an expert (python -m modalign_action ROWS FOLDER --expert)"
        )

    def load(self, config: ModelConfig) -> Model:
        base = _base(config.path)
        for name in ("encoders", "decoders", "media"):
            if getattr(config, name):
                fix = "put it into model.options" if name == "media" else "put the expert behind a language model"
                raise ConfigError("an expert of actions has no such setting", where=f"model.{name}", fix=fix)
        space = ActionSpace.load(base)
        try:
            denoiser = ExpertDenoiser(space, ExpertSizes.model_validate_json((base / SIZES).read_bytes()))
            denoiser.load_state_dict(load_file(base / WEIGHTS))
        except (OSError, RuntimeError, SafetensorError, ValidationError) as error:
            got = " ".join(str(error).split())[:300]
            what = "the expert of actions cannot be read"
            raise CheckpointError(what, where=str(base), got=got, fix="make it again, or copy it again") from error
        preparer = GeneratorPreparer("action", "text", ActionFit(space), _settings(config), space.rate)
        adapters = peft.adapt(denoiser.network, config, base=adapted(config.path) or config.path)
        return Model(
            assembly=ExpertAssembly(denoiser, preparer, adapters),
            decoders={"action": DenoisingDecoder(denoiser, modality="action")},
        )


def _base(path: str) -> Path:
    """The folder of the expert that a path names, or whose adapters it holds."""
    return Path(adapted(path) or path).expanduser()


def _settings(config: ModelConfig) -> ActionSettings:
    """What actions must be: by the options, else as the model was trained."""
    file = Path(config.path).expanduser() / LIMITS
    try:
        if config.options or not file.is_file():
            return ActionSettings.model_validate(config.options)
        return ActionSettings.model_validate_json(file.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["model", "options", *map(str, first["loc"])])
        known = ", ".join(ActionSettings.model_fields)
        raise ConfigError(first["msg"], where=where, got=repr(first["input"])[:200], fix=f"options: {known}") from error
