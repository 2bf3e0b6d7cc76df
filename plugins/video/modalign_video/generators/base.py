"""What all generators of clips share: how clips are fitted, and how a pipeline is asked for one.

b samples, t frames, c channels, h w pixels.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast, final

import torch
from einops import rearrange
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from modalign.config import Config, GenerationConfig
from modalign.content import Part
from modalign.decoders.generating import Fit
from modalign.errors import ConfigError, DataError, ModelError
from modalign.integrations.diffusers.family import Pipeline
from modalign.roles import Content
from modalign.timeline import Timeline
from modalign_image.generators.base import ImageFamily, PictureFit, PromptOptions
from modalign_image.generators.shapes import check_shapes, shape_gap


class VideoOptions(PromptOptions):
    """Settings of generators of clips."""

    num_frames: PositiveInt | None = None
    """Frames of a clip; by default what the network was made for. Data's clips are cut to so many."""

    frame_buckets: tuple[PositiveInt, ...] = ()
    """Numbers of frames, of which a clip is cut to the longest that it has; those of a pair to one that both have."""

    fps: float | None = Field(default=None, ge=0.001, le=1000, allow_inf_nan=False)
    """Frames per second that clips are decoded, and written, at; by default what the network was made for."""

    length_tolerance: NonNegativeFloat = 0.25
    """How far the lengths of two clips of one comparison may differ, as a share, before the row is bad: both are cut to
    the same length, and the preference may have been about what is cut off."""


@final
@dataclass(frozen=True, kw_only=True)
class ClipFit(Fit):
    """Clips to ``t 3 h w`` of uint8: the first frames, each fitted as a picture.

    height, width: pixels.
    frames: of a clip.
    fps: frames per second; clips are decoded at it.
    step: frames that a clip may be longer or shorter by, beside the first one.
    aspect_tolerance: of aspect ratios in a comparison.
    length_tolerance: of lengths in a comparison.
    """

    height: int
    width: int
    frames: int
    fps: float
    step: int
    aspect_tolerance: float = 0.25
    length_tolerance: float = 0.25

    def __call__(self, content: Content) -> Tensor:
        clip = content.tensor
        if content.rate != self.fps:
            raise ModelError(
                f"this model takes clips of {self.fps:g} frames per second",
                got=f"one decoded at {content.rate}",
                fix="decode it at the model's rate",
            )
        if len(clip) < self.frames:
            raise self._short(len(clip))
        fit = PictureFit(self.height, self.width)
        return torch.stack([fit(Content(modality="image", tensor=frame)) for frame in clip[: self.frames]])

    def seconds(self, fitted: Tensor, rate: float | None) -> float | None:
        return len(fitted) / self.fps

    def check(self, contents: Sequence[Content]) -> None:
        check_shapes(contents, self.aspect_tolerance, (self.height, self.width), "clips")
        lengths = [len(one.tensor) / self.fps for one in contents]
        if lengths and max(lengths) > min(lengths) * (1 + self.length_tolerance):
            raise DataError(
                "the clips of this comparison differ in length",
                field="rejected",
                got=f"{min(lengths):.2f} to {max(lengths):.2f} seconds",
                fix="leave the row out (on_bad_row: skip), or raise model.options.length_tolerance: all are cut to the "
                f"first {self.frames / self.fps:.2f} seconds",
            )

    def gap(self, contents: Sequence[Content]) -> tuple[float, ...]:
        """By frames that the shortest does not have, then by those of the first that are cut off, then by shape."""
        missing = max(self.frames - min(len(one.tensor) for one in contents), 0)
        return (missing, -self.frames, shape_gap(contents, (self.height, self.width)))

    def _short(self, found: int) -> DataError:
        most = (found - 1) // self.step * self.step + 1
        return DataError(
            f"a clip that is shorter than the {self.frames} frames that are asked for",
            got=f"{found} at {self.fps:g} frames per second",
            fix="leave the row out (on_bad_row: skip)"
            + (
                f", or set model.options.num_frames={most}"
                if most > 1
                else f": the model makes one latent of each {self.step} frames after the first"
            ),
        )


