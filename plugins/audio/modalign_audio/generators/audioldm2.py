"""AudioLDM 2: a U-Net over latents of spectrograms that reads a language model's states beside those of T5.

Liu et al., https://arxiv.org/abs/2308.05734.

b sounds, s samples, d channels of the latents, t frames, m bands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Protocol, cast, final

from einops import rearrange
from torch import Tensor, nn

from modalign.config import Config
from modalign.errors import ModelError
from modalign.integrations.diffusers.family import Pipeline, called
from modalign_audio.generators.base import AudioFamily
from modalign_audio.generators.mel import log_mel

_RATE, _SIZE = 16000, 1024  #: the one rate at which it is known how many samples a frame of the spectrogram looks at


class _Vocoder(Protocol):
    """The settings of what makes sounds of spectrograms."""

    sampling_rate: int
    model_in_dim: int
    upsample_rates: Sequence[int]


class _Reader(Protocol):
    """The settings of what reads prompts."""

    model_type: str


@final
class AudioLDM2(AudioFamily):
    """AudioLDM 2 for sounds and for music.

    Prompts are written one at a time: the pipeline fills them up to the longest of a batch, and its language model
    counts what is filled up.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("AudioLDM2Pipeline",)
    network: ClassVar[str] = "unet"
    texts: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2", "projection_model", "language_model")
    together: ClassVar[bool] = False
    told: ClassVar[bool] = False
    spoken: ClassVar[Mapping[str, str]] = MappingProxyType(
        {"states": "prompt_embeds", "generated": "generated_prompt_embeds", "mask": "attention_mask"}
    )

    def __init__(self, pipe: Pipeline, settings: Config) -> None:
        super().__init__(pipe, settings)
        reader = cast(_Reader, self.part("text_encoder_2").config).model_type
        if reader == "vits":
            raise ModelError(
                "this model speaks what it is given to read, and a prompt here says only what is to be heard",
                got=f"a text encoder {reader}",
                fix="train a model whose second text encoder is a T5",
            )
        if self.rate != _RATE:
            raise ModelError(
                "nothing says how the spectrograms of this model are made",
                where="vocoder.sampling_rate",
                got=f"{self.rate:g} Hz",
                fix=f"train a model of {_RATE} Hz",
            )

    @property
    def readers(self) -> dict[str, tuple[nn.Module, ...]]:
        """The vocoder too: its settings say what a spectrogram is, and it must be where the autoencoder is."""
        found = super().readers
        return {**found, "latents": (*found["latents"], self.part("vocoder"))}

    @property
    def usual(self) -> float:
        return cast(int, self.configured(self.network)["sample_size"]) * self.hop / self.rate

    @property
    def least(self) -> int:
        return max(self.hop, _SIZE)

    @property
    def rate(self) -> float:
        return float(self._vocoder.sampling_rate)

    @property
    def channels(self) -> int:
        return 1

    @property
    def hop(self) -> int:
        return self._frame * cast(int, getattr(self.pipe, "vae_scale_factor", 4))

    @property
    def window(self) -> int:
        frames = int(self.seconds / (self._frame / self.rate))  # as the pipeline counts, with its rounding
        return -(-frames * self._frame // self.hop) * self.hop

    def asked(self) -> dict[str, object]:
        return {"audio_length_in_s": self.seconds}

    def encode(self, media: Tensor) -> Tensor:
        sound = rearrange(media, "b 1 s -> b s")
        seen = log_mel(sound, int(self.rate), bands=self._vocoder.model_in_dim, size=_SIZE, hop=self._frame)
        return self.scaled(self.posterior(rearrange(seen, "b t m -> b 1 t m")))

    def scaled(self, latents: Tensor) -> Tensor:
        return latents.float() * cast(float, self.configured(self.autoencoder)["scaling_factor"])

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        states, mask, generated = self.pipe.encode_prompt(prompts, self.device, 1, False)
        return {"states": states, "mask": mask, "generated": generated}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        return called(
            self.denoise,
            sample=noisy,
            timestep=self.clock(time, noisy),
            encoder_hidden_states=condition["generated"],
            encoder_hidden_states_1=condition["states"],
            encoder_attention_mask_1=condition["mask"],
        )

    @property
    def _vocoder(self) -> _Vocoder:
        return cast(_Vocoder, self.part("vocoder").config)

    @property
    def _frame(self) -> int:
        """Samples of one frame of the spectrogram."""
        return math.prod(self._vocoder.upsample_rates)
