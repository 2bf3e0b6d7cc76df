"""Connectors: shapes, gradients, seeds, being built again; the query connector reads a set.

m embeddings, d width of the backbone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu

from modalign.connectors.linear import LinearConnector
from modalign.connectors.mlp import MLPConnector
from modalign.connectors.query import QueryConnector
from modalign.errors import ConfigError, ShapeError
from modalign.registry import registry
from modalign.roles import Connector

WIDTH, OUT = 6, 8
CONNECTORS: list[tuple[str, type[Connector], Mapping[str, object]]] = [
    ("linear", LinearConnector, {}),
    ("linear", LinearConnector, {"bias": False}),
    ("mlp", MLPConnector, {}),
    ("mlp", MLPConnector, {"depth": 1}),
    ("mlp", MLPConnector, {"depth": 4}),
    ("query", QueryConnector, {"queries": 3, "heads": 2}),
    ("query", QueryConnector, {"queries": 5, "heads": 4, "depth": 1, "expansion": 2}),
]
every = pytest.mark.parametrize(("name", "kind", "options"), CONNECTORS)


def embeddings(m: int, *, seed: int = 0) -> Tensor:
    return torch.randn(m, WIDTH, generator=torch.Generator().manual_seed(seed))


@every
@pytest.mark.parametrize("m", [1, 2, 7, 40])
def test_as_many_states_come_out_as_length_says(
    name: str, kind: type[Connector], options: Mapping[str, object], m: int
) -> None:
    connector = kind.make(WIDTH, OUT, **options)
    assert connector(embeddings(m)).shape == (connector.length(m), OUT)
    assert connector.length(m) == (options["queries"] if name == "query" else m)


@every
def test_the_registry_gives_the_class_by_name(name: str, kind: type[Connector], options: Mapping[str, object]) -> None:
    assert registry.connector(name) is kind


@every
def test_every_weight_and_every_embedding_has_a_gradient(
    name: str, kind: type[Connector], options: Mapping[str, object]
) -> None:
    connector, given = kind.make(WIDTH, OUT, **options), embeddings(4).requires_grad_()
    weights = torch.randn(connector.length(4), OUT, generator=torch.Generator().manual_seed(1))
    # weighted: the sum of a layer norm's output is a constant
    (connector(given) * weights).sum().backward()
    assert given.grad is not None
    assert (given.grad.abs().sum(-1) > 0).all()
    for label, parameter in connector.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.any(), label


@every
def test_gradients_are_those_of_finite_differences(
    name: str, kind: type[Connector], options: Mapping[str, object]
) -> None:
    connector = kind.make(WIDTH, OUT, **options).double()
    assert torch.autograd.gradcheck(connector, (embeddings(3).double().requires_grad_(),))


@every
def test_its_settings_and_weights_build_it_again(
    name: str, kind: type[Connector], options: Mapping[str, object]
) -> None:
    connector = kind.make(WIDTH, OUT, **options, seed=3)
    assert isinstance(connector, LinearConnector | MLPConnector | QueryConnector)
    assert {key: connector.settings[key] for key in options} == dict(options)
    again = kind.make(connector.width, connector.out, **connector.settings)
    again.load_state_dict(connector.state_dict())
    assert again(embeddings(4)).equal(connector(embeddings(4)))


@every
def test_equal_seeds_start_equal_and_leave_the_callers_random_state(
    name: str, kind: type[Connector], options: Mapping[str, object]
) -> None:
    before = torch.get_rng_state()
    one, other, third = (kind.make(WIDTH, OUT, **options, seed=seed) for seed in (1, 1, 2))
    assert torch.get_rng_state().equal(before)
    assert one(embeddings(2)).equal(other(embeddings(2)))
    assert not one(embeddings(2)).equal(third(embeddings(2)))


@every
@pytest.mark.parametrize("wrong", [torch.zeros(3, WIDTH + 1), torch.zeros(2, 3, WIDTH), torch.zeros(WIDTH)])
def test_embeddings_of_another_shape_are_refused(
    name: str, kind: type[Connector], options: Mapping[str, object], wrong: Tensor
) -> None:
    with pytest.raises(ShapeError, match=rf'"m width" with width={WIDTH}; found: \('):
        kind.make(WIDTH, OUT, **options)(wrong)


@every
def test_a_wrong_option_is_named(name: str, kind: type[Connector], options: Mapping[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"^dpeth: .*options: seed"):
        kind.make(WIDTH, OUT, **options, dpeth=2)
    with pytest.raises(ConfigError, match=r"^seed: "):
        kind.make(WIDTH, OUT, **options, seed=-1)
    with pytest.raises(ConfigError, match="positive widths; found: 0 to 8"):
        kind.make(0, OUT, **options)


@pytest.mark.parametrize("option", ["queries", "depth", "heads", "expansion"])
def test_nothing_of_a_query_connector_may_be_zero(option: str) -> None:
    with pytest.raises(ConfigError, match=f"^{option}: "):
        QueryConnector.make(WIDTH, OUT, **{option: 0})


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"heads: heads must divide .* 3, of a width of 8"):
        QueryConnector.make(WIDTH, OUT, heads=3)


def test_no_embeddings_make_no_states_but_cannot_answer_queries() -> None:
    assert MLPConnector.make(WIDTH, OUT)(embeddings(0)).shape == (0, OUT)
    with pytest.raises(ShapeError, match="at least one embedding"):
        QueryConnector.make(WIDTH, OUT)(embeddings(0))


def test_two_layers_are_those_of_llava() -> None:
    connector = MLPConnector.make(WIDTH, OUT)
    state = connector.state_dict()
    hidden = gelu(embeddings(3) @ state["layers.0.weight"].T + state["layers.0.bias"])
    wanted = hidden @ state["layers.2.weight"].T + state["layers.2.bias"]
    torch.testing.assert_close(connector(embeddings(3)), wanted)
    assert len(state) == 4


@pytest.mark.parametrize("kind", [LinearConnector, MLPConnector])
def test_each_embedding_is_changed_by_itself(kind: type[Connector]) -> None:
    connector, given = kind.make(WIDTH, OUT), embeddings(5)
    together = connector(given)
    for index in range(5):
        torch.testing.assert_close(connector(given[index : index + 1])[0], together[index])


def test_queries_read_a_set_whatever_its_order_and_however_often_it_is_repeated() -> None:
    connector, given = QueryConnector.make(WIDTH, OUT, queries=4, heads=2), embeddings(5)
    wanted = connector(given)
    torch.testing.assert_close(connector(given[torch.tensor([3, 0, 4, 2, 1])]), wanted)
    # softmax over each embedding twice gives each copy half of its weight: the same mean
    torch.testing.assert_close(connector(given.repeat(2, 1)), wanted)
    assert not torch.allclose(connector(given[:4]), wanted)  # but what is left out is missed


def test_attention_weighs_values_by_the_softmax_of_their_keys() -> None:
    connector = QueryConnector.make(WIDTH, OUT, queries=1, heads=1, depth=1)
    block, given = connector.blocks[0].get_submodule, embeddings(3)
    read = connector.ahead(given)
    query = block("query")(block("before")(connector.queries))
    keys, values = block("key_value")(read).split(OUT, -1)
    weights = (query @ keys.T / math.sqrt(OUT)).softmax(-1)  # 1 m
    states = connector.queries + block("back")(weights @ values)
    wanted = connector.norm(states + block("mlp")(states))
    torch.testing.assert_close(connector(given), wanted)
