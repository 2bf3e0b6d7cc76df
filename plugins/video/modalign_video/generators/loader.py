"""Which pipelines of clips can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, Final, final

from modalign.config import ModelConfig
from modalign.errors import ConfigError
from modalign.integrations.diffusers.loader import PipelineLoader
from modalign.model import Model

_HERE: Final = "modalign_video.generators"
_SAMPLED: Final = ("frames", "fps", "times")


@final
class VideoPipelineLoader(PipelineLoader):
    """Pipelines of diffusers that make clips."""

    modality: ClassVar[str] = "video"
    families: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "CogVideoXPipeline": f"{_HERE}.cogvideox:CogVideoX",
            "LTXPipeline": f"{_HERE}.ltx:LTX",
            "WanPipeline": f"{_HERE}.wan:Wan",
        }
    )

    def load(self, config: ModelConfig) -> Model:
        said = config.media.get(self.modality, {})
        for name in _SAMPLED:
            if said.get(name) is not None:
                raise ConfigError(
                    "a generator takes clips at its own rate, from their beginning",
                    where=f"model.media.{self.modality}.{name}",
                    got=said[name],
                    fix="remove it, and say model.options.fps and num_frames",
                )
        return super().load(config)
