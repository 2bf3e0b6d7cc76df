"""Diffusion and flow: identities between what is predicted, in float64, and how times are drawn.

b samples.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modalign.denoising import PREDICTIONS, Process, check_prediction
from modalign.errors import ConfigError

STEPS = 1000
ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, STEPS, dtype=torch.float64) ** 2, 0)


def every_process() -> list[Process]:
    """Every path with every prediction it can have."""
    found = [Process(prediction=one, path="flow") for one in PREDICTIONS]
    found += [Process(prediction=one, path="cosine") for one in PREDICTIONS if one != "flow"]
    return found + [Process(prediction=one, path="table", alphas=ALPHAS) for one in PREDICTIONS if one != "flow"]


def name(process: Process) -> str:
    return f"{process.path}-{process.prediction}"


def values(seed: int, count: int = 5) -> torch.Tensor:
    return torch.randn(count, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("process", every_process(), ids=name)
def test_the_right_prediction_gives_the_clean_latents_back(process: Process) -> None:
    clean, noise = values(0), values(1)
    time = process.time(torch.tensor([0.02, 0.3, 0.5, 0.7, 0.95]), "uniform")
    noisy, target = process.mix(clean, noise, time), process.target(clean, noise, time)
    torch.testing.assert_close(process.clean(noisy, target, time), clean, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("process", every_process(), ids=name)
@pytest.mark.parametrize("to", ["epsilon", "sample"])
def test_errors_of_one_prediction_are_those_of_another_times_a_factor(process: Process, to: str) -> None:
    # a wrong prediction means wrong clean latents, and with them a wrong noise: both follow from x_t alone
    clean, noise = values(0), values(1)
    time = process.time(torch.tensor([0.02, 0.3, 0.5, 0.7, 0.95]), "uniform")
    noisy = process.mix(clean, noise, time)
    wrong = process.target(clean, noise, time) + 0.1 * values(2)
    found = process.clean(noisy, wrong, time)
    signal, amount = (one[:, None, None] for one in process.coefficients(time))
    if to == "sample":
        expected = (found - clean).square().sum((1, 2))
    else:
        expected = ((noisy - signal * found) / amount - noise).square().sum((1, 2))
    error = (wrong - process.target(clean, noise, time)).square().sum((1, 2))
    torch.testing.assert_close(error * process.scale(time, to), expected)  # pyright: ignore[reportArgumentType]


def test_a_flow_at_a_quarter() -> None:
    flow, time = Process(prediction="flow"), torch.tensor([0.25])
    assert flow.scale(time, "epsilon").item() == 0.75**2
    assert flow.scale(time, "sample").item() == 0.25**2
    assert flow.weight(time, "constant").item() == 1
    assert flow.weight(time, "signal").item() == 0.75**2  # (1 - t)^2
    assert flow.weight(time, "snr").item() == 9  # (3/4)^2 / (1/4)^2


@given(st.floats(0, 1, exclude_max=True), st.floats(0.2, 8))
def test_a_shift_moves_times_and_keeps_their_order(quantile: float, shift: float) -> None:
    given_, near = torch.tensor([quantile]), torch.tensor([min(quantile + 1e-3, 1.0)])
    process = Process(prediction="flow", shift=shift)
    found = process.time(given_, "uniform").item()
    q = given_.double().item()
    assert math.isclose(found, shift * q / (1 + (shift - 1) * q), rel_tol=1e-9, abs_tol=1e-12)
    assert 0 <= found <= process.time(near, "uniform").item() <= 1


def test_steps_of_a_table_are_even() -> None:
    process = Process(prediction="epsilon", path="table", alphas=ALPHAS)
    found = process.time(torch.arange(4000) / 4000)
    assert found.bincount().tolist() == [4] * STEPS if found.dtype == torch.long else True
    assert torch.unique(found).numel() == STEPS
    assert found.min() == 0
    assert found.max() == STEPS - 1


def test_logit_normal_times_have_their_median_and_spread() -> None:
    process = Process(prediction="flow", times="logit_normal")
    quantiles = (torch.arange(10_001, dtype=torch.float64) + 0.5) / 10_001
    logits = torch.logit(process.time(quantiles, mean=0.4, spread=1.5))
    assert abs(logits.median().item() - 0.4) < 1e-6
    assert abs(logits.std().item() - 1.5) < 5e-3
    assert bool(process.time(torch.tensor([0.0])).isfinite().all())


@pytest.mark.parametrize(
    ("said", "meant"), [("v_prediction", "v"), ("flow_prediction", "flow"), ("epsilon", "epsilon")]
)
def test_predictions_have_the_names_of_schedulers(said: str, meant: str) -> None:
    assert check_prediction(said, "scheduler") == meant


def test_what_cannot_be_predicted_is_said() -> None:
    with pytest.raises(ConfigError, match=r"predicts 'score'.*v_prediction"):
        check_prediction("score", "scheduler.prediction_type")
    with pytest.raises(ValueError, match="path of flow"):
        Process(prediction="flow", path="cosine")
    with pytest.raises(ValueError, match="table of alphas"):
        Process(prediction="epsilon", path="table")
