"""The backbone beside its trunk: media in their slots, further inputs of a family, and generation left alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from modalign.batch import Batch, Slot, Targets
from modalign.errors import ModelError, ShapeError
from modalign.layout import Layout, fork
from modalign_text import attention
from modalign_text.backbone import CausalLMBackbone
from modalign_text.testing import tiny_causal_lm


def a_batch() -> Batch:
    """Two prompts of 13 and 18 tokens with two responses each."""
    spans = (*fork(0, 13, (4, 7), first=0), *fork(1, 18, (3, 1), first=3))
    tokens = torch.randint(0, 256, (2, 24), generator=torch.Generator().manual_seed(1))
    empty = torch.zeros(0, dtype=torch.long)
    return Batch(
        tokens=tokens,
        layout=Layout(spans, rows=2, width=24),
        segments=(),
        units={},
        ends=empty.reshape(0, 2),
        targets=Targets(pairs=empty.reshape(0, 2), own=empty, weights=empty.double(), group=empty),
    )


def test_media_take_their_slots_and_their_gradient() -> None:
    library = tiny_causal_lm("llama", scale=4.0)
    backbone = CausalLMBackbone(library)
    backbone.share("split", "test")
    table = cast(nn.Embedding, library.get_input_embeddings()).weight.detach()
    batch = a_batch()
    written = batch.tokens[1, 4:9]
    blank = batch.tokens.clone()
    blank[1, 4:9] = 0
    slotted = replace(batch, tokens=blank, slots=(Slot(row=1, start=4, stop=9, digest="a"),))
    medium = table[written].clone().requires_grad_()
    states = backbone(slotted, {"a": medium})
    # the embeddings of the very tokens that were there give the very same states
    assert states.equal(backbone(batch, {}))
    states[1, 8].sum().backward()
    assert medium.grad is not None
    assert bool((medium.grad != 0).any(-1).all())


def test_one_medium_in_two_slots_collects_both_gradients() -> None:
    backbone = CausalLMBackbone(tiny_causal_lm("llama", scale=4.0))
    backbone.share("split", "test")
    slots = (Slot(row=0, start=2, stop=4, digest="a"), Slot(row=1, start=5, stop=7, digest="a"))

    def gradient(rows: tuple[int, ...]) -> Tensor:
        medium = torch.ones(2, 32, requires_grad=True)
        states = backbone(replace(a_batch(), slots=slots), {"a": medium})
        sum(states[row, :13].sum() for row in rows).backward()  # pyright: ignore[reportAttributeAccessIssue]
        return cast(Tensor, medium.grad)

    assert torch.allclose(gradient((0, 1)), gradient((0,)) + gradient((1,)), atol=1e-4)


def test_a_medium_of_another_length_than_its_slot_is_an_error() -> None:
    backbone = CausalLMBackbone(tiny_causal_lm("llama"))
    batch = replace(a_batch(), slots=(Slot(row=0, start=2, stop=5, digest="a"),))
    with pytest.raises(ShapeError, match=r"m=3, d=32.*\(4, 32\)"):
        backbone(batch, {"a": torch.zeros(4, 32)})


def test_positions_of_a_family_are_used_where_a_batch_brings_them() -> None:
    backbone = CausalLMBackbone(tiny_causal_lm("llama", scale=4.0))
    backbone.share("mask", "test")
    batch = a_batch()
    same = replace(batch, positions=batch.layout.index)
    assert backbone(same, {}).equal(backbone(batch, {}))
    stretched = replace(batch, positions=3 * batch.layout.index)
    assert not torch.allclose(backbone(stretched, {}), backbone(batch, {}), atol=1e-2)


def test_generation_is_untouched_by_split_attention() -> None:
    library = tiny_causal_lm("mistral", scale=4.0)
    tokens = torch.randint(0, 256, (2, 21), generator=torch.Generator().manual_seed(5))
    mask = torch.ones_like(tokens)
    mask[0, :4] = 0  # left padding
    settings = {"attention_mask": mask, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    write = cast(Callable[..., Tensor], library.generate)
    before = write(tokens, **settings)
    backbone = CausalLMBackbone(library)
    backbone.share("split", "test")
    assert library.config._attn_implementation == attention.NAME
    assert write(tokens, **settings).equal(before)
    backbone.share("off", "test")
    assert library.config._attn_implementation == "sdpa"


def test_a_mask_needs_attention_that_reads_one() -> None:
    library = tiny_causal_lm("llama")
    backbone = CausalLMBackbone(library)
    backbone.native = "flash_attention_2"
    with pytest.raises(ModelError, match="attention that reads one"):
        backbone.share("mask", "test")
    assert backbone.sharing == "off"
