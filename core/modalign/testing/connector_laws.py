"""Laws of what fits embeddings to another width: their number, their gradients, and what makes the connector again.

m embeddings, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Final, cast

import torch
from torch import Tensor

from modalign.registration.admission import Entry
from modalign.registration.targets import resolve
from modalign.registry import Registry
from modalign.roles import Connector
from modalign.testing.case import Case, case, refuses, require

_WIDTH: Final = 24  #: of the embeddings
_OUT: Final = 32  #: of the states
_COSTS: Final = (1, 5, 12)

Options = Mapping[str, object]


def connector_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    """What must hold of a connector with each set of options that its probe names, or with none."""
    laws: tuple[tuple[str, Callable[[Connector, Options], None]], ...] = (
        ("it gives as many states as it says", _length),
        ("gradients are finite, and pass it", _gradients),
        ("its options and its weights make it again", _again),
        ("an option it does not have is an error", _unknown),
    )

    def tried(check: Callable[[Connector, Options], None]) -> Callable[[Path], None]:
        def run(_: Path) -> None:
            for options in _options(entry):
                check(plugins.connector(entry.qualified).make(_WIDTH, _OUT, **options), options)

        return run

    for law, check in laws:
        yield case(entry, law, tried(check))


def linear() -> list[Options]:
    """Options of `LinearConnector` to try it with."""
    return [{}, {"bias": False, "seed": 3}]


def mlp() -> list[Options]:
    """Options of `MLPConnector` to try it with."""
    return [{}, {"depth": 1}, {"depth": 3, "seed": 3}]


def query() -> list[Options]:
    """Options of `QueryConnector` to try it with."""
    return [{}, {"queries": 3, "heads": 4, "depth": 1, "seed": 3}]


def _options(entry: Entry) -> list[Options]:
    if "probe" not in entry.declarations:
        return [{}]
    found = cast("Callable[[], object]", resolve(cast(str, entry.declarations["probe"])))()
    right = isinstance(found, list) and bool(found) and all(isinstance(one, Mapping) for one in found)
    require(right, "a connector's probe is a function of nothing that returns a list of sets of options", got=found)
    return cast("list[Options]", found)


def _embeddings(cost: int) -> Tensor:
    return torch.randn(cost, _WIDTH, generator=torch.Generator().manual_seed(cost))


@torch.no_grad()
def _length(connector: Connector, options: Options) -> None:
    for cost in _COSTS:
        length = connector.length(cost)
        require(isinstance(length, int) and length > 0, f"its length of {cost} is a positive number", got=length)
        found = connector(_embeddings(cost))
        require(tuple(found.shape) == (length, _OUT), f"expected 'm d' of {(length, _OUT)}", got=tuple(found.shape))
        require(found.isfinite().all(), "its states must be finite")
        require(torch.equal(found, connector(_embeddings(cost))), "equal embeddings must give equal states")


def _gradients(connector: Connector, options: Options) -> None:
    embeddings = _embeddings(5).requires_grad_()
    connector(embeddings).square().sum().backward()
    require(embeddings.grad is not None and embeddings.grad.any(), "embeddings behind it must have a gradient")
    dead = []
    for name, value in connector.named_parameters():
        require(value.grad is not None and value.grad.isfinite().all(), f"{name} must have a finite gradient")
        dead += [] if value.grad is not None and value.grad.any() else [name]
    total = len(list(connector.parameters()))
    require(not total or len(dead) < total, "its parameters must have gradients", got="0 everywhere")


@torch.no_grad()
def _again(connector: Connector, options: Options) -> None:
    wanted = connector(_embeddings(5))
    for name, value in connector.named_parameters():
        value.add_(0.01 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))
    trained = connector(_embeddings(5))
    moved = not list(connector.parameters()) or not torch.equal(wanted, trained)
    require(moved, "other weights must give other states")
    copied = deepcopy(connector)(_embeddings(5))
    require(torch.equal(copied, trained), "a copy must give the same: a reference is one")
    settings = getattr(connector, "settings", options)
    require(isinstance(settings, Mapping), "its `settings` are options by name", got=type(settings).__name__)
    for made_with in (options, cast(Options, settings)):
        again = type(connector).make(_WIDTH, _OUT, **made_with)
        again.load_state_dict(connector.state_dict())
        found = again(_embeddings(5))
        require(torch.equal(found, trained), "options and weights must make it again", got=dict(made_with))


def _unknown(connector: Connector, options: Options) -> None:
    with refuses("an option that it does not have", Exception):
        type(connector).make(_WIDTH, _OUT, **options, zz_unknown=1)
