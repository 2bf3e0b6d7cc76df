"""Flows solved by Euler steps: from seeded noise to clean latents.

b samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from modalign.decoders.backprop import Route


def sample(
    network: Callable[[Tensor, Tensor, Tensor], Tensor],
    asked: Tensor,
    noise: Tensor,
    route: Route,
    *,
    nothing: Tensor | None = None,
    shift: float = 1.0,
) -> Tensor:
    """Clean latents ``b ...`` by Euler steps from noise, with the graph of the route, where one is made at all.

    network: noisy latents, times and what is asked for to the flow.
    nothing: what guidance compares with, like ``asked``; by default zeros.
    shift: of times towards noise, as `Process` has it.
    """
    edges = torch.linspace(1, 0, route.steps + 1, dtype=torch.float64)
    edges = shift * edges / (1 + (shift - 1) * edges)
    x, traced = noise, torch.is_grad_enabled()
    guidance = 1.0 if route.guidance is None else route.guidance
    for step, (now, then) in enumerate(pairwise(edges[: route.taken() + 1])):
        time = now.expand(len(x))
        with torch.set_grad_enabled(traced and route.graded(step)):
            flow = network(x, time, asked)
            if guidance != 1:
                free = network(x, time, torch.zeros_like(asked) if nothing is None else nothing)
                flow = free + guidance * (flow - free)
            x = x + ((0.0 if route.leaps(step) else then) - now).item() * flow
    return x


def starts(count: int, seed: int, shape: Sequence[int], first: int = 0) -> Tensor:
    """Noise for each of ``count`` prompts, ``b ...``: that of one does not depend on how many there are."""
    made = [torch.Generator().manual_seed(seed * 1_000_003 + first + number) for number in range(count)]
    return torch.stack([torch.randn(tuple(shape), generator=one) for one in made])
