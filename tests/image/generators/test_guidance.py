"""What networks are compared with, and told, beside a prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from modalign.config import GenerationConfig
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.integrations.diffusers.denoiser import PipelineDenoiser
from modalign.loading import load
from modalign_image.generators.cases import laws
from modalign_image.generators.testing import flux

# Schedulers of diffusers 0.42.1 make an array of a tensor, which torch 2.14 answers as numpy before 2.0 asked it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def denoiser_of(folder: Path, options: Mapping[str, object], dtype: str = "float32") -> PipelineDenoiser:
    model = load(str(folder), options=dict(options), dtype=dtype).eval()
    return cast(PipelineDenoiser, cast(DenoisingDecoder, model.decoders["image"]).denoiser)


@contextmanager
def noted(network: nn.Module) -> Iterator[list[Mapping[str, Tensor]]]:
    """Within it what the network is called with."""
    calls: list[Mapping[str, Tensor]] = []

    def note(_: nn.Module, args: tuple[object, ...], given: dict[str, object]) -> None:
        calls.append(cast("dict[str, Tensor]", dict(given)))

    handle = network.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def write(denoiser: PipelineDenoiser, guidance: float | None) -> None:
    denoiser.family.write(["a red square"], GenerationConfig(num_inference_steps=1, guidance_scale=guidance), 0)


def predict(denoiser: PipelineDenoiser, time: float) -> Tensor:
    """What the network predicts of ones, asked for nothing."""
    with torch.no_grad():
        (given,) = denoiser.conditions([denoiser.nothing()])
        times = torch.tensor([time], dtype=torch.float64)
        return denoiser(torch.ones(1, 4, 8, 8), times, {name: one[None] for name, one in given.items()})


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3", "sana", "pixart", "qwen-image"])
def test_the_prompt_that_asks_for_nothing_is_what_the_pipeline_guides_away_from(name: str, tmp_path: Path) -> None:
    case = laws(name, tmp_path)
    denoiser = denoiser_of(case.folder, case.options)
    with noted(denoiser.network) as calls:
        write(denoiser, 3.0)
    # both in one call, nothing first; or in two, nothing last
    states = [call["encoder_hidden_states"] for call in calls]
    compared = states[0][:1] if states[0].shape[0] == 2 else states[1]
    with torch.no_grad():
        (nothing,) = denoiser.conditions([denoiser.nothing()])
    torch.testing.assert_close(nothing["states"][None], compared)


def test_a_distilled_network_is_told_of_its_guidance(tmp_path: Path) -> None:
    folder = flux(tmp_path)
    size = {"height": 16, "width": 16}
    low, again, high = (
        predict(denoiser_of(folder, {**size, "guidance": guidance}), 0.5) for guidance in (1.0, 1.0, 4.0)
    )
    assert low.equal(again)
    assert not torch.allclose(low, high, atol=1e-3)


@pytest.mark.parametrize(("guidance", "calls"), [(1.0, 1), (3.0, 2), (None, 2)])
def test_qwen_image_is_guided_unless_told_not_to(guidance: float | None, calls: int, tmp_path: Path) -> None:
    case = laws("qwen-image", tmp_path)
    denoiser = denoiser_of(case.folder, case.options)
    with noted(denoiser.network) as found:
        write(denoiser, guidance)
    assert len(found) == calls


def test_prompts_are_as_long_in_writing_as_in_training(tmp_path: Path) -> None:
    case = laws("sd3", tmp_path)
    denoiser = denoiser_of(case.folder, {**case.options, "max_sequence_length": 32})
    with noted(denoiser.network) as calls:
        write(denoiser, 0.0)
        predict(denoiser, 0.5)
    # tokens of CLIP, 96 in the tiny one, then those of T5
    assert [call["encoder_hidden_states"].shape[1] for call in calls] == [96 + 32, 96 + 32]


def test_times_are_exact_in_half_precision(tmp_path: Path) -> None:
    case = laws("sd3", tmp_path)
    denoiser = denoiser_of(case.folder, case.options, "bfloat16")
    with noted(denoiser.network) as calls:
        predict(denoiser, 0.9985)
    assert calls[0]["timestep"].item() == pytest.approx(998.5)  # bfloat16 has nothing between 996 and 1000