class VideoFamily(ImageFamily):
    """A family that makes clips: its frames are fitted, and made bytes to numbers, as pictures are.

    spatial, temporal: the pipeline's names for how many pixels, and how many frames, one latent stands for.
    """

    modality: ClassVar[str] = "video"
    options: ClassVar[type[Config]] = VideoOptions
    spatial: ClassVar[str] = "vae_scale_factor_spatial"
    temporal: ClassVar[str] = "vae_scale_factor_temporal"

    def __init__(self, pipe: Pipeline, settings: Config) -> None:
        super().__init__(pipe, settings)
        said = cast(VideoOptions, settings)
        self.fps = said.fps or self.usual_fps
        self.frames = said.num_frames or self.usual_frames
        for name, frames in (("num_frames", self.frames), *(("frame_buckets", one) for one in said.frame_buckets)):
            if (frames - 1) % self.step:
                below = (frames - 1) // self.step * self.step + 1
                raise ConfigError(
                    "this model makes no clip of that length",
                    where=f"model.options.{name}",
                    got=f"{frames} frames",
                    fix=f"one more than a multiple of {self.step}: {below} or {below + self.step}",
                )

    @property
    def rate(self) -> float | None:
        return self.fps

    @property
    @abstractmethod
    def usual_fps(self) -> float:
        """Frames per second that the network was made for, which its pipeline does not say."""

    @property
    def usual_frames(self) -> int:
        """Frames that the network was made for."""
        return self.default("num_frames")

    @property
    def usual(self) -> tuple[int, int]:
        return self.default("height"), self.default("width")

    @property
    def sizes(self) -> Sequence[Mapping[str, object]]:
        shapes = super().sizes
        lengths = [{"num_frames": frames} for frames in cast(VideoOptions, self.settings).frame_buckets]
        if not shapes or not lengths:
            return [*shapes, *lengths]
        return [{**shape, **length} for shape in shapes for length in lengths]

    @property
    def down(self) -> int:
        return int(getattr(self.pipe, self.spatial))

    @property
    def step(self) -> int:
        """Frames that a clip may be longer or shorter by, beside the first one: those of one latent."""
        return int(getattr(self.pipe, self.temporal))

    @property
    def timeline(self) -> Timeline:
        # of latents ``c t h w``: the first one is of the first frame alone, as all of these autoencoders are causal
        return Timeline(axis=1, each=self.ratio / self.fps, first=1 / self.fps)

    @property
    def ratio(self) -> int:
        """Frames of one latent after the first."""
        return int(getattr(self.pipe, self.temporal))

    @property
    def fit(self) -> Fit:
        height, width = self.size
        said = cast(VideoOptions, self.settings)
        return ClipFit(
            height=height,
            width=width,
            frames=self.frames,
            fps=self.fps,
            step=self.step,
            aspect_tolerance=said.aspect_tolerance,
            length_tolerance=said.length_tolerance,
        )

    def pixels(self, media: Tensor) -> Tensor:
        """Clips ``b t c h w`` of bytes as ``b c t h w`` from -1 to 1, of the autoencoder's type."""
        return super().pixels(rearrange(media, "b t c h w -> b c t h w"))

    def limit(self) -> dict[str, object]:
        """How long prompts are read, in training as in writing: networks that see no mask see the padding.

        A pipeline's `encode_prompt` may have another default than its call has, which is the one that counts.
        """
        return super().limit() or {"max_sequence_length": self.default("max_sequence_length")}

    def asked(self, config: GenerationConfig) -> dict[str, object]:
        return {**super().asked(config), "num_frames": self.frames}

    def parts(self, media: Sequence[Tensor]) -> list[Part]:
        return [Part(modality="video", value=one.cpu(), facts={"fps": self.fps}) for one in media]

    def make(self, prompts: Sequence[str], sources: list[torch.Generator], config: GenerationConfig) -> list[Tensor]:
        """Clips ``t 3 h w`` from 0 to 1."""
        height, width = self.size
        found = self.pipe(
            height=height,
            width=width,
            generator=sources,
            output_type="pt",
            **{**self.sampling(config), **self.asked(config), **self.prompted(prompts)},
        )
        clips = cast(Tensor, found.frames)  # pyright: ignore[reportAttributeAccessIssue] - one class per pipeline
        return [one.float().clamp(0, 1) for one in clips]

    def default(self, name: str) -> int:
        """What the pipeline takes for an argument where nothing is said."""
        return int(cast(int, inspect.signature(type(self.pipe).__call__).parameters[name].default))
