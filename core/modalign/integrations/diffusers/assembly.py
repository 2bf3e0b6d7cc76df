"""What a generator is beyond its denoiser: how it writes and how it is saved."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast, final

import torch
from torch import nn

from modalign.config import GenerationConfig
from modalign.content import Part
from modalign.decoders.generating import GeneratorAssembly, GeneratorPreparer
from modalign.integrations.diffusers.denoiser import PipelineDenoiser
from modalign.integrations.diffusers.family import Family
from modalign.integrations.diffusers.index import OPTIONS
from modalign.integrations.peft import LoraAdapters

_LOG = logging.getLogger("modalign")


class _Saving(Protocol):
    """A pipeline that can be saved."""

    def save_pretrained(self, folder: Path, *, safe_serialization: bool) -> None: ...


class _Configured(Protocol):
    """A class of networks that is made by its settings."""

    def from_config(self, config: object) -> nn.Module: ...


@final
class PipelineAssembly(GeneratorAssembly):
    """A pipeline of diffusers.

    denoiser: its network, and the rest of it.
    adapters: of the network.
    """

    def __init__(self, denoiser: PipelineDenoiser, preparer: GeneratorPreparer, adapters: LoraAdapters | None) -> None:
        self.denoiser, self.family = denoiser, denoiser.family
        super().__init__(preparer, adapters)
        self._lora = adapters

    def store(self, folder: Path, *, merge: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        options = self.family.settings.model_dump(mode="json", exclude_defaults=True)
        (folder / OPTIONS).write_text(json.dumps(options, indent=2) + "\n", encoding="utf-8")
        # parts that have left memory come back to be saved, and there may be room nowhere else
        here = torch.device("cpu")
        if self._lora is None:
            with self.denoiser.whole(here), self.denoiser.speaking():
                cast(_Saving, self.family.pipe).save_pretrained(folder, safe_serialization=True)
        elif merge:
            with _Standing(self.family, self._merged()), self.denoiser.whole(here), self.denoiser.speaking():
                cast(_Saving, self.family.pipe).save_pretrained(folder, safe_serialization=True)
        else:
            self._lora.save(folder)
            save_lora(self.family, self._lora, folder)

    def _merged(self) -> nn.Module:
        assert self._lora is not None
        network = self.denoiser.network
        merged = cast(_Configured, type(network)).from_config(network.config)
        state = self._lora.merged()
        merged.load_state_dict(state)
        return merged.to(next(iter(state.values())).dtype)

    @torch.no_grad()
    def write(self, prompts: Sequence[str], config: GenerationConfig, first: int) -> list[Part]:
        self.denoiser.check_words()
        self.denoiser.restore()  # for good: who asks once will ask again
        return self.family.write(prompts, config, first)


@final
class _Standing:
    """Within it another network stands in the pipeline."""

    def __init__(self, family: Family, network: nn.Module) -> None:
        self.family, self.network = family, network

    def __enter__(self) -> None:
        self._before = self.family.part(self.family.network)
        setattr(self.family.pipe, self.family.network, self.network)

    def __exit__(self, *error: object) -> None:
        setattr(self.family.pipe, self.family.network, self._before)


def save_lora(family: Family, adapters: LoraAdapters, folder: Path) -> Path | None:
    """Write adapters as the pipeline's own `load_lora_weights` reads them; None where the pipeline has none.

    Beside the folder's peft files, which any module of diffusers can take.
    """
    save = getattr(type(family.pipe), "save_lora_weights", None)
    if save is None:
        _LOG.info(
            "%s loads no LoRA itself: use the folder with peft, or save it merged (merge_adapter)",
            type(family.pipe).__name__,
        )
        return None
    state, settings = adapters.exported()
    name = family.network
    metadata = {f"{name}_lora_adapter_metadata": settings}
    save(folder, **{f"{name}_lora_layers": state}, **metadata, safe_serialization=True)
    return folder / "pytorch_lora_weights.safetensors"
