"""Codes that a language model writes one after the other, with the head that scores them.

r responses, n tokens, c codes of a medium, v codes there are, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol, cast

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    PreTrainedModel,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from modalign.config import GenerationConfig
from modalign.roles import GIVEN

_KEPT: Final = ("cache", "past_key_values")  #: what a decoder calls what it keeps; the second before 5.24


class Spelling(Protocol):
    """What writes codes.

    places: for each token of a medium, whether its code is the model's to say; the format gives the others.
    """

    @property
    def places(self) -> Sequence[bool]: ...

    def embedded(self, codes: Tensor) -> Tensor:
        """Embeddings ``r d`` of codes ``r``, `GIVEN` among them."""
        ...

    def logits(self, states: Tensor) -> Tensor:
        """Of the codes that may follow states ``r d``, ``r v``."""
        ...


def spell(
    library: PreTrainedModel,
    decoder: Spelling,
    given: tuple[Tensor, Tensor],
    sources: Sequence[torch.Generator],
    config: GenerationConfig,
    *,
    nothing: Tensor | None = None,
) -> Tensor:
    """The codes ``r c`` of one medium behind each sequence, `GIVEN` where the format says what stands there.

    given: embeddings ``r n d`` of the sequences, padded on the left, and their mask ``r n``.
    sources: of the randomness of each, on the CPU, so that one does not depend on what is written beside it.
    nothing: the sequences without what they ask for, ``r n d``, for guidance: logits are pushed away from those behind
        these by `guidance_scale` (Ho and Salimans, https://arxiv.org/abs/2207.12598), as transformers does it.
    """
    found: list[Tensor] = []
    kept: Mapping[str, object] = {}
    fresh, mask = given
    if nothing is not None:
        fresh, mask = torch.cat([fresh, nothing]), torch.cat([mask, mask])
    for free in decoder.places:
        state, kept = _step(library, fresh, mask, kept)  # what it keeps nothing of is given again whole
        if free:
            codes = _pick(_guided(decoder.logits(state).float(), nothing is not None, config), sources, config)  # r
        else:
            codes = torch.full((len(sources),), GIVEN, device=mask.device)
        found.append(codes)
        said = decoder.embedded(codes)[:, None].to(fresh.dtype)  # r 1 d
        if nothing is not None:
            said = torch.cat([said, said])
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
        fresh = said if kept else torch.cat([fresh, said], 1)
    return torch.stack(found, 1)


def _guided(logits: Tensor, guided: bool, config: GenerationConfig) -> Tensor:
    """Logits of the sequences, pushed away from those without what they ask for."""
    if not guided:
        return logits
    asked, nothing = logits.chunk(2)
    return nothing + (asked - nothing) * (config.guidance_scale or 1.0)


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
