"""Which state a head reads, whatever rows the responses lie in, and that its settings make it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from modalign.batch import Batch
from modalign.errors import ConfigError, ModelError
from modalign.heads import CosineHead, GaussianHead, LabelHead, LinearHead, OrdinalHead, ReadingHead
from modalign.registry import registry
from modalign.testing import toy_batch, toy_pairs

ASK, END = 258, 257  #: the toy preparer's marks: one after the prompt, one after each turn of words

MADE: dict[str, Callable[[], ReadingHead]] = {
    "linear": lambda: LinearHead(16, dimensions=("a", "b"), bias=True, read="mean"),
    "gaussian": lambda: GaussianHead(16, dimensions=("a", "b"), bias=False, read="first"),
    "cosine": lambda: CosineHead(16, dimensions=("a",), projection=5),
    "labels": lambda: LabelHead(16, dimensions=("x", "y", "z"), read=END),
    "ordinal": lambda: OrdinalHead(16, dimensions=("a", "b"), cuts=(-2.0, 0.5)),
}


def states_of(batch: Batch) -> torch.Tensor:
    """A state per token that depends on the token and its place in its sequence, NaN in the padding, ``r n d``."""
    noise = torch.Generator().manual_seed(0)
    of_token, of_place = torch.randn(300, 16, generator=noise), torch.randn(64, 16, generator=noise)
    states = of_token[batch.tokens] + of_place[batch.layout.index]
    return states.masked_fill(~batch.layout.real[..., None], torch.nan)


@pytest.mark.parametrize("read", ["last", "first", "mean", ASK, END])
@pytest.mark.parametrize("blobs", [False, True])
def test_branches_of_one_trunk_are_read_as_separate_rows_are(read: str | int, blobs: bool) -> None:
    head = LinearHead(16, read=read)
    pairs = toy_pairs(4, blobs=blobs)
    shared, separate = (toy_batch(pairs, share=share) for share in (True, False))
    assert shared.tokens.shape[0] == 4
    assert separate.tokens.shape[0] == 8
    found = head(states_of(shared), shared)
    torch.testing.assert_close(found, head(states_of(separate), separate))
    assert found.dtype == torch.float32
    assert found.isfinite().all()


def test_each_way_of_reading_reads_its_tokens() -> None:
    batch = toy_batch(toy_pairs(1, blobs=True), share=False)
    states = states_of(batch)
    tokens = batch.tokens[1].tolist()
    spans = {number: span for number, span in enumerate(batch.layout.spans) if span.row == 1}
    leaf = next(span for span in spans.values() if tokens[span.start] == 259)  # the query of a blob: no token of it
    line = [at for at in range(int(batch.ends[1, 1]) + 1) if not leaf.start <= at < leaf.stop]
    weight = LinearHead(16).score.weight
    for read, places in {
        "last": line[-1:],
        "first": line[:1],
        "mean": line,
        ASK: [tokens.index(ASK)],
        END: [max(at for at in line if tokens[at] == END)],
    }.items():
        head = LinearHead(16, read=read)
        head.score.weight = weight
        wanted = states[1, places].mean(0) @ weight.T
        torch.testing.assert_close(head(states, batch)[1], wanted)


def test_only_what_is_read_has_a_gradient() -> None:
    batch = toy_batch(toy_pairs(2), share=True)
    for read, count in (("last", 4), ("first", 2), (ASK, 2)):
        states = states_of(batch).requires_grad_()
        LinearHead(16, read=read)(states, batch).sum().backward()
        assert states.grad is not None
        assert int((states.grad.abs().sum(-1) > 0).sum()) == count  # two trunks hold the first tokens and the marks


@pytest.mark.parametrize("read", ["last", "first", "mean", END])
def test_no_response_is_no_number(read: str | int) -> None:
    batch = replace(toy_batch(toy_pairs(1)), ends=torch.zeros(0, 2, dtype=torch.long))
    assert LinearHead(16, read=read)(states_of(batch), batch).shape == (0, 1)


def test_a_response_without_the_token_is_refused() -> None:
    batch = toy_batch(toy_pairs(1))
    with pytest.raises(ModelError, match="reads the state at token 7; found: a response without that token"):
        LinearHead(16, read=7)(states_of(batch), batch)


def test_the_id_of_a_token_may_be_a_flag_s_word() -> None:
    assert LinearHead(4, read="151643").read == 151643


@pytest.mark.parametrize("read", ["median", True, 1.5])
def test_a_place_that_nobody_knows_is_refused(read: object) -> None:
    with pytest.raises(ConfigError, match="last, first, mean, or the id of a token"):
        LinearHead(4, read=read)  # type: ignore[arg-type]


@pytest.mark.parametrize("dimensions", [(), ("a", "a")])
def test_dimensions_are_named_each_once(dimensions: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="each once"):
        LinearHead(4, dimensions=dimensions)


@pytest.mark.parametrize("name", MADE)
def test_a_head_s_settings_make_it_again(name: str) -> None:
    head = MADE[name]()
    again = registry.head(name)(16, **head.settings)
    assert type(again) is type(head)
    assert again.dimensions == head.dimensions
    again.load_state_dict(head.state_dict())
    batch = toy_batch(toy_pairs(3))
    assert again(states_of(batch), batch).equal(head(states_of(batch), batch))


@pytest.mark.parametrize("name", MADE)
def test_a_head_that_is_seeded_starts_the_same(name: str) -> None:
    states: list[dict[str, torch.Tensor]] = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(MADE[name]().state_dict())
    assert all(states[0][key].equal(states[1][key]) for key in states[0])


def test_the_linear_head_starts_as_it_always_did() -> None:
    torch.manual_seed(0)
    found = LinearHead(8, dimensions=("a", "b")).score.weight
    torch.manual_seed(0)
    layer = torch.nn.Linear(8, 2, bias=False)
    torch.nn.init.normal_(layer.weight, std=0.02)
    assert found.equal(layer.weight)
