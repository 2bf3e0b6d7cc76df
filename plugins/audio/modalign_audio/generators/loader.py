"""Which pipelines of sounds can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import ClassVar, final

from modalign.config import ModelConfig
from modalign.errors import MissingExtra
from modalign.integrations.diffusers.index import index
from modalign.integrations.diffusers.loader import PipelineLoader
from modalign.model import Model

_HERE = "modalign_audio.generators"
_NOISY = "CosineDPMSolverMultistepScheduler"  #: adds noise while it samples, which it has torchsde draw


@final
class AudioPipelineLoader(PipelineLoader):
    """Pipelines of diffusers that make sounds."""

    modality: ClassVar[str] = "audio"
    families: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "AceStepPipeline": f"{_HERE}.ace_step:AceStep",
            "AudioLDM2Pipeline": f"{_HERE}.audioldm2:AudioLDM2",
            "StableAudioPipeline": f"{_HERE}.stable_audio:StableAudio",
        }
    )

    def load(self, config: ModelConfig) -> Model:
        base, name = self._pipeline(config)
        scheduler = (index(base, config.revision) or {}).get("scheduler")
        if isinstance(scheduler, list) and _NOISY in scheduler and find_spec("torchsde") is None:
            raise MissingExtra(
                f"{name} samples with a scheduler that needs torchsde",
                where="scheduler",
                got=f"{_NOISY}, and torchsde is not installed",
                fix="pip install torchsde",
            )
        return super().load(config)
