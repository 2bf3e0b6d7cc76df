"""Codes that a language model writes one after the other, with the head that scores them.

r responses, n tokens, c codes of a medium, v codes there are, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from modalign.codes import CodeDecoder
from modalign.config import GenerationConfig

_KEPT: Final = ("cache", "past_key_values")  #: what a decoder calls what it keeps; the second before 5.24


def spell(
    library: PreTrainedModel,
    decoder: CodeDecoder,
    given: tuple[Tensor, Tensor],
    sources: Sequence[torch.Generator],
    config: GenerationConfig,
) -> Tensor:
    """The codes ``r c`` of one medium behind each sequence.

    given: embeddings ``r n d`` of the sequences, padded on the left, and their mask ``r n``.
    sources: of the randomness of each, on the CPU, so that one does not depend on what is written beside it.
    """
    found: list[Tensor] = []
    kept: Mapping[str, object] = {}
    embeddings, mask = given
    fresh = embeddings
    for _ in range(decoder.codec.length):
        state, kept = _step(library, fresh, mask, kept)
        codes = _pick(decoder.head(state.to(decoder.head.weight.dtype)).float(), sources, config)  # r
        found.append(codes)
        said = decoder.table(codes)[:, None].to(embeddings.dtype)  # r 1 d
        embeddings = torch.cat([embeddings, said], 1)
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        fresh = said if kept else embeddings
    return torch.stack(found, 1)


def _step(
    library: PreTrainedModel, given: Tensor, mask: Tensor, kept: Mapping[str, object]
) -> tuple[Tensor, Mapping[str, object]]:
    """The state ``r d`` of the last token, and what the model keeps of those before it, which may be nothing.

    given: embeddings of the tokens that it has not kept.
    """
    places = (mask.cumsum(1) - 1).clamp(min=0)[:, -given.shape[1] :]
    decoder = cast(Any, library.get_decoder())
    said = decoder(inputs_embeds=given, attention_mask=mask, position_ids=places, use_cache=True, **kept)
    name = next((one for one in _KEPT if one in said), None)  # a release may answer to both names, and take one
    return said.last_hidden_state[:, -1], {} if name is None else {name: said[name]}


def _pick(logits: Tensor, sources: Sequence[torch.Generator], config: GenerationConfig) -> Tensor:
    """A code of each row of logits ``r v``."""
    if config.temperature == 0:
        return logits.argmax(-1)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(config.temperature)])
    if config.top_k:
        warpers.append(TopKLogitsWarper(config.top_k))
    if config.top_p < 1:
        warpers.append(TopPLogitsWarper(config.top_p))
    nothing = torch.zeros(len(logits), 0, dtype=torch.long, device=logits.device)
    chances = warpers(cast(torch.LongTensor, nothing), cast(torch.FloatTensor, logits)).softmax(-1).cpu()
    picked = [torch.multinomial(one, 1, generator=source) for one, source in zip(chances, sources, strict=True)]
    return torch.cat(picked).to(logits.device)
