"""Laws of what judges: objectives over scores, which `laws` has, and reward heads over states.

a responses, r rows, n tokens, d width, k numbers of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from modalign.registration.admission import Entry
from modalign.registry import Registry
from modalign.testing.case import Case, case, require
from modalign.testing.laws import LAWS, swap_negates_the_margin

_PAIRS = 3
_WIDTH = 16


def objective_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    """What `laws.check_objective` tries, one case each, on the objective with its default settings."""
    pairs = plugins.objective(entry.qualified).needs.pairing == "pair"
    for law, check in LAWS.items():
        if pairs or check is not swap_negates_the_margin:
            yield case(entry, law, lambda _, check=check: check(plugins.objective(entry.qualified)()))


def head_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    """A head gives each response its numbers, from what that response's tokens saw."""
    from modalign.testing.doubles import toy_batch, toy_pairs

    batch = toy_batch(toy_pairs(_PAIRS))
    states = torch.randn(*batch.tokens.shape, _WIDTH, generator=torch.Generator().manual_seed(0))  # r n d

    def numbers(_: Path) -> None:
        head = plugins.head(entry.qualified)(_WIDTH)
        found = head(states, batch)
        wanted = (batch.responses, len(head.dimensions))
        require(tuple(found.shape) == wanted, f"expected 'a k' of {wanted}", got=tuple(found.shape))
        require(found.dtype == torch.float32, "its numbers must be float32", got=found.dtype)
        require(found.isfinite().all(), "its numbers must be finite")
        found.square().sum().backward()
        for name, parameter in head.named_parameters():
            alive = parameter.grad is not None and parameter.grad.isfinite().all()
            require(alive, f"{name} must have a finite gradient", got=parameter.grad)

    def padding(_: Path) -> None:
        head = plugins.head(entry.qualified)(_WIDTH)
        filled = states.masked_fill(~batch.layout.real[..., None], 1e4)
        same = torch.equal(head(states, batch), head(filled, batch))
        require(same, "its numbers must not depend on states of padding")

    yield case(entry, "it gives finite numbers of each response", numbers)
    yield case(entry, "it does not read padding", padding)
