"""Which pipelines of pictures can be trained."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar, final

from modalign.integrations.diffusers.loader import PipelineLoader

_HERE = "modalign_image.generators"


@final
class ImagePipelineLoader(PipelineLoader):
    """Pipelines of diffusers that make pictures."""

    modality: ClassVar[str] = "image"
    families: ClassVar[Mapping[str, str]] = MappingProxyType(
        {
            "StableDiffusion3Pipeline": f"{_HERE}.stable_diffusion_3:StableDiffusion3",
        }
    )
