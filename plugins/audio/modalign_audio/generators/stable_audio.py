"""Stable Audio: a transformer over latents of waves that is told how long the sound is.

Evans et al., https://arxiv.org/abs/2402.04825 and https://arxiv.org/abs/2407.14358 (Stable Audio Open).

b sounds, n tokens, d width, t frames of the latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Protocol, cast, final

import torch
from diffusers.models.embeddings import get_1d_rotary_pos_embed
from torch import Tensor

from modalign.config import Config
from modalign.denoising import Process, check_prediction
from modalign.errors import ModelError
from modalign.integrations.diffusers.family import Pipeline, called
from modalign_audio.generators.base import AudioFamily

_SCHEDULER = "CosineDPMSolverMultistepScheduler"


class _Timed(Protocol):
    """A pipeline that is told how long a sound is."""

    rotary_embed_dim: int

    def encode_duration(
        self, start: float, end: float, device: torch.device, guided: bool, count: int, /
    ) -> tuple[Tensor, Tensor]: ...


@final
class StableAudio(AudioFamily):
    """Stable Audio Open 1.0.

    The network always makes the longest sound it can, is told which part of it is asked for, and the pipeline cuts
    the rest off; so data end in silence too.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("StableAudioPipeline",)
    texts: ClassVar[tuple[str, ...]] = ("text_encoder", "projection_model")

    def __init__(self, pipe: Pipeline, settings: Config) -> None:
        super().__init__(pipe, settings)
        name, said = type(pipe.scheduler).__name__, pipe.scheduler.config
        if name != _SCHEDULER or said.get("sigma_data", 1.0) != 1.0:
            raise ModelError(
                "this scheduler tells the network other times than it was trained with",
                where="scheduler",
                got=f"{name} with sigma_data={said.get('sigma_data')}",
                fix=f"load the pipeline with the {_SCHEDULER} that it came with",
            )

    @property
    def process(self) -> Process:
        """Latents and noise on a circle, and their velocity.

        The sampler counts in ``sigma = noise / signal`` instead, with latents that are not scaled down. It multiplies
        them by ``1 / sqrt(sigma^2 + 1)``, which is the signal, and tells the network ``atan(sigma) 2 / pi``, which is
        the time of which signal and noise are cosine and sine.
        """
        said = str(self.pipe.scheduler.config.get("prediction_type", "v_prediction"))
        return Process(prediction=check_prediction(said, "scheduler.prediction_type"), path="cosine")

    @property
    def usual(self) -> float:
        return self.window / self.rate

    @property
    def most(self) -> float:
        return self.usual

    @property
    def window(self) -> int:
        return cast(int, self.configured(self.network)["sample_size"]) * self.hop

    def asked(self) -> dict[str, object]:
        return {"audio_end_in_s": self.seconds}

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        words = cast(Tensor, self.pipe.encode_prompt(prompts, self.device, False))
        timed = cast(_Timed, self.pipe)
        start, end = timed.encode_duration(0.0, self.seconds, self.device, False, len(prompts))
        states = torch.cat([words, start, end], dim=1)  # b n+2 d
        some = torch.tensor([bool(prompt) for prompt in prompts], device=states.device)
        # what its guidance compares with are zeros, while the length is still known from `globals`
        return {"states": states * some[:, None, None], "globals": torch.cat([start, end], dim=2)}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        return called(
            self.denoise,
            hidden_states=noisy,
            timestep=self.clock(time, noisy, scale=1.0),
            encoder_hidden_states=condition["states"],
            global_hidden_states=condition["globals"],
            rotary_embedding=self._turns(noisy),
        )

    def _turns(self, noisy: Tensor) -> tuple[Tensor, ...]:
        """Cosines and sines of the positions of ``1 + t`` tokens: the network puts one before the frames that says
        time and length."""
        size = cast(_Timed, self.pipe).rotary_embed_dim
        found = get_1d_rotary_pos_embed(size, 1 + noisy.shape[-1], use_real=True, repeat_interleave_real=False)
        return tuple(one.to(noisy.device) for one in cast("tuple[Tensor, Tensor]", found))
