"""What all generators of pictures share: how pictures are fitted, and how a pipeline is asked for one.

b samples, c channels, h w pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol, cast, final

import torch
from einops import rearrange
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor

from modalign.config import Config, GenerationConfig
from modalign.content import Part
from modalign.decoders.generating import Fit
from modalign.errors import ConfigError
from modalign.integrations.diffusers.family import Family, Pipeline, type_of
from modalign.roles import Content
from modalign_image.generators.shapes import aspect_sizes, check_buckets, check_shapes, shape_gap

_LONGEST: Final = 4  #: times what is kept of a side, the most of it that is resized


class ImageOptions(Config):
    """Settings of generators of pictures."""

    height: PositiveInt | None = None
    """Pixels; by default what the network was made for."""

    width: PositiveInt | None = None
    """Pixels; by default what the network was made for."""

    aspect_buckets: bool | tuple[tuple[PositiveInt, PositiveInt], ...] = False
    """Sizes, height and width, of which a picture is fitted to the one that is nearest in shape; of equal area, a
    quarter more or less. `true` makes them: from half to twice as wide as high."""

    aspect_tolerance: NonNegativeFloat = 0.25
    """How far the aspect ratios of two pictures of one comparison may differ, as a share, before the row is bad: both
    are cropped to the same size, and the preference may have been about what is cut off."""

    vae_tiling: bool = False
    """The autoencoder takes large pictures tile by tile, which needs less memory and gives slightly other latents."""


class PromptOptions(ImageOptions):
    """Settings of those whose text encoder has no fixed length."""

    max_sequence_length: PositiveInt | None = None
    """Most tokens of a prompt; by default the pipeline's own."""


@final
@dataclass(frozen=True)
class PictureFit(Fit):
    """Pictures to ``3 h w`` of uint8: the shorter edge resized, and the middle cropped.

    height, width: pixels.
    tolerance: of aspect ratios in a comparison.
    """

    height: int
    width: int
    tolerance: float = 0.25

    def __call__(self, content: Content) -> Tensor:
        from torchvision.transforms.v2.functional import center_crop, resize

        picture = content.tensor
        picture = picture[:3] if picture.shape[0] >= 3 else picture[:1].expand(3, -1, -1)
        scale = max(self.height / picture.shape[-2], self.width / picture.shape[-1])
        # of a picture 1 pixel high and 10000 wide not all is resized: it would take gigabytes, and the middle is kept
        wanted = [_LONGEST * math.ceil(side / scale) for side in (self.height, self.width)]
        picture = center_crop(picture, [min(pair) for pair in zip(picture.shape[-2:], wanted, strict=True)])
        size = [math.ceil(round(side * scale, 6)) for side in picture.shape[-2:]]
        resized = picture if list(picture.shape[-2:]) == size else resize(picture, size, antialias=True)
        return center_crop(resized, [self.height, self.width]).contiguous()

    def check(self, contents: Sequence[Content]) -> None:
        check_shapes(contents, self.tolerance, (self.height, self.width), "pictures")

    def gap(self, contents: Sequence[Content]) -> tuple[float, ...]:
        return (shape_gap(contents, (self.height, self.width)),)


class _Autoencoder(Protocol):
    """An autoencoder of diffusers."""

    config: Mapping[str, object]

    def encode(self, pixels: Tensor) -> object: ...


