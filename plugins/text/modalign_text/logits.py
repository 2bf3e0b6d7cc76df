"""What a family does to its logits after the language head: a scale, a soft cap, tokens it never says, or else.

r rows, n tokens, d width, v vocabulary.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, cast, final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from modalign.errors import ModelError

_LOG = logging.getLogger("modalign")

_SCALES: Final = ("logit_scale", "lm_head_multiplier")  # Cohere; Falcon-H1
_DIVISORS: Final = ("logits_scaling",)  # Granite
_CAPS: Final = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")  # Gemma 2; RecurrentGemma; xLSTM
_TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 5e-3}  # of the largest logit


@final
@dataclass(frozen=True, kw_only=True)
class Postprocessing:
    """``softcap * tanh(scale * head(states) / softcap)``.

    scale: of the head's output.
    softcap: None where there is none.
    never: ids of tokens whose logits are the lowest number whatever the states are (Chameleon's codes of pictures).
    """

    scale: float = 1.0
    softcap: float | None = None
    never: tuple[int, ...] = ()

    def __call__(self, raw: Tensor) -> Tensor:
        """The logits of a head's output, in its shape."""
        scaled = raw * self.scale
        return scaled if self.softcap is None else self.softcap * torch.tanh(scaled / self.softcap)


@torch.no_grad()
def postprocessing(model: PreTrainedModel) -> Postprocessing:
    """What this model does to its logits, verified on a few tokens; a `ModelError` where it is neither of ours."""
    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if not isinstance(head, nn.Module) or not isinstance(weight, Tensor) or weight.ndim != 2:
        raise ModelError(
            "this model has no linear language head",
            got=f"{type(model).__name__}: {type(head).__name__}",
            fix="use a causal language model whose head is one matrix",
        )
    config = model.config.get_text_config()
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, int(config.vocab_size), (1, 8), generator=generator).to(weight.device)
    states = cast(nn.Module, model.get_decoder())(input_ids=tokens, use_cache=False).last_hidden_state  # 1 n d
    raw = head(states.to(weight.dtype)).float()  # 1 n v; some families carry their states in float32
    logits = model(input_ids=tokens, use_cache=False).logits
    shut = (logits <= torch.finfo(logits.dtype).min / 2).flatten(0, -2).all(0)  # v
    never = tuple(shut.nonzero()[:, 0].tolist())
    logits = logits.float()
    if never and raw.shape == logits.shape:
        _LOG.info("%s never says %d tokens as words", type(model).__name__, len(never))
        raw, logits = raw[..., ~shut], logits[..., ~shut]
    if not bool(logits.isfinite().all()):
        broken = [name for name, value in model.named_parameters() if not bool(value.isfinite().all())]
        raise ModelError(
            f"the logits of {type(model).__name__} are not finite numbers",
            got=f"weights that are not finite: {', '.join(broken[:4]) or 'none, so its arithmetic overflows'}",
            fix="load a checkpoint from before it diverged" if broken else "load it with dtype='float32'",
        )
    tolerance = _TOLERANCE.get(weight.dtype, 1e-4) * float(logits.abs().max())
    fitted = float((raw * logits).sum() / (raw * raw).sum())
    # what the config declares comes before the identity: a cap of 30 does not show in the small logits of a fresh model
    for way in (*_declared(config), Postprocessing(), Postprocessing(scale=fitted)):
        if raw.shape == logits.shape and float((way(raw) - logits).abs().max()) <= tolerance:
            if way != Postprocessing():
                _LOG.info("%s changes its logits after the head: %s", type(model).__name__, way)
            return replace(way, never=never)
    raise ModelError(
        f"the logits of {type(model).__name__} are not its head's output, scaled or softly capped",
        got=f"best scale {fitted:.4g}, largest difference {float((fitted * raw - logits).abs().max()):.2g}",
        fix="use another family, or tell us about this one",
    )


def _declared(config: object) -> Iterator[Postprocessing]:
    """What a config's fields may mean, the most specific first; which of them holds is for the logits to say."""

    def values(names: tuple[str, ...]) -> list[float]:
        found = (getattr(config, name, None) for name in names)
        return [float(value) for value in found if isinstance(value, int | float) and value]

    scales = [*values(_SCALES), *(1 / value for value in values(_DIVISORS)), 1.0]
    caps = [*values(_CAPS), None]
    for cap, scale in itertools.product(caps, scales):
        yield Postprocessing(scale=scale, softcap=cap)
