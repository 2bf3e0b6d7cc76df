"""The text decoder against the logits of its head: values, gradients, adapters, hooks, empty batches."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from modalign.batch import Batch, Targets, TokenUnits
from modalign.draws import Draws
from modalign.errors import ModelError
from modalign.layout import Layout
from modalign_text.decoder import ROWS, TextDecoder

WIDTH, VOCABULARY = 6, 13


def batch(units: int = 9, seed: int = 0) -> Batch:
    """Two rows of five tokens, with units anywhere in them; the first two share their state."""
    generator = torch.Generator().manual_seed(seed)
    row, index = torch.randint(2, (units,), generator=generator), torch.randint(5, (units,), generator=generator)
    row[:2], index[:2] = 0, 2
    token = torch.randint(VOCABULARY, (units,), generator=generator)
    nothing = torch.zeros(0, dtype=torch.long)
    return Batch(
        tokens=torch.zeros(2, 5, dtype=torch.long),
        layout=Layout((), rows=2, width=5),
        segments=(),
        units={"text": TokenUnits(row=row, index=index, token=token, segment=torch.arange(units) // 4)},
        ends=torch.zeros(0, 2, dtype=torch.long),
        targets=Targets(pairs=torch.zeros(0, 2, dtype=torch.long), own=nothing, weights=nothing, group=nothing),
    )


def states(dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 5, WIDTH, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def head(bias: bool = False, dtype: torch.dtype = torch.float64) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=torch.float64).to(dtype)


def wanted(module: nn.Module, hidden: Tensor, of: Batch, scale: float, softcap: float | None) -> Tensor:
    """Log-softmax over whole logits, one entry of each."""
    logits = module(hidden) * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    units = of.units["text"]
    return logits.log_softmax(-1)[units.row, units.index, units.token]


class Wrapped(nn.Module):
    """A head that is no plain linear layer."""

    def __init__(self, inner: nn.Linear) -> None:
        super().__init__()
        self.inner = inner
        self.calls: list[int] = []

    def forward(self, hidden: Tensor) -> Tensor:
        self.calls.append(hidden.shape[0])
        return self.inner(hidden)


@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.5, 2.0)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("plain", [True, False])
def test_units_are_the_log_softmax_of_the_heads_logits(
    scale: float, softcap: float | None, bias: bool, plain: bool
) -> None:
    module = head(bias) if plain else Wrapped(head(bias))
    hidden, of = states(), batch()
    found = TextDecoder(module, scale=scale, softcap=softcap)(hidden, of, Draws())
    assert found.kind == "token"
    assert torch.equal(found.segment, of.units["text"].segment)
    exact = wanted(module, hidden, of, scale, softcap)
    torch.testing.assert_close(found.values, exact)
    leaves = [hidden, *module.parameters()]
    upstream = torch.linspace(-1.0, 1.0, 9, dtype=torch.float64)
    ours = torch.autograd.grad(found.values, leaves, upstream)
    for one, other in zip(ours, torch.autograd.grad(exact, leaves, upstream), strict=True):
        torch.testing.assert_close(one, other)


def test_tied_weights_get_both_gradients() -> None:
    embedding, module = nn.Embedding(VOCABULARY, WIDTH, dtype=torch.float64), head()
    module.weight = embedding.weight
    of = batch()
    numbers = rearrange(torch.arange(10), "(r n) -> r n", r=2)
    ours = TextDecoder(module)(embedding(numbers), of, Draws()).values.sum()
    exact = wanted(module, embedding(numbers), of, 1.0, None).sum()
    torch.testing.assert_close(
        torch.autograd.grad(ours, embedding.weight), torch.autograd.grad(exact, embedding.weight)
    )


def test_an_adapter_on_the_head_counts_and_learns() -> None:
    model = nn.ModuleDict({"lm_head": head(dtype=torch.float32)})
    inject_adapter_in_model(LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False), model)
    adapted = model["lm_head"]
    hidden, of = states(torch.float32), batch()
    found = TextDecoder(adapted)(hidden, of, Draws()).values
    torch.testing.assert_close(found, wanted(adapted, hidden, of, 1.0, None))
    assert not torch.allclose(found, wanted(head(dtype=torch.float32), hidden, of, 1.0, None), atol=1e-3)
    found.sum().backward()
    trained = {name: value.grad for name, value in adapted.named_parameters() if value.requires_grad}
    assert len(trained) == 2  # A and B
    assert all(grad is not None and grad.any() for grad in trained.values())


def test_a_hook_on_a_plain_head_is_run() -> None:
    module, hidden, of = head(), states(), batch()

    def triple(_module: nn.Module, _inputs: object, logits: Tensor) -> Tensor:
        return logits * 3

    module.register_forward_hook(triple)
    found = TextDecoder(module)(hidden, of, Draws()).values
    torch.testing.assert_close(found, wanted(head(), hidden, of, 3.0, None))


def test_a_called_head_sees_a_chunk_at_a_time_and_keeps_no_logits() -> None:
    module, hidden, of = Wrapped(head()), states(), batch(units=2 * ROWS + 3)
    kept: list[int] = []

    def pack(value: Tensor) -> Tensor:
        kept.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        found = TextDecoder(module)(hidden, of, Draws()).values
    assert module.calls == [ROWS, ROWS, 3]
    assert max(kept) < ROWS * VOCABULARY
    found.sum().backward()
    assert module.calls == [ROWS, ROWS, 3, 3, ROWS, ROWS]  # again in the backward pass


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("absent", [True, False])
def test_a_batch_without_text_gives_nothing_and_gradients_of_zero(plain: bool, absent: bool) -> None:
    module = head() if plain else Wrapped(head())
    hidden, of = states(), batch(units=0)
    if absent:
        del of.units["text"]  # pyright: ignore[reportIndexIssue]
    found = TextDecoder(module)(hidden, of, Draws())
    assert found.values.shape == found.segment.shape == (0,)
    found.values.sum().backward()
    for value in (hidden, *module.parameters()):
        assert value.grad is not None
        assert not value.grad.any()


@pytest.mark.parametrize("plain", [True, False])
def test_without_gradients_nothing_is_stored(plain: bool) -> None:
    module, hidden, of = head() if plain else Wrapped(head()), states(), batch()
    stored: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(stored.append, lambda value: value), torch.no_grad():
        found = TextDecoder(module)(hidden, of, Draws()).values
    assert not stored
    assert not found.requires_grad
    torch.testing.assert_close(found, wanted(module, hidden, of, 1.0, None).detach())


def test_bf16_states_give_float32_units() -> None:
    module, hidden, of = head(dtype=torch.bfloat16), states(torch.bfloat16), batch()
    found = TextDecoder(module)(hidden, of, Draws()).values
    assert found.dtype == torch.float32
    exact = wanted(head(), states(), of, 1.0, None).float()
    torch.testing.assert_close(found, exact, atol=3e-2, rtol=3e-2)


def test_no_backbone_is_refused_in_words() -> None:
    with pytest.raises(ModelError, match="needs a backbone's states"):
        TextDecoder(head())(None, batch(), Draws())
