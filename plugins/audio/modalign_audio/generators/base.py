"""What all generators of sound share: how sounds are fitted, and how a pipeline is asked for one.

b sounds, c channels, s samples, d channels of the latents, t their frames.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, cast, final

import torch
from einops import rearrange, reduce, repeat
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor, nn

from modalign.config import Config, GenerationConfig
from modalign.content import Part
from modalign.decoders.generating import Fit
from modalign.errors import ConfigError, DataError
from modalign.frozen import empty
from modalign.integrations.diffusers.family import Family, Pipeline, type_of
from modalign.roles import Content
from modalign.timeline import Timeline


class AudioOptions(Config):
    """Settings of generators of sounds."""

    seconds: PositiveFloat | None = None
    """Length of a sound, in seconds; by default what the network was made for."""

    duration_buckets: tuple[PositiveFloat, ...] = ()
    """Lengths in seconds, of which a sound is cut or filled to the nearest; those of a pair to that of the chosen."""

    tolerance: NonNegativeFloat = 0.25
    """How far the lengths of two sounds of one comparison may differ, as a share, before the row is bad: both are cut
    or filled with silence to one length, and the preference may have been about what is cut off."""


@final
@dataclass(frozen=True)
class SoundFit(Fit):
    """Sounds to ``c s`` of float32: the channels mixed or repeated, the beginning kept, silence after it.

    channels: of the model.
    samples: that are kept, at the model's rate: what it is asked for.
    window: samples that come out, where the network always sees more than it is asked for.
    tolerance: of lengths in a comparison.
    asked: the length, where a network that makes several is told of it.
    """

    channels: int
    samples: int
    window: int
    tolerance: float = 0.25
    asked: Mapping[str, object] = field(default_factory=empty)

    def __call__(self, content: Content) -> Tensor:
        sound = content.tensor.float()
        if not sound.shape[-1]:
            raise DataError("a sound without samples", field="audio", got="a length of 0", fix="remove the row")
        if sound.shape[0] != self.channels:
            sound = repeat(reduce(sound, "c s -> s", "mean"), "s -> c s", c=self.channels)
        kept = sound[:, : self.samples]
        return nn.functional.pad(kept, (0, self.window - kept.shape[-1])).contiguous()

    def seconds(self, fitted: Tensor, rate: float | None) -> float | None:
        return None if rate is None else fitted.shape[-1] / rate

    def check(self, contents: Sequence[Content]) -> None:
        lengths = [one.tensor.shape[-1] / (one.rate or 1.0) for one in contents]
        if lengths and max(lengths) > min(lengths) * (1 + self.tolerance):
            raise DataError(
                "the sounds of this comparison differ in length",
                field="rejected",
                got=f"from {min(lengths):.4g} to {max(lengths):.4g} s",
                fix="leave the row out (on_bad_row: skip), or raise model.options.tolerance: all are cut or filled "
                f"with silence to {self.samples} samples",
            )

    def gap(self, contents: Sequence[Content]) -> tuple[float, ...]:
        """By the length of the first, which is a pair's chosen."""
        return (abs(math.log(max(contents[0].tensor.shape[-1], 1) / self.samples)),)


class _Spread(Protocol):
    """The distribution that an autoencoder gives."""

    def mode(self) -> Tensor: ...


class _Encoded(Protocol):
    """What an autoencoder of diffusers gives."""

    latent_dist: _Spread


class _Autoencoder(Protocol):
    """An autoencoder of diffusers."""

    def encode(self, sound: Tensor) -> _Encoded: ...


class _Made(Protocol):
    """What a pipeline gives."""

    audios: Tensor


