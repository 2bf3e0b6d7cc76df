"""ACE-Step 1.5: a flow over latents of music, conditioned on a caption, lyrics, a voice and what is already there.

Gong et al., "ACE-Step 1.5: pushing the boundaries of open-source music generation", https://arxiv.org/abs/2602.00744.

b sounds, n tokens, t frames of the latents, d channels of the latents.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Protocol, cast, final

import torch
from einops import rearrange, repeat
from torch import Tensor

from modalign.integrations.diffusers.family import called
from modalign.timeline import Timeline
from modalign_audio.generators.base import AudioFamily

_VOICE = 30  #: seconds of the sound that says whose voice it shall be


class _Placed(Protocol):
    """A pipeline that says what is already there."""

    latents_per_second: float

    def prepare_src_latents(
        self, *, device: torch.device, dtype: torch.dtype, batch_size: int, latent_length: int
    ) -> tuple[Tensor, int]: ...


class _Joined(Protocol):
    """What makes one sequence of caption, lyrics and voice."""

    null_condition_emb: Tensor
    silence_latent: Tensor


@final
class AceStep(AudioFamily):
    """ACE-Step 1.5, base and turbo, asked for music by its caption: without lyrics, a voice to follow or a sound to
    change.

    Prompts are written one at a time: the network has no mask for what fills up the shorter of a batch.
    """

    pipelines: ClassVar[tuple[str, ...]] = ("AceStepPipeline",)
    texts: ClassVar[tuple[str, ...]] = ("text_encoder", "condition_encoder")
    together: ClassVar[bool] = False

    @property
    def usual(self) -> float:
        return cast(float, inspect.signature(type(self.pipe).__call__).parameters["audio_duration"].default)

    @property
    def window(self) -> int:
        # as the pipeline counts, with its rounding
        return math.ceil(self.seconds * cast(_Placed, self.pipe).latents_per_second) * self.hop

    @property
    def samples(self) -> int:
        return self.window  # the pipeline cuts nothing off

    @property
    def timeline(self) -> Timeline:
        return replace(super().timeline, axis=0)

    def asked(self) -> dict[str, object]:
        return {"audio_duration": self.seconds}

    def scaled(self, latents: Tensor) -> Tensor:
        return rearrange(latents.float(), "b d t -> b t d").contiguous()

    def condition(self, prompts: list[str]) -> Mapping[str, Tensor]:
        text, text_mask, lyrics, lyrics_mask = self.pipe.encode_prompt(
            prompt=prompts, lyrics=[""] * len(prompts), device=self.device, audio_duration=self.seconds
        )
        encoder = self.part("condition_encoder")
        joined = cast(_Joined, encoder)
        frames = math.ceil(_VOICE * cast(_Placed, self.pipe).latents_per_second)
        voice = repeat(joined.silence_latent[:, :frames].to(text), "1 t d -> b t d", b=len(prompts))
        states, _ = encoder(
            text_hidden_states=text,
            text_attention_mask=text_mask,
            lyric_hidden_states=lyrics,
            lyric_attention_mask=lyrics_mask,
            refer_audio_acoustic_hidden_states_packed=voice,
            refer_audio_order_mask=torch.arange(len(prompts), device=self.device),
        )
        some = torch.tensor([bool(prompt) for prompt in prompts], device=states.device)
        # what its guidance compares with is a state that was learned for it, at each token
        return {"states": torch.where(some[:, None, None], states, joined.null_condition_emb.to(states))}

    def predict(self, noisy: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        count, frames, _ = noisy.shape
        silence, _ = cast(_Placed, self.pipe).prepare_src_latents(
            device=noisy.device, dtype=noisy.dtype, batch_size=count, latent_length=frames
        )
        clock = self.clock(time, noisy, scale=1.0).to(noisy.dtype)  # it takes times of no other type than its weights
        return called(
            self.denoise,
            hidden_states=noisy,
            timestep=clock,
            timestep_r=clock,  # one time to leave from and to arrive at: the velocity there, as its sampler asks for
            encoder_hidden_states=condition["states"],
            # nothing is there yet, and all of it is to be made
            context_latents=torch.cat([silence, torch.ones_like(noisy)], dim=-1),
        )
