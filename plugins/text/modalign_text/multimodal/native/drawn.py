"""Pictures that a checkpoint draws: their codes sampled one by one, made pixels by its VQ model.

r responses, n tokens of the longest, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from modalign.config import GenerationConfig
from modalign.content import Part
from modalign.errors import ConfigError
from modalign_text.generation import pad_left
from modalign_text.multimodal.native.decoder import PictureDecoder
from modalign_text.multimodal.native.writer import NativeWriter
from modalign_text.multimodal.spelling import spell


@final
@dataclass(frozen=True, kw_only=True)
class Native:
    """What draws pictures with the model itself.

    decoder: of their codes.
    writer: what is said around them.
    """

    decoder: PictureDecoder
    writer: NativeWriter

    def draw(
        self,
        library: PreTrainedModel,
        tokens: Sequence[Sequence[int]],
        given: tuple[Tensor, Tensor],
        sources: Sequence[torch.Generator],
        config: GenerationConfig,
    ) -> list[Part]:
        """A picture behind each sequence, whose codes are remembered: what is scored of it later is what was sampled.

        tokens: of each sequence.
        given: their embeddings ``r n d``, padded on the left, and the mask ``r n``.
        """
        pictures = self.decoder.pictures
        pictures.check()
        guided = config.guidance_scale not in (None, 1.0)
        nothing = self._nothing(library, tokens, given[0].device) if guided else None
        codes = spell(library, self.decoder, given, sources, config, nothing=nothing)
        parts = [pictures.picture(one, pictures.drawn()) for one in codes]
        for part, one in zip(parts, codes, strict=True):
            pictures.keep(self.writer.key(part), one)
        return parts

    def check(self, config: GenerationConfig) -> None:
        """Raise where something is asked for that this family is not sampled by."""
        if config.guidance_scale not in (None, 1.0) and not self.decoder.pictures.apart:
            raise ConfigError(
                "pictures of this family are sampled without guidance",
                where="guidance_scale",
                got=config.guidance_scale,
                fix="leave it out; Janus takes it",
            )

    def _nothing(self, library: PreTrainedModel, tokens: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        """Embeddings ``r n d`` of the sequences with padding for all but what begins them and opens the picture.

        So `JanusForConditionalGeneration.generate` has it.
        """
        tokenizer = self.writer.tokenizer
        pad = cast("int | None", tokenizer.pad_token_id) or 0
        ids, _ = pad_left(tokens, pad)
        kept = ids == self.decoder.pictures.begin
        if tokenizer.bos_token_id is not None:
            kept |= ids == cast(int, tokenizer.bos_token_id)
        return cast(nn.Embedding, library.get_input_embeddings())(ids.masked_fill(~kept, pad).to(device))