class ImageFamily(Family):
    """A family that makes pictures."""

    modality: ClassVar[str] = "image"
    options: ClassVar[type[Config]] = ImageOptions

    def __init__(self, pipe: Pipeline, settings: Config) -> None:
        super().__init__(pipe, settings)
        self.size = self._size()
        if cast(ImageOptions, settings).vae_tiling:
            self._tile()

    def _size(self) -> tuple[int, int]:
        """Pixels that it makes: what is said, else what the network was made for."""
        said = cast(ImageOptions, self.settings)
        height, width = self.usual
        found = {"height": said.height or height, "width": said.width or width}
        for name, pixels in found.items():
            if pixels % self.multiple:
                raise ConfigError(
                    f"this model makes nothing of that {name}",
                    where=f"model.options.{name}",
                    got=f"{pixels} pixels",
                    fix=f"a multiple of {self.multiple}",
                )
        return found["height"], found["width"]

    def _tile(self) -> None:
        autoencoder = self.part(self.autoencoder)
        try:
            cast("Callable[[], None]", autoencoder.enable_tiling)()
        except (AttributeError, NotImplementedError) as error:
            raise ConfigError(
                "the autoencoder of this pipeline takes nothing tile by tile",
                where="model.options.vae_tiling",
                got=type(autoencoder).__name__,
                fix="leave it out; with less height and width it needs less memory",
            ) from error

    @property
    def sizes(self) -> Sequence[Mapping[str, object]]:
        said = cast(ImageOptions, self.settings).aspect_buckets
        if isinstance(said, bool):
            said = aspect_sizes(*self.size, self.multiple) if said else ()
        check_buckets(said, self.multiple)
        return [{"height": height, "width": width} for height, width in said]

    @property
    def usual(self) -> tuple[int, int]:
        """Pixels that the network was made for."""
        said = self.configured(self.network).get("sample_size") or getattr(self.pipe, "default_sample_size", 64)
        height, width = cast("tuple[int, int]", said if isinstance(said, list | tuple) else (said, said))
        return height * self.down, width * self.down

    @property
    def down(self) -> int:
        """Pixels of a side of a latent."""
        return int(cast(int, getattr(self.pipe, "vae_scale_factor", 8)))

    @property
    def multiple(self) -> int:
        """Pixels that a side is a whole number of: those of one patch of the network."""
        return self.down * int(cast(int, self.configured(self.network).get("patch_size") or 1))

    @property
    def fit(self) -> Fit:
        height, width = self.size
        return PictureFit(height, width, cast(ImageOptions, self.settings).aspect_tolerance)

    def encode(self, media: Tensor) -> Tensor:
        return self.scaled(self.posterior(self.pixels(media)))

    def parts(self, media: Sequence[Tensor]) -> list[Part]:
        return [Part(modality="image", value=one.cpu()) for one in media]

    def make(self, prompts: Sequence[str], sources: list[torch.Generator], config: GenerationConfig) -> list[Tensor]:
        """Pictures ``3 h w`` from 0 to 1."""
        height, width = self.size
        found = self.pipe(
            height=height,
            width=width,
            generator=sources,
            output_type="pt",
            **{**self.sampling(config), **self.asked(config), **self.prompted(prompts)},
        )
        pictures = cast(Tensor, found.images)  # pyright: ignore[reportAttributeAccessIssue] - one class per pipeline
        return [one.float().clamp(0, 1) for one in pictures]

    def asked(self, config: GenerationConfig) -> dict[str, object]:
        """What this family's pipeline is asked beside that."""
        return self.limit()

    # --- what families share ---------------------------------------------------------------------

    def limit(self) -> dict[str, object]:
        """How long prompts are read, where that is said: the same in training and in writing."""
        length = getattr(self.settings, "max_sequence_length", None)
        return {} if length is None else {"max_sequence_length": length}

    def pixels(self, media: Tensor) -> Tensor:
        """Pictures from -1 to 1, of the autoencoder's type."""
        return (media.float() / 127.5 - 1).to(type_of(self.part(self.autoencoder)))

    def posterior(self, pixels: Tensor) -> Tensor:
        """What the autoencoder gives: the mode of its distribution, where it has one."""
        found = cast(_Autoencoder, self.part(self.autoencoder)).encode(pixels)
        spread = getattr(found, "latent_dist", None)
        return cast(Tensor, spread.mode() if spread is not None else found.latent)  # pyright: ignore[reportAttributeAccessIssue]

    def scaled(self, latents: Tensor) -> Tensor:
        """Latents as the network knows them: shifted and scaled as the autoencoder's settings say."""
        said = self.configured(self.autoencoder)
        shift, scale = (
            float(cast(float, said.get(name) or usual))
            for name, usual in (("shift_factor", 0.0), ("scaling_factor", 1.0))
        )
        return (latents.float() - shift) * scale

    def standardized(self, latents: Tensor) -> Tensor:
        """Latents ``b c ...`` with the mean and the deviation of each channel taken out, where the autoencoder's
        settings say them."""
        mean, deviation = (self.configured(self.autoencoder).get(name) for name in ("latents_mean", "latents_std"))
        if mean is None or deviation is None:
            return latents.float()
        shape = (1, -1, *[1] * (latents.ndim - 2))
        mean, deviation = (
            torch.tensor(cast("list[float]", one), device=latents.device).reshape(shape) for one in (mean, deviation)
        )
        return (latents.float() - mean) / deviation


def packed(latents: Tensor) -> Tensor:
    """``b c h w`` to tokens of 2 by 2: ``b (h w / 4) (c 4)``, as Flux and Qwen-Image order them."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=2, q=2)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `packed`.

    height, width: of the latents.
    """
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=height // 2, w=width // 2, p=2, q=2)
