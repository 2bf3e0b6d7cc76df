"""What may branch from a shared prompt is proven on the loaded model: families that are silently wrong are refused."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from modalign.errors import ModelError
from modalign_text import attention, probe
from modalign_text.backbone import CausalLMBackbone, Sharing
from modalign_text.testing import tiny_causal_lm


def a_backbone(family: str = "llama", **settings: float) -> CausalLMBackbone:
    return CausalLMBackbone(tiny_causal_lm(family, **settings))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "phi3", "mistral", "gemma3_text", "cohere", "granite"])
def test_families_of_plain_attention_share_by_split(family: str) -> None:
    backbone = a_backbone(family)
    probe.decide(backbone)
    assert backbone.sharing == "split"
    assert "equals separate rows" in backbone.reason


def test_soft_caps_in_attention_share_by_a_mask() -> None:
    backbone = a_backbone("gemma2")
    probe.decide(backbone)
    assert backbone.sharing == "mask"


@pytest.mark.parametrize(
    ("family", "says"), [("mamba", "state that runs over the row"), ("recurrent_gemma", "state that runs over the row")]
)
def test_recurrent_families_are_refused_by_the_rule(family: str, says: str) -> None:
    backbone = a_backbone(family)
    assert says in str(probe.refused(backbone))
    probe.decide(backbone)
    assert not backbone.shares
    assert says in backbone.reason


@pytest.mark.parametrize("way", ["split", "mask"])
def test_a_family_that_is_silently_wrong_is_refused_by_the_probe(way: Sharing, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = a_backbone("recurrent_gemma", scale=2.0)
    proof = probe.prove(backbone, way)  # it does not raise
    assert proof.error > 100 * proof.tolerance
    assert proof.holds is False
    monkeypatch.setattr(probe, "refused", lambda _: None)
    probe.decide(backbone)
    assert not backbone.shares
    assert "split: differs from separate rows" in backbone.reason
    with pytest.raises(ModelError, match="differs from separate rows"):
        probe.decide(backbone, way)


def test_a_decoder_that_drops_what_it_is_handed_falls_back_to_a_mask() -> None:
    backbone = a_backbone("llama", scale=4.0)

    def forget(
        module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[object, dict[str, object]]:
        return args, {name: value for name, value in kwargs.items() if name != attention.ARGUMENT}

    for layer in cast(nn.ModuleList, backbone.decoder.layers):
        layer.register_forward_pre_hook(forget, with_kwargs=True)
    probe.decide(backbone)
    assert backbone.sharing == "mask"


def test_a_decoder_that_loses_masks_and_plan_gets_separate_rows() -> None:
    backbone = a_backbone("llama", scale=4.0)

    def forget(
        module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[object, dict[str, object]]:
        return args, {
            **{name: value for name, value in kwargs.items() if name != attention.ARGUMENT},
            "attention_mask": None,
        }

    for layer in cast(nn.ModuleList, backbone.decoder.layers):
        layer.register_forward_pre_hook(forget, with_kwargs=True)
    probe.decide(backbone)
    assert backbone.sharing == "off"
    assert "split: " in backbone.reason
    assert "mask: " in backbone.reason


def test_a_window_longer_than_the_probe_is_shrunk_so_that_losing_it_would_show() -> None:
    backbone = a_backbone("mistral", scale=4.0, sliding_window=1024)
    probe.decide(backbone)
    assert backbone.sharing == "split"
    assert "sliding_window at 5" in backbone.reason
    assert backbone.config.sliding_window == 1024


def test_a_lost_window_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = a_backbone("mistral", scale=4.0, sliding_window=1024)
    monkeypatch.setattr(CausalLMBackbone, "own_masks", lambda self, length, device: None)
    probe.decide(backbone)
    assert backbone.sharing == "off"
    assert "sliding_window at 5" in backbone.reason


def test_where_attention_does_nothing_the_probe_is_inconclusive() -> None:
    backbone = a_backbone("llama")
    with torch.no_grad():
        for name, value in backbone.named_parameters():
            if "o_proj" in name:
                value.zero_()
    assert probe.prove(backbone, "split").holds is None
    probe.decide(backbone)
    assert backbone.sharing == "off"
    assert "inconclusive" in backbone.reason


def test_where_attention_hardly_shows_larger_weights_decide_and_come_back_bit_for_bit() -> None:
    # the control's 7e-6 is below the least that can tell, 1e-5; with matrices four times as large it is 1e-4
    backbone = CausalLMBackbone(tiny_causal_lm("llama", scale=0.002))
    before = {name: value.clone() for name, value in backbone.named_parameters()}
    assert probe.prove(backbone, "split").holds is None
    probe.decide(backbone)
    assert backbone.sharing == "split"
    assert all(value.equal(before[name]) for name, value in backbone.named_parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_told_from_a_leak(dtype: torch.dtype) -> None:
    backbone = CausalLMBackbone(cast(PreTrainedModel, nn.Module.to(tiny_causal_lm("qwen3", scale=4.0), dtype)))
    probe.decide(backbone)
    assert backbone.sharing == "split"
    assert probe.prove(backbone, "split").control > 0.1


def test_the_probe_leaves_mode_sharing_and_random_state_alone() -> None:
    backbone = a_backbone("gemma3_text")
    backbone.train()
    state = torch.get_rng_state()
    probe.prove(backbone, "split")
    assert backbone.training
    assert backbone.sharing == "off"
    assert backbone.config._attn_implementation == "sdpa"
    assert torch.get_rng_state().equal(state)
