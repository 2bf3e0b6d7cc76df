"""Reference scores that are kept: those of the live reference bit for bit, asked for once, refused where they vary."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from modalign import load
from modalign.assembler import assemble, encode
from modalign.batch import Batch
from modalign.config import AdapterConfig
from modalign.data import read
from modalign.draws import Draws
from modalign.errors import ConfigError
from modalign.model import Model
from modalign.objectives import DPO, SFT
from modalign.registry import registry
from modalign.testing.doubles import toy_model, toy_pairs
from modalign.training import Trainer
from modalign.training.ranks import make_accelerator
from modalign.training.reference import AdaptersOff, Policy
from modalign.training.remembered import Remembered

DRAWS = Draws(seed=3, count=2)


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = registry.depiction("image").student(tmp_path_factory.mktemp("student"))
    assert found is not None
    return found


@pytest.fixture
def model(student: Path) -> Model:
    model = load(str(student), adapter=AdapterConfig(r=2))
    torch.nn.init.normal_(dict(model.named_parameters())["decoders.image.denoiser.network.leave.base_layer.weight"])
    return model


def batch(model: Model, first: int, last: int) -> Batch:
    rows = read("oracle", split="image/shared-defect", limit=8)
    samples = [encode(rows[number], model.assembly.preparer, DPO.needs) for number in range(first, last)]
    return assemble(samples, share=model.shares)


@pytest.fixture
def policy(model: Model) -> Iterator[Policy]:
    policy = Policy(model, make_accelerator("no", model))
    with policy.prepared():
        yield policy


def test_what_is_kept_equals_the_live_reference_bit_for_bit(policy: Policy) -> None:
    live, kept = AdaptersOff(policy), Remembered(AdaptersOff(policy), policy)
    some = batch(policy.model, 0, 4)
    expected = live.scores(some, DRAWS)
    for _ in range(3):
        found = kept.scores(some, DRAWS)
        assert torch.equal(found.logps, expected.logps)
        assert torch.equal(found.drawn[1], expected.drawn[1])
    assert kept.asked == 1


def test_what_is_known_may_be_asked_for_in_other_company(policy: Policy) -> None:
    live, kept = AdaptersOff(policy), Remembered(AdaptersOff(policy), policy)
    for first in (0, 2):
        kept.scores(batch(policy.model, first, first + 2), DRAWS)
    other = batch(policy.model, 1, 3)
    torch.testing.assert_close(kept.scores(other, DRAWS).logps, live.scores(other, DRAWS).logps, rtol=1e-6, atol=0)
    assert kept.asked == 2
    kept.scores(other, Draws(seed=4, count=2))  # other draws are other scores
    assert kept.asked == 3


def test_draws_that_change_are_refused(policy: Policy) -> None:
    with pytest.raises(ValueError, match="epoch"):
        Remembered(AdaptersOff(policy), policy).scores(batch(policy.model, 0, 2), Draws(epoch=1))


def test_what_is_new_to_another_process_is_asked_everywhere(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, some = Remembered(AdaptersOff(policy), policy), batch(policy.model, 0, 2)
    kept.scores(some, DRAWS)
    monkeypatch.setattr(type(policy.accelerator), "num_processes", property(lambda _: 2))
    for others, asked in ((0.0, 1), (1.0, 2)):
        monkeypatch.setattr(policy.accelerator, "reduce", lambda said, reduction, more=others: said + more)
        kept.scores(some, DRAWS)
        assert kept.asked == asked


@pytest.mark.parametrize(
    ("objective", "settings", "says"),
    [
        (DPO(), {"draws": {"times": "stratified"}}, "spread over a batch"),
        (SFT(), {}, "compares with no reference"),
    ],
)
def test_what_cannot_be_kept_is_said(model: Model, tmp_path: Path, objective, settings, says: str) -> None:
    data = read("oracle", split="image/shared-defect", limit=4)
    with pytest.raises(ConfigError, match=says):
        Trainer(
            model=model, objective=objective, data=data, output_dir=tmp_path / "run", cache_reference=True, **settings
        )


def test_scores_of_tokens_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only scores that are draws"):
        Trainer(
            model=toy_model(adapter=True),
            objective=DPO(),
            data=toy_pairs(4),
            output_dir=tmp_path / "run",
            cache_reference=True,
        )


def test_a_run_with_kept_scores_asks_once_for_each_sample(model: Model, tmp_path: Path) -> None:
    trainer = Trainer(
        model=model,
        objective=DPO(beta=0.05),
        data=read("oracle", split="image/shared-defect", limit=4),
        output_dir=tmp_path / "run",
        cache_reference=True,
        per_device_train_batch_size=4,
        num_train_epochs=3,
        quiet=True,
    )
    trainer.train()
    kept = trainer.parts.scorers["reference"]
    assert isinstance(kept, Remembered)
    assert kept.asked == 1
