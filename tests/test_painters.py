"""Painters keep the laws of decoders, their patches lose nothing that the oracle reads, and they learn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from modalign import load
from modalign.assembler import assemble, encode
from modalign.cli import main
from modalign.config import AdapterConfig
from modalign.content import Message, Part
from modalign.data import read
from modalign.draws import Draws
from modalign.errors import DataError
from modalign.integrations.painter import PainterDenoiser
from modalign.model import Model
from modalign.objectives import DPO, KTO, SFT
from modalign.registry import registry
from modalign.testing import toy_model, toy_pairs
from modalign.training import Trainer
from modalign.world.concept import concepts
from modalign.world.demonstration import demonstrate, settings
from modalign.world.painter import MOST, Painter, phrases

MODALITIES = ("image", "audio", "video")


@pytest.fixture(scope="module", params=MODALITIES)
def student(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = registry.depiction(request.param).student(tmp_path_factory.mktemp(request.param))
    assert folder is not None
    return request.param, folder


def denoiser(model: Model) -> PainterDenoiser:
    (decoder,) = model.decoders.values()
    return cast(PainterDenoiser, decoder.denoiser)


def written(model: Model, *prompts: str, seed: int = 1) -> list[Tensor]:
    asked = [[Message(role="user", parts=(Part(modality="text", value=one),))] for one in prompts]
    return [cast(Tensor, next(one.parts()).value) for one in model.generate(asked, seed=seed, num_inference_steps=3)]


def test_patches_lose_nothing_that_the_oracle_reads(student: tuple[str, Path]) -> None:
    modality, folder = student
    depiction, painter = registry.depiction(modality), denoiser(load(str(folder)))
    every = list(concepts(depiction.attributes))[::3]
    shown = [depiction.depict(concept, seed=5000 + number) for number, concept in enumerate(every)]
    media = torch.stack([cast(Tensor, one.value) for one in shown])
    latents = painter.codec.encode(painter.canvas.patches(media))
    assert latents.square().mean().sqrt().item() == pytest.approx(1.0, abs=0.1)
    found = [depiction.read(one) for one in painter.canvas.parts(painter.codec.decode(latents))]
    right = sum(one == concept for one, concept in zip(found, every, strict=True))
    assert right >= 0.97 * len(every)


def test_equal_scores_give_closed_forms_and_adapters_alone_train(student: tuple[str, Path]) -> None:
    modality, folder = student
    model = load(str(folder), adapter=AdapterConfig(r=2))
    assert model.assembly.adapters is not None
    rows = read("oracle", split=f"{modality}/shared-defect", limit=3)
    for objective, expected in ((DPO(beta=0.05), math.log(2)), (KTO(), 0.5)):
        partners = [rows[(number + 1) % 3] if objective.needs.mismatched else None for number in range(3)]
        samples = [
            encode(row, model.assembly.preparer, objective.needs, partner=partner)
            for row, partner in zip(rows, partners, strict=True)
        ]
        batch, draws = assemble(samples, share=model.shares), Draws(seed=1, count=2, prompt_dropout=0.3)
        with torch.no_grad(), model.assembly.adapters.off():
            reference = model(batch, draws)
        loss = objective({"policy": model(batch, draws), "reference": reference}, batch.targets)
        assert loss.mean.item() == pytest.approx(expected, rel=1e-12)
    assert all("lora_" in name for name in model.trainable())


def test_states_in_the_place_of_phrases_say_what_these_do(student: tuple[str, Path]) -> None:
    _, folder = student
    network = cast(Painter, denoiser(load(str(folder))).network)
    for value in network.parameters():  # a new one begins with gates that are shut
        if not value.any():
            torch.nn.init.normal_(value, std=0.1)
    patches, latents = network.place.shape[0] - MOST, network.enter.in_features
    noisy, time = torch.randn(2, patches, latents), torch.tensor([0.3, 0.8])
    asked = torch.stack(
        [phrases("Show me this: count two, colour red."), phrases("Show me this: count one, side left.")]
    )
    states = network.phrase(asked[:, :2])  # as many as there are phrases: nothing stands behind either of them
    torch.testing.assert_close(network(noisy, time, states), network(noisy, time, asked))
    assert not torch.allclose(network(noisy, time, states), network(noisy, time, states.flip(0)))


def test_writing_is_seeded_whole_and_alone(student: tuple[str, Path]) -> None:
    modality, folder = student
    model = load(str(folder))
    for value in denoiser(model).network.leave.parameters():  # pyright: ignore[reportAttributeAccessIssue]
        torch.nn.init.normal_(value, std=0.1)
    prompts = ("Show me this: colour red.", "Show me this: colour blue.")
    both = written(model, *prompts)
    assert torch.equal(both[0], written(model, *prompts)[0])
    torch.testing.assert_close(both[0], written(model, prompts[0])[0])
    assert not torch.equal(both[0], written(model, *prompts, seed=2)[0])
    assert both[0].shape == cast(Tensor, registry.depiction(modality).depict(next(concepts({"colour"}))).value).shape


def test_models_and_adapters_are_saved_and_load_again(student: tuple[str, Path], tmp_path: Path) -> None:
    _, folder = student
    model = load(str(folder), adapter=AdapterConfig(r=2))
    plain = written(model, "Show me this: count two.")[0]
    made = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in model.trainable().values():
            value.copy_(torch.randn(value.shape, generator=made) * 0.1)
    before = written(model, "Show me this: count two.")[0]
    assert (before - plain).abs().max() > 0.1
    model.save(tmp_path / "adapter")
    model.save(tmp_path / "merged", merge=True)
    for name in ("adapter", "merged"):
        again = written(load(str(tmp_path / name)), "Show me this: count two.")[0]
        torch.testing.assert_close(again, before, rtol=0, atol=1e-3)  # merging sums in another order


def test_media_of_another_size_are_refused(student: tuple[str, Path]) -> None:
    modality, folder = student
    model = load(str(folder))
    whole = cast(Tensor, registry.depiction(modality).depict(next(concepts({"count"}))).value)
    row = read("oracle", split=f"{modality}/clean", limit=1)[0]
    answer = Message(role="assistant", parts=(Part(modality=modality, value=whole[..., :12]),))
    bad = type(row.chosen)(messages=(answer,))
    with pytest.raises(DataError, match="this tiny model makes"):
        model.assembly.preparer.encode(type(row).pair(row.prompt, row.chosen, bad))


def test_prompts_are_phrases_whatever_they_are() -> None:
    assert phrases("").tolist() == [0] * 8
    one, two = phrases("Show me this: count two, colour red."), phrases("a poem, about the sea")
    assert one.count_nonzero() == 2
    assert two.tolist()[:2] == [1, 1]  # unknown, and not nothing


def test_a_painter_learns(student: tuple[str, Path], tmp_path: Path) -> None:
    modality, folder = student
    model = load(str(folder))
    result = Trainer(
        model=model,
        objective=SFT(),
        data=read("oracle", split=f"{modality}/sft", limit=64),
        output_dir=tmp_path / "run",
        max_steps=40,
        learning_rate=3e-3,
        per_device_train_batch_size=8,
        quiet=True,
    ).train()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in _steps(result.folder)]
    assert sum(losses[-4:]) < 0.85 * sum(losses[:4])


def _steps(folder: Path) -> list[str]:
    return [line for line in (folder / "metrics.jsonl").read_text().splitlines() if '"loss": ' in line]


def test_a_report_shows_what_the_model_makes_before_and_after(
    student: tuple[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    modality, folder = student
    run = tmp_path / "run"
    train = ["train", "sft", "--model", str(folder), "--data", "oracle", "--data.split", f"{modality}/sft"]
    quick = ["--max_steps", "2", "--learning_rate", "0.1", "--data.limit", "4", "--output_dir", str(run)]
    _run(*train, *quick, "--model.adapter.r", "2")
    _run("report", str(run), "--samples", "2", "--num_inference_steps", "2", "--output", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("<img" if modality == "image" else f"<{modality}") == 4
    for said in ("Before", "After", read("oracle", split=f"{modality}/sft", limit=1)[0].prompt[0].parts[0].value):
        assert str(said) in page
    shown = [one.split('"')[1] for one in page.split("src=")[1:]]
    assert len(set(shown)) == 4  # the run changed what is made, and prompts differ
    capsys.readouterr()


def test_a_report_says_why_it_has_no_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    Trainer(model=toy_model(), objective=DPO(), data=toy_pairs(), output_dir=run, max_steps=1, quiet=True).train()
    assert _run("report", str(run), "--samples", "2", code=2) is None
    assert "model that the run started from" in capsys.readouterr().err
    assert _run("report", str(run), "--samples", "-1", code=2) is None


def _run(*arguments: str, code: int = 0) -> None:
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    assert end.value.code == code


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("modality", MODALITIES)
def test_the_contrast_of_pairs_with_a_shared_defect_helps_and_imitation_does_not(
    modality: str, seed: int, tmp_path: Path
) -> None:
    found = demonstrate(tmp_path / "run", settings(modality=modality, seed=seed), say=print, quiet=True)
    before, dpo, control, own = (stage.measure.accuracy.value for stage in found.stages)
    assert 0.4 <= before <= 0.7
    assert dpo >= before + 0.15
    assert own >= before + 0.15
    assert control < before
