"""Continuous actions: draws of the flow-matching loss, sampling, adapters and limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

import modalign
from cases import DOWN, UP, action, answer, continuous, pair, scored, words
from modalign.assembler import Sample, assemble
from modalign.comparison import Comparison
from modalign.config import AdapterConfig
from modalign.content import Message, Part
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.draws import Draws
from modalign.errors import CheckpointError, ConfigError, DataError, ModelError
from modalign.model import Model
from modalign_action.expert import ExpertDenoiser, letters, sampled
from modalign_action.testing import tiny_expert, tiny_space

DRAWS = Draws(seed=3, count=2)


def prompt(said: str = "Go up.") -> list[Message]:
    return [Message(role="user", parts=(words(said),))]


def alone(parts: Path, **settings: object) -> Model:
    return modalign.load(parts / "expert", **settings).eval()


def scores(model: Model, part: Part, draws: Draws = DRAWS) -> torch.Tensor:
    one = replace(Comparison.unpaired(prompt(), answer(part)), id="one")
    batch = assemble([Sample(comparison=one, encoded=model.assembly.preparer.encode(one), own=1)], share=False)
    with torch.no_grad():
        return model(batch, draws).units["action"].values


def denoiser(model: Model) -> ExpertDenoiser:
    return cast(ExpertDenoiser, cast(DenoisingDecoder, model.decoders["action"]).denoiser)


def test_units_are_draws_of_the_flow_matching_loss_in_units_of_ranges(parts: Path):
    model, part = alone(parts), action(UP)
    one = replace(Comparison.unpaired(prompt(), answer(part)), id="one")
    (segment,) = assemble(
        [Sample(comparison=one, encoded=model.assembly.preparer.encode(one), own=1)], share=False
    ).segments
    low, high = (torch.tensor(each) for each in (tiny_space().low, tiny_space().high))
    clean = 2 * (cast(torch.Tensor, part.value) - low) / (high - low) - 1
    expected = []
    for draw in range(2):
        noise = DRAWS.noise(segment.key, draw, (8, 7))
        (time,) = DRAWS.quantiles([(segment.key, draw)])
        noisy = (1 - time) * clean + time * noise
        with torch.no_grad():
            flow = denoiser(model).network(noisy[None].float(), time[None], letters("Go up.")[None])[0]
        # the flow is e - x_0; a draw is -1/2 of the squared error's sum
        expected.append(-0.5 * (flow - (noise - clean)).square().sum().item())
    assert scores(model, part).tolist() == pytest.approx(expected, rel=1e-5)


def test_seconds_of_a_chunk_are_scored_alone_and_add_up(parts: Path):
    model, part = alone(parts), action(UP)
    first = scores(model, replace(part, spans=((0.0, 0.3),)))
    rest = scores(model, replace(part, spans=((0.3, 0.8),)))
    assert torch.allclose(first + rest, scores(model, part), rtol=1e-6)
    assert (first.abs() < rest.abs()).all()
    with pytest.raises(DataError, match="no second of this medium is scored"):
        scores(model, replace(part, spans=((0.9, 1.0),)))


def test_the_prompt_the_time_and_every_step_are_seen(parts: Path):
    network = denoiser(alone(parts)).network
    noisy, time = torch.randn(1, 8, 7, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5])
    with torch.no_grad():
        flow = network(noisy, time, letters("Go up.")[None])
        assert not torch.allclose(flow, network(noisy, time, letters("Go pu.")[None]))  # the order of letters too
        assert not torch.allclose(flow, network(noisy, torch.tensor([0.6]), letters("Go up.")[None]))
        changed = noisy.clone()
        changed[0, 7] += 1
        assert not torch.allclose(flow[0, 0], network(changed, time, letters("Go up.")[None])[0, 0])
        turned = network(noisy.flip(1), time, letters("Go up.")[None]).flip(1)
        assert not torch.allclose(flow, turned, atol=1e-4)  # which step it is matters


@pytest.mark.parametrize("steps", [1, 7, 10])
def test_euler_steps_are_exact_where_paths_are_straight(steps: int):
    goal, noise = torch.randn(3, 8, 7), torch.randn(3, 8, 7)
    times: list[float] = []

    def flow(noisy: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        times.append(time[0].item())
        return noise - goal

    assert torch.allclose(sampled(flow, noise, steps), goal, atol=1e-5)
    assert times == pytest.approx([1 - step / steps for step in range(steps)], rel=1e-6)


def test_chunks_are_made_of_noise_of_their_own(parts: Path):
    model = alone(parts)
    both = model.generate([prompt("Go up."), prompt("Go somewhere else.")], seed=5)
    (first,) = model.generate([prompt("Go up.")], seed=5)
    assert both[0] == first
    (other,) = model.generate([prompt("Go up.")], seed=6)
    assert other != first
    (guided,) = model.generate([prompt("Go up.")], seed=5, guidance_scale=3.0)
    assert guided != first
    (part,) = first.parts()
    assert (cast(torch.Tensor, part.value).shape, part.facts) == ((8, 7), {"rate": 10.0})


def test_what_is_made_is_in_the_unit_of_each_dimension(parts: Path, monkeypatch: pytest.MonkeyPatch):
    model, wanted = alone(parts), cast(torch.Tensor, action(UP).value)
    unit = tiny_space().unit(wanted)
    # the flow of one chunk alone: x_t = (1 - t) x_0 + t e, so e - x_0 = (x_t - x_0) / t
    monkeypatch.setattr(
        denoiser(model).network, "forward", lambda noisy, time, asked: (noisy - unit) / time.float()[:, None, None]
    )
    ((part,),) = ([*one.parts()] for one in model.generate([prompt()]))
    assert torch.allclose(cast(torch.Tensor, part.value), wanted, atol=1e-6)


def test_behind_a_language_model_it_sees_clip_words_and_what_was_done(parts: Path):
    model = continuous(parts).eval()
    assert model.assembly.takes == {"text", "video", "action"}
    assert model.assembly.gives == {"text", "action"}
    before = scored(model, pair(UP)).logps
    assert not torch.allclose(before, scored(model, replace(pair(UP), prompt=pair(DOWN).prompt)).logps)
    done = [
        scored(
            model, replace(pair(), prompt=(replace(pair().prompt[0], parts=(*pair().prompt[0].parts, action(one))),))
        )
        for one in (UP, DOWN)
    ]
    assert not torch.allclose(done[0].units["action"].values, done[1].units["action"].values)


@pytest.mark.parametrize("adapter", [None, AdapterConfig(r=4)])
def test_the_whole_is_saved_in_one_folder(parts: Path, adapter: AdapterConfig | None, tmp_path: Path):
    model = continuous(parts, adapter).eval()
    with torch.no_grad():
        for number, value in enumerate(model.trainable().values()):
            value.add_(0.01 * torch.randn(value.shape, generator=torch.Generator().manual_seed(number)))
    model.save(tmp_path / "whole")
    merged = adapter is not None
    if merged:
        model.save(tmp_path / "merged", merge=True)
    for name in ("whole", "merged")[: 1 + merged]:
        again = modalign.load(tmp_path / name).eval()
        close = 0.0 if name == "whole" else 1e-5
        for key, units in scored(model, pair()).units.items():
            assert torch.allclose(units.values, scored(again, pair()).units[key].values, rtol=close, atol=close)


def test_what_trains(parts: Path):
    whole = {name.split(".")[1] for name in continuous(parts).trainable() if name.startswith(("decoders", "encoders"))}
    assert whole == {"text", "action"}
    adapted = continuous(parts, AdapterConfig(r=4)).trainable()
    expert = [name for name in adapted if name.startswith("decoders.action.denoiser")]
    assert expert
    assert all("lora_" in name for name in expert)
    assert any(name.startswith("encoders.action") for name in adapted)
    assert not any(name.startswith("encoders.video") for name in adapted)
    said = {one.name: one for one in continuous(parts, AdapterConfig(r=4)).describe().parts}
    assert said["encoders.action"].trains == said["encoders.action"].parameters > 0


def test_limits_are_options_and_are_saved(parts: Path, tmp_path: Path):
    model = alone(parts, options={"high": [0.01] * 7}, adapter=AdapterConfig(r=2))
    model.save(tmp_path / "adapters")
    for one in (model, modalign.load(tmp_path / "adapters")):
        with pytest.raises(DataError, match=r"at most 0\.01"):
            scores(one, action(UP))
    with pytest.raises(ConfigError, match="options: steps, dimensions") as caught:
        alone(parts, options={"height": 3})
    assert caught.value.where == "model.options.height"


def test_mistakes(parts: Path, tmp_path: Path):
    with pytest.raises(DataError, match="reads words, and no media"):
        alone(parts).assembly.preparer.encode(pair())
    with pytest.raises(DataError, match=r"have \(8, 7\) steps and dimensions"):
        scores(alone(parts), Part(modality="action", value=torch.zeros(8, 6)))
    with pytest.raises(ConfigError, match="no such setting") as caught:
        alone(parts, media={"action": {"steps": 8}})
    assert caught.value.where == "model.media"
    with pytest.raises(ModelError, match="make an expert"):
        modalign.load(parts / "bins")
    broken = tiny_expert(tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="the expert of actions cannot be read"):
        modalign.load(broken)
    with pytest.raises(ConfigError, match="makes no video"):
        modalign.compose(parts / "words", decoders={"video": str(parts / "expert")})
