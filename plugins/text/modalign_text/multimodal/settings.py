"""How the media of a model are decoded: what its config says, what was saved with it, and what it can take at all."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError
from transformers import PreTrainedModel, ProcessorMixin

from modalign.config import ModelConfig
from modalign.errors import ConfigError, PluginError
from modalign.registry import registry
from modalign.roles import MediaSettings
from modalign_text.config import Source
from modalign_text.multimodal.assembly import saved_media

_LOG: Final = logging.getLogger("modalign")


def media_settings(
    library: PreTrainedModel, processor: ProcessorMixin, source: Source, config: ModelConfig
) -> dict[str, MediaSettings]:
    """How the media this model takes are decoded: what the config says, else what was saved with the model.

    A modality that its processor has a placeholder for, that the family lists, and whose plugin is installed.
    """
    saved = {} if source.folder is None else saved_media(source.folder)
    return settings_of(listed(library, processor), config.media, saved, library)


def listed(library: PreTrainedModel, processor: ProcessorMixin) -> list[str]:
    """The media that a family takes and its processor has a placeholder for."""
    listed = [name for name in library.input_modalities if name != "text"]
    if getattr(processor, "video_processor", None) is not None and "video" not in listed:
        listed.append("video")  # a family that reads clips as pictures one behind the other does not list them
    return [name for name in listed if getattr(processor, f"{name}_token", None) is not None]


def settings_of(
    names: list[str],
    asked: Mapping[str, Mapping[str, object]],
    saved: Mapping[str, Mapping[str, object]],
    library: PreTrainedModel,
) -> dict[str, MediaSettings]:
    """Checked settings of each modality.

    asked: by the config; they go before those saved.
    """
    if unknown := sorted(set(asked) - set(names)):
        raise ConfigError(
            f"{type(library).__name__} takes no {unknown[0]}",
            where=f"model.media.{unknown[0]}",
            got=f"it takes text, {', '.join(names)}",
            fix="remove the section, or use a model that takes it",
        )
    found: dict[str, MediaSettings] = {}
    for name in names:
        try:
            kind = registry.modality(name).settings
        except PluginError as error:
            _LOG.warning("this model could take %s, but its plugin is not here: %s", name, error)
            continue
        try:
            found[name] = kind.model_validate({**saved.get(name, {}), **asked.get(name, {})})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(["model", "media", name, *map(str, first["loc"])])
            known = ", ".join(kind.model_fields)
            raise ConfigError(first["msg"], where=where, got=repr(first["input"]), fix=f"settings: {known}") from error
    if getattr(found.get("video"), "audio", False) and "audio" not in found:
        raise ConfigError(
            f"{type(library).__name__} takes no audio, and would not hear the sound of a clip",
            where="model.media.video.audio",
            got=f"true; it takes text, {', '.join(found)}",
            fix="set it to false, or use a model that takes audio beside video",
        )
    return found
