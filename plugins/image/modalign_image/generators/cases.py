"""The laws of every family of pictures, each on its tiny pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, cast

from torch import Tensor

from modalign.comparison import Comparison
from modalign.data import read
from modalign.integrations.diffusers.family import Family
from modalign.integrations.diffusers.laws import FamilyLaws
from modalign_image.generators import testing, testing_unet
from modalign_image.generators.base import ImageFamily, unpacked

_SIZE: Final = MappingProxyType({"height": 16, "width": 16})

#: By the name of the family, what makes its laws in an empty folder.
CASES: Final[Mapping[str, Callable[[Path], FamilyLaws]]] = MappingProxyType(
    {
        "sd": lambda folder: _laws(testing_unet.stable_diffusion(folder)),
        "sd-v": lambda folder: _laws(testing_unet.stable_diffusion(folder, "v_prediction")),
        "sdxl": lambda folder: _laws(testing_unet.stable_diffusion_xl(folder)),
        "sd3": lambda folder: _laws(testing.stable_diffusion_3(folder)),
        # the laws ask the pipeline for a guidance of 0
        "flux": lambda folder: _packed(testing.flux(folder), guidance=0.0),
        "qwen-image": lambda folder: _packed(testing.qwen_image(folder)),
        "sana": lambda folder: _laws(testing.sana(folder), height=32, width=32),
        "pixart": lambda folder: _halved(testing.pixart(folder)),
    }
)

#: Other networks and autoencoders of the same families.
VARIANTS: Final[Mapping[str, Callable[[Path], FamilyLaws]]] = MappingProxyType(
    {
        "sdxl-standardized": lambda folder: _laws(
            testing_unet.stable_diffusion_xl(
                folder, latents_mean=(-1.6, 1.1, 3.3, -0.3), latents_std=(8.4, 5.9, 6.0, 4.2)
            )
        ),
        "sdxl-wide": lambda folder: _laws(testing_unet.stable_diffusion_xl(folder), width=32),
        "flux-wide": lambda folder: _packed(testing.flux(folder), guidance=0.0, width=32),
        "flux-plain": lambda folder: _packed(testing.flux(folder, guidance_embeds=False)),
        "qwen-image-wide": lambda folder: _packed(testing.qwen_image(folder), width=32),
        "pixart-alpha": lambda folder: _halved(testing.pixart(folder, "PixArtAlphaPipeline", told=True), width=32),
    }
)


def laws(name: str, folder: Path) -> FamilyLaws:
    """The laws of one family, or of a variant."""
    return {**CASES, **VARIANTS}[name](folder)


def rows() -> list[Comparison]:
    """Two pairs of pictures."""
    data = read("oracle", split="image/shared-defect", limit=2)
    return [data[number] for number in range(len(data))]


def _laws(folder: Path, **options: object) -> FamilyLaws:
    return FamilyLaws(folder, rows(), {**_SIZE, **options})


def _packed(folder: Path, **options: object) -> FamilyLaws:
    """Of a network that reads patches of 2 by 2, and times from 0 to 1."""

    def seen(family: Family, given: Mapping[str, object]) -> tuple[Tensor, Tensor]:
        return _unpacked(family, cast(Tensor, given["hidden_states"])), cast(Tensor, given["timestep"]).double()

    return FamilyLaws(folder, rows(), {**_SIZE, **options}, seen=seen, shaped=_unpacked)


def _unpacked(family: Family, tokens: Tensor) -> Tensor:
    family = cast(ImageFamily, family)
    height, width = (pixels // family.down for pixels in family.size)
    return unpacked(tokens, height, width)


def _halved(folder: Path, **options: object) -> FamilyLaws:
    """Of a network that predicts a variance too."""

    def shaped(family: Family, prediction: Tensor) -> Tensor:
        return prediction[:, :4]

    return FamilyLaws(folder, rows(), {**_SIZE, **options}, shaped=shaped)
