"""The decoder of denoisers: its units are weighted errors at the draws, with prompts that are dropped, in any company.

b samples, c numbers of a medium.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import pytest
import torch
from torch import Tensor, nn

from modalign.batch import Batch, Medium, Segment, Targets
from modalign.decoders.denoiser import Denoiser, DenoisingDecoder
from modalign.decoders.readers import Condition
from modalign.denoising import Process
from modalign.draws import DrawKey, Draws
from modalign.errors import DataError, ModelError
from modalign.layout import Layout
from modalign.scores import Units

ASKED, NOTHING = "asked", "nothing"


@final
class Simple(Denoiser):
    """Predicts a multiple of the noisy latents, and what the condition says; the latents are the medium."""

    def __init__(self) -> None:
        super().__init__()
        self.process = Process(prediction="flow")
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.network.weight, 0.5)
        self.shapes: list[tuple[int, ...]] = []

    def latents(self, media: Sequence[Medium]) -> list[Tensor]:
        return [one.tensors["value"] for one in media]

    def conditions(self, prompts: Sequence[Medium]) -> list[Condition]:
        return [{"says": torch.tensor(0.0 if one.digest == NOTHING else 3.0)} for one in prompts]

    def nothing(self) -> Medium:
        return Medium(modality="words", tensors={}, digest=NOTHING)

    def forward(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        self.shapes.append(tuple(noisy.shape))
        return self.network(noisy[..., None])[..., 0] + condition["says"][:, None]


def batch(*sizes: int, given: str | None = ASKED, value: float = 1.0) -> Batch:
    """A response for each size, of that many numbers, in comparisons of their own."""
    media = {
        f"m{number}": Medium(modality="m", tensors={"value": torch.full((size,), value)}, digest=f"m{number}")
        for number, size in enumerate(sizes)
    }
    segments = tuple(
        Segment(
            response=number,
            modality="m",
            decoder="m",
            kind="draw",
            key=DrawKey(comparison=f"row-{number}", modality="m", occurrence=0),
            digest=f"m{number}",
            given=given,
        )
        for number in range(len(sizes))
    )
    own = torch.arange(len(sizes))
    return Batch(
        tokens=torch.zeros(len(sizes), 0, dtype=torch.long),
        layout=Layout((), rows=len(sizes), width=0),
        segments=segments,
        units={},
        ends=torch.zeros(len(sizes), 2, dtype=torch.long),
        targets=Targets(pairs=torch.zeros(0, 2, dtype=torch.long), own=own, weights=torch.ones(len(sizes)), group=own),
        ids=tuple(f"rows.jsonl:{number + 1}" for number in range(len(sizes))),
        media=media | {ASKED: Medium(modality="words", tensors={}, digest=ASKED)},
    )


def score(given: Batch, draws: Draws, denoiser: Simple | None = None) -> Units:
    return DenoisingDecoder(denoiser or Simple(), modality="m")(None, given, draws)


def expected(number: int, size: int, draw: int, draws: Draws, *, said: float = 3.0) -> float:
    """-1/2 sum (prediction - target)^2 in plain arithmetic."""
    key = DrawKey(comparison=f"row-{number}", modality="m", occurrence=0)
    time, noise = draws.uniform(key, draw), draws.noise(key, draw, (size,)).double()
    noisy = (1 - time) * 1.0 + time * noise
    return -0.5 * (0.5 * noisy + said - (noise - 1.0)).square().sum().item()


def test_units_are_half_the_squared_error_whatever_the_sizes_beside_them() -> None:
    draws, denoiser = Draws(seed=2, count=2), Simple()
    found = score(batch(4, 6, 4), draws, denoiser)
    assert sorted(denoiser.shapes) == [(2, 6), (4, 4)]  # media of one size in one call
    assert found.segment.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.dims is not None
    assert found.dims.tolist() == [4, 4, 6, 6, 4, 4]
    wanted = [expected(number, size, draw, draws) for number, size in enumerate((4, 6, 4)) for draw in range(2)]
    assert found.values.tolist() == pytest.approx(wanted, rel=1e-5)


def test_errors_are_weighted_by_their_time() -> None:
    draws = Draws(seed=2, count=3)
    plain, weighted = (score(batch(4), Draws(seed=2, count=3, weighting=how)).values for how in ("constant", "signal"))
    key = DrawKey(comparison="row-0", modality="m", occurrence=0)
    factors = torch.tensor([(1 - draws.uniform(key, draw)) ** 2 for draw in range(3)])  # (1 - t)^2
    torch.testing.assert_close(weighted, plain * factors.double(), rtol=1e-6, atol=0)


def test_a_dropped_prompt_says_nothing_for_the_draws_that_drop_it() -> None:
    draws = Draws(seed=1, prompt_dropout=0.5)
    found = score(batch(*[4] * 12), draws).values.tolist()
    keys = [DrawKey(comparison=f"row-{number}", modality="m", occurrence=0) for number in range(12)]
    dropped = [draws.drops(key, 0) for key in keys]
    assert {True, False} == set(dropped)
    wanted = [expected(number, 4, 0, draws, said=0.0 if gone else 3.0) for number, gone in enumerate(dropped)]
    assert found == pytest.approx(wanted, rel=1e-5)


def test_a_batch_without_such_a_medium_gives_no_units_and_yet_a_gradient() -> None:
    denoiser = Simple()
    found = score(batch(), Draws(), denoiser)
    assert len(found.values) == len(found.segment) == 0
    found.values.sum().backward()
    assert denoiser.network.weight.grad is not None


def test_what_cannot_be_scored_is_said() -> None:
    with pytest.raises(DataError, match=r"latents of this m are not finite.*4 of 4 values.*rows\.jsonl:1"):
        score(batch(4, value=float("nan")), Draws())
    with pytest.raises(ModelError, match="nothing says what this m was asked to be"):
        score(batch(4, given=None), Draws())
