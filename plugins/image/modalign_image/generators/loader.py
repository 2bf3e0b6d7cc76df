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
            "FluxPipeline": f"{_HERE}.flux:Flux",
            "PixArtAlphaPipeline": f"{_HERE}.pixart:PixArt",
            "PixArtSigmaPipeline": f"{_HERE}.pixart:PixArt",
            "QwenImagePipeline": f"{_HERE}.qwen_image:QwenImage",
            "SanaPipeline": f"{_HERE}.sana:Sana",
            "StableDiffusion3Pipeline": f"{_HERE}.stable_diffusion_3:StableDiffusion3",
            "StableDiffusionPipeline": f"{_HERE}.stable_diffusion:StableDiffusion",
            "StableDiffusionXLPipeline": f"{_HERE}.stable_diffusion_xl:StableDiffusionXL",
        }
    )