class AudioFamily(Family):
    """A family that makes sounds; its autoencoder is Oobleck's, of waves, unless it says otherwise.

    together: whether a prompt gets the same sound from the pipeline whatever prompts are beside it.
    told: whether the network is told, by what conditions it, how long a sound is.
    """

    modality: ClassVar[str] = "audio"
    options: ClassVar[type[Config]] = AudioOptions
    together: ClassVar[bool] = True
    told: ClassVar[bool] = True

    def __init__(self, pipe: Pipeline, settings: Config) -> None:
        super().__init__(pipe, settings)
        said = cast(AudioOptions, settings)
        self.seconds = self._made(said.seconds or self.usual, "seconds")
        for seconds in said.duration_buckets:
            self._made(seconds, "duration_buckets")

    def _made(self, seconds: float, setting: str) -> float:
        """A length that it makes; a `ConfigError` where it makes none of it."""
        least, most = self.least / self.rate, self.most
        if seconds < least or (most is not None and seconds > most):
            raise ConfigError(
                "this model makes no sound of that length",
                where=f"model.options.{setting}",
                got=f"{seconds:g} s",
                fix=f"at least {least:.4g} s" + ("" if most is None else f" and at most {most:.6g} s"),
            )
        return seconds

    # --- what a family says ----------------------------------------------------------------------

    @property
    @abstractmethod
    def usual(self) -> float:
        """Seconds that the network was made for."""

    @property
    def most(self) -> float | None:
        """Seconds of the longest sound; None where there is none."""
        return None

    @property
    def least(self) -> int:
        """Samples of the shortest sound."""
        return self.hop

    @property
    def rate(self) -> float:
        return float(cast(int, self.configured(self.autoencoder)["sampling_rate"]))

    @property
    def channels(self) -> int:
        """1, or left and right."""
        return cast(int, self.configured(self.autoencoder)["audio_channels"])

    @property
    def hop(self) -> int:
        """Samples of one frame of the latents."""
        return cast(int, self.part(self.autoencoder).hop_length)

    @property
    def timeline(self) -> Timeline:
        return Timeline(axis=1, each=self.hop / self.rate)  # of latents ``d t ...``

    @property
    def window(self) -> int:
        """Samples that the network sees: whole frames of the latents."""
        return -(-self.samples // self.hop) * self.hop

    @abstractmethod
    def asked(self) -> dict[str, object]:
        """What the pipeline is asked beside prompts: how long the sound shall be."""

    # --- what families share ---------------------------------------------------------------------

    @property
    def samples(self) -> int:
        """Samples of ``seconds``, rounded down as the pipelines do."""
        return int(self.seconds * self.rate)

    @property
    def fit(self) -> Fit:
        said = cast(AudioOptions, self.settings)
        return SoundFit(
            channels=self.channels,
            samples=min(self.samples, self.window),
            window=self.window,
            tolerance=said.tolerance,
            asked={"seconds": self.seconds} if said.duration_buckets and self.told else empty(),
        )

    @property
    def sizes(self) -> Sequence[Mapping[str, object]]:
        return [{"seconds": seconds} for seconds in cast(AudioOptions, self.settings).duration_buckets]

    @property
    def decoding(self) -> Mapping[str, object]:
        return {"channels": "mono" if self.channels == 1 else "stereo"}

    def encode(self, media: Tensor) -> Tensor:
        return self.scaled(self.posterior(media))

    def scaled(self, latents: Tensor) -> Tensor:
        return latents.float()  # Oobleck's bottleneck keeps latents near unit variance, so that nothing scales them

    def parts(self, media: Sequence[Tensor]) -> list[Part]:
        facts = {"sampling_rate": int(self.rate)}
        return [Part(modality="audio", value=one.cpu(), facts=facts) for one in media]

    def make(self, prompts: Sequence[str], sources: list[torch.Generator], config: GenerationConfig) -> list[Tensor]:
        """Sounds ``c s`` from -1 to 1."""
        size = len(prompts) if self.together else 1
        found: list[Tensor] = []
        for start in range(0, len(prompts), max(size, 1)):
            some = list(prompts[start : start + size])
            made = self.pipe(
                generator=sources[start : start + size],
                output_type="pt",
                **{**self.sampling(config), **self.asked(), **self.prompted(some, start)},
            )
            found += cast(_Made, made).audios
        return [_layered(one.float().to(self.device)) for one in found]  # some pipelines take them from the device

    def posterior(self, media: Tensor) -> Tensor:
        """The mode of the distribution that the autoencoder gives."""
        autoencoder = self.part(self.autoencoder)
        return cast(_Autoencoder, autoencoder).encode(media.to(type_of(autoencoder))).latent_dist.mode()


def _layered(sound: Tensor) -> Tensor:
    """``c s``, of which some pipelines leave the channels out."""
    return rearrange(sound, "s -> 1 s") if sound.ndim == 1 else sound
