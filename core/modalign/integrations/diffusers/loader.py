"""A pipeline's folder or id becomes a model; each plugin says which families it knows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, cast

import torch
from pydantic import ValidationError
from torch import nn

from modalign.config import Config, ModelConfig
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.decoders.generating import GeneratorPreparer
from modalign.errors import ConfigError, ModelError
from modalign.integrations import peft
from modalign.integrations.diffusers.assembly import PipelineAssembly
from modalign.integrations.diffusers.denoiser import PipelineDenoiser
from modalign.integrations.diffusers.family import Family, Pipeline
from modalign.integrations.diffusers.index import adapted, index, options_of
from modalign.integrations.diffusers.parts import place_of
from modalign.model import Model
from modalign.registration.targets import resolve
from modalign.registry import registry
from modalign.roles import Loader, MediaSettings
from modalign.world.source import words_modality

_LOG = logging.getLogger("modalign")


class PipelineLoader(Loader):
    """Pipelines of diffusers that make one modality.

    modality: what they make.
    families: by the name of the pipeline's class, the import string of the family.
    """

    modality: ClassVar[str]
    families: ClassVar[Mapping[str, str]]

    def claims(self, config: ModelConfig) -> bool:
        return self._pipeline(config)[1] in self.families

    def knows(self, config: ModelConfig) -> str | None:
        _, name = self._pipeline(config)
        return None if name is None else f"a pipeline {name}; of {self.modality}: {', '.join(sorted(self.families))}"

    def gives(self, config: ModelConfig) -> frozenset[str]:
        return frozenset({self.modality})

    def load(self, config: ModelConfig) -> Model:
        base, name = self._pipeline(config)
        assert name is not None
        family_class = cast("type[Family]", resolve(self.families[name]))
        _refuse(config)
        settings = _settings(family_class.options, config)
        family = family_class(load_pipeline(base, config), settings)
        media = _media(registry.modality(self.modality).settings, self.modality, config, family.decoding)
        denoiser = PipelineDenoiser(family, words=words_modality(), source=place_of(base, config.revision))
        preparer = GeneratorPreparer(self.modality, denoiser.words, family.fitting, media, family.rate)
        adapters = peft.adapt(denoiser.network, config, base=base)
        if config.gradient_checkpointing:
            _recompute(denoiser.network)
        return Model(
            assembly=PipelineAssembly(denoiser, preparer, adapters),
            decoders={self.modality: DenoisingDecoder(denoiser, modality=self.modality)},
        )

    def _pipeline(self, config: ModelConfig) -> tuple[str, str | None]:
        """Where the pipeline lies, and the name of its class."""
        base = adapted(config.path) or config.path
        said = index(base, config.revision)
        name = None if said is None else said.get("_class_name")
        return base, name if isinstance(name, str) else None


def load_pipeline(path: str, config: ModelConfig) -> Pipeline:
    """The pipeline, by diffusers' own loading: the one place where weights are read."""
    from diffusers.pipelines.pipeline_utils import DiffusionPipeline
    from diffusers.utils import logging as quiet

    quiet.disable_progress_bar()
    kind = config.dtype
    if kind == "auto":
        kind = "bfloat16" if torch.cuda.is_available() else "float32"
    here = Path(path).is_dir()
    try:
        pipe = DiffusionPipeline.from_pretrained(
            path,
            dtype=getattr(torch, kind),
            revision=None if here else config.revision,
            local_files_only=here,
            use_safetensors=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"the pipeline {path!r} cannot be loaded",
            got=f"{type(error).__name__}: {' '.join(str(error).split())[:600]}",
            fix="check that the folder is complete and its weights are safetensors; a file that is no safetensors may "
            "be a pickle, which is not read",
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return cast(Pipeline, pipe)


def _refuse(config: ModelConfig) -> None:
    """Settings of language models that would do nothing here."""
    for name, idle in {
        "encoders": not config.encoders,
        "chat_template": config.chat_template is None,
        "attn_implementation": config.attn_implementation is None,
        "trust_remote_code": not config.trust_remote_code,
        "freeze": config.freeze is None,  # an adapter or the whole network trains, and nothing else ever does
        "sharing": config.sharing == "auto",
    }.items():
        if not idle:
            raise ConfigError("a generator has no such setting", where=f"model.{name}", fix="remove it")


def _settings(options: type[Config], config: ModelConfig) -> Config:
    said = {**options_of(config.path), **config.options}
    try:
        return options.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"{first['loc'][0] if first['loc'] else 'options'}: {first['msg']}",
            where="model.options",
            got=repr(first["input"]),
            fix=f"settings: {', '.join(options.model_fields)}",
        ) from error


def _media(kind: type[MediaSettings], modality: str, config: ModelConfig, usual: Mapping[str, object]) -> MediaSettings:
    if others := sorted(set(config.media) - {modality}):
        raise ConfigError(
            f"this model reads no {others[0]}",
            where="model.media",
            got=", ".join(config.media),
            fix=f"say how {modality} is decoded",
        )
    try:
        return kind.model_validate({**usual, **config.media.get(modality, {})})
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            first["msg"],
            where=f"model.media.{modality}.{'.'.join(map(str, first['loc']))}",
            got=repr(first["input"]),
            fix=f"settings: {', '.join(kind.model_fields)}",
        ) from error


def _recompute(network: nn.Module) -> None:
    enable = getattr(network, "enable_gradient_checkpointing", None)
    if enable is None or not getattr(network, "_supports_gradient_checkpointing", False):
        raise ModelError(
            "this family cannot recompute its activations",
            got=type(network).__name__,
            fix="set gradient_checkpointing=False",
        )
    enable()
