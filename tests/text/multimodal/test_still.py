"""A language model that does not train is run once for each row, within a step, and with a cache in the whole run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import pytest
import torch

import modalign
from modalign.assembler import Sample, assemble, encode
from modalign.batch import Batch
from modalign.caching.features import FeatureCache
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.draws import Draws
from modalign.heads import LinearHead
from modalign.model import Model
from modalign.objectives import DPO, BradleyTerry, Objective
from modalign.registry import registry
from modalign.roles import Encoder
from modalign.training import Trainer
from modalign.world.concept import concepts
from modalign_audio.testing import tiny_audio
from modalign_image.testing import tiny_vision
from modalign_text.backbone import CausalLMBackbone

FROZEN = ("encoders", "backbone", "connectors.image")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parts")
    for name in ("text", "audio"):
        registry.depiction(name).student(folder / name)
    tiny_vision(folder / "tower", "clip")
    return folder


def composed(parts: Path, reads: str = "states", freeze: tuple[str, ...] = FROZEN) -> Model:
    """Pictures are read, sounds are made; by default nothing before the states trains."""
    connector = {"heads": 4, "reads": reads}
    model = modalign.compose(
        parts / "text",
        encoders={"image": parts / "tower"},
        decoders={"audio": {"path": str(parts / "audio"), "connector": connector}},
        freeze=freeze,
    )
    return model.eval()


def shown(modality: str, seed: int) -> Part:
    depiction = registry.depiction(modality)
    every = list(concepts(depiction.attributes))
    return depiction.depict(every[seed % len(every)], seed=seed)


def pair(number: int) -> Comparison:
    prompt = [Message(role="user", parts=(shown("image", number), Part(modality="text", value="one")))]
    said = [
        Response(messages=(Message(role="assistant", parts=(Part(modality="text", value="two"), shown("audio", at))),))
        for at in (number, number + 7)
    ]
    return replace(Comparison.pair(prompt, *said), id=f"pair-{number}")


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each pass through the language model."""
    found: list[int] = []
    forward = CausalLMBackbone.forward

    def noting(self: CausalLMBackbone, batch: Batch, embeddings: Mapping[str, torch.Tensor]) -> torch.Tensor:
        found.append(batch.layout.rows)
        return forward(self, batch, embeddings)

    monkeypatch.setattr(CausalLMBackbone, "forward", noting)
    return found


def trained(model: Model, folder: Path, objective: Objective, cache: Path | None = None) -> list[float]:
    Trainer(
        model=model,
        objective=objective,
        data=[pair(0), pair(1)],
        output_dir=folder,
        max_steps=4,
        learning_rate=1e-3,
        feature_cache=cache,
        quiet=True,
    ).train()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def test_policy_and_reference_share_it_and_a_cache_keeps_it_between_epochs(
    parts: Path, tmp_path: Path, counted: list[int]
) -> None:
    plain, first, second = (composed(parts) for _ in range(3))
    counted.clear()  # loading a model tries it
    losses = trained(plain, tmp_path / "plain", DPO())
    assert len(counted) == 4  # steps, and not twice as many
    counted.clear()
    assert trained(first, tmp_path / "first", DPO(), tmp_path / "features") == pytest.approx(losses, rel=1e-6)
    assert len(counted) == 2  # rows
    counted.clear()
    assert trained(second, tmp_path / "second", DPO(), tmp_path / "features") == pytest.approx(losses, rel=1e-6)
    assert counted == []


def test_a_reward_head_alone_reads_states_that_are_there(parts: Path, tmp_path: Path, counted: list[int]) -> None:
    tiny_audio(tmp_path / "ear", "whisper")
    plain, kept = (
        modalign.compose(
            parts / "text",
            encoders={"image": parts / "tower", "audio": tmp_path / "ear"},
            freeze=(*FROZEN, "connectors.audio", "decoders"),
        )
        for _ in range(2)
    )
    losses = trained(plain, tmp_path / "plain", BradleyTerry())
    counted.clear()
    assert trained(kept, tmp_path / "kept", BradleyTerry(), tmp_path / "features") == pytest.approx(losses, rel=1e-6)
    assert len(counted) == 2


