"""A head reads the first state only of a backbone in which that state has seen the response."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import final

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from modalign.batch import Batch
from modalign.errors import ConfigError
from modalign.heads import LinearHead
from modalign.model import Model
from modalign.objectives import BradleyTerry
from modalign.roles import Backbone
from modalign.testing import toy_model, toy_pairs
from modalign.testing.doubles import VOCAB, ToyAssembly
from modalign.training import Trainer
from modalign.training.heads import add_heads

REFUSED = r"reads the first state, which has seen nothing of a response; found: first, and a ToyBackbone.*use last, or"


@final
class BothWays(Backbone):
    """A layer in which every token sees every other one of its row; r rows, n tokens, d width."""

    causal = False

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.tokens = nn.Embedding(VOCAB, width)
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, batch: Batch, embeddings: Mapping[str, Tensor]) -> Tensor:
        x = self.tokens(batch.tokens)  # r n d
        q, k, v = self.qkv(x)[:, None].chunk(3, dim=-1)  # r 1 n d
        seen = batch.layout.real[:, None, None].to(x.device)  # r 1 1 n
        return x + scaled_dot_product_attention(q, k, v, attn_mask=seen)[:, 0]


def first() -> BradleyTerry:
    return BradleyTerry(head_options={"read": "first"})


def both_ways() -> Model:
    torch.manual_seed(0)
    return Model(assembly=ToyAssembly(), backbone=BothWays())


def test_the_first_state_of_a_causal_backbone_is_refused_for_a_new_head() -> None:
    model = toy_model()
    with pytest.raises(ConfigError, match=REFUSED):
        add_heads(model, first(), seed=0)
    assert not len(model.heads)


def test_the_first_state_of_a_causal_backbone_is_refused_for_a_head_the_model_has(tmp_path: Path) -> None:
    model = toy_model()
    model.heads["reward"] = LinearHead(16, read="first")
    with pytest.raises(ConfigError, match=REFUSED):
        Trainer(model=model, objective=BradleyTerry(), data=toy_pairs(2), output_dir=tmp_path / "run")


@pytest.mark.parametrize("read", ["last", "mean", 257])
def test_other_states_of_a_causal_backbone_are_read(read: str | int) -> None:
    model = toy_model()
    add_heads(model, BradleyTerry(head_options={"read": read}), seed=0)
    assert list(model.heads) == ["reward"]


def test_the_first_state_of_a_backbone_that_looks_both_ways_learns(tmp_path: Path) -> None:
    result = Trainer(
        model=both_ways(),
        objective=first(),
        data=toy_pairs(8),
        output_dir=tmp_path / "run",
        max_steps=20,
        per_device_train_batch_size=8,
        learning_rate=3e-2,
        quiet=True,
    ).train()
    assert result.metrics["loss"] < 0.5 * math.log(2)  # where it starts, nearly: the head is small