@pytest.mark.parametrize(
    ("model", "passes"),
    [
        # a policy that trains is run in every step; its reference does not train: once for each row. What it reads at
        # learned queries is known by no content, and kept for a step only
        (("states", ("encoders", "backbone")), 4 + 2),
        (("states", ("encoders",)), 4 + 2),
        (("queries", FROZEN), 4 + 4),
    ],
    ids=str,
)
def test_what_trains_is_run_every_time(
    parts: Path, tmp_path: Path, counted: list[int], model: tuple[str, tuple[str, ...]], passes: int
) -> None:
    made = composed(parts, *model)
    counted.clear()
    trained(made, tmp_path / "run", DPO(), tmp_path / "features")
    assert len(counted) == passes


@pytest.mark.parametrize("read", ["last", "mean", "first"])
def test_a_head_reads_what_it_reads_anyway(parts: Path, read: Literal["last", "mean", "first"]) -> None:
    model = composed(parts)
    model.heads["reward"] = LinearHead(cast(CausalLMBackbone, model.backbone).width, dimensions=("reward",), read=read)
    sample = encode(pair(0), model.assembly.preparer, DPO().needs)
    with torch.no_grad():
        expected = model(assemble([sample], share=True), Draws(seed=1)).rewards["reward"]
        with model.memo.remembering():
            for _ in range(2):
                found = model(assemble([sample], share=True), Draws(seed=1)).rewards["reward"]
                torch.testing.assert_close(found, expected)


def test_what_is_kept_is_of_the_settings_of_a_tower_and_of_the_language_model(parts: Path, tmp_path: Path) -> None:
    model = composed(parts)
    sample = encode(pair(0), model.assembly.preparer, DPO().needs)
    model.memo.cache = FeatureCache(tmp_path / "features")

    def kept() -> set[Path]:
        with torch.no_grad():
            model(assemble([sample], share=True), Draws(seed=1))
        return {one for one in (tmp_path / "features").rglob("*.safetensors") if one.is_file()}

    first = kept()
    assert kept() == first
    encoder = cast(Encoder, model.encoders["image"])
    encoder.facts = {**encoder.facts, "media": "otherwise"}
    second = kept()
    assert len(second) == len(first) + 2  # what the tower gives, and the states behind it
    backbone = cast(CausalLMBackbone, model.backbone)
    backbone.facts = {"config": "otherwise"}
    assert len(kept()) == len(second) + 1


def test_adapters_that_may_be_off_are_run_every_time(parts: Path, counted: list[int]) -> None:
    model = modalign.load(parts / "text", adapter={"r": 2}).eval().requires_grad_(False)
    adapters = model.assembly.adapters
    assert adapters is not None
    for number, value in enumerate(adapters.parameters()):
        value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    two, one = Part(modality="text", value="two"), Part(modality="text", value="one")
    said = [Response(messages=(Message(role="assistant", parts=(part,)),)) for part in (two, one)]
    sample = encode(Comparison.pair([Message(role="user", parts=(one,))], *said), model.assembly.preparer, DPO().needs)
    counted.clear()
    with torch.no_grad(), model.memo.remembering():
        policy = model(assemble([sample], share=True), Draws(seed=1)).logps
        with adapters.off():
            reference = model(assemble([sample], share=True), Draws(seed=1)).logps
    assert len(counted) == 2
    assert not torch.equal(policy, reference)


def test_rows_are_told_apart_by_all_that_is_in_them(parts: Path, tmp_path: Path) -> None:
    model, draws = composed(parts), Draws(seed=1)
    rows = [pair(0), pair(1)]
    rows.append(replace(rows[0], responses=rows[1].responses, id="mixed"))
    samples = [encode(one, model.assembly.preparer, DPO().needs) for one in rows]
    with torch.no_grad():
        expected = [model(assemble([one], share=True), draws).segments for one in samples]
        model.memo.cache = FeatureCache(tmp_path / "features")
        for _ in range(2):
            for sample, segments in zip(samples, expected, strict=True):
                torch.testing.assert_close(model(assemble([sample], share=True), draws).segments, segments)
        # a whole batch, of rows that are there and rows of other trees
        both = cast("list[Sample]", samples[:2])
        for share in (True, False):
            found = model(assemble(both, share=share), draws).segments
            torch.testing.assert_close(found, torch.cat(expected[:2]), rtol=1e-5, atol=1e-6)
        for value in model.connectors["image"].parameters():  # another connector, another state
            value.mul_(2.0)
        fresh = FeatureCache(tmp_path / "features")
        model.memo.cache = fresh
        again = model(assemble(samples[:1], share=True), draws).segments
        model.memo.cache = None
        torch.testing.assert_close(again, model(assemble(samples[:1], share=True), draws).segments)
        assert not torch.allclose(again, expected[0])
