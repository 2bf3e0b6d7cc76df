"""The pieces of a step: its plan, its counts, its optimizer; and evaluation, which takes none."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from modalign.assembler import Sample, assemble, encode
from modalign.batch import Batch
from modalign.comparison import Comparison
from modalign.draws import Draws
from modalign.errors import DataError
from modalign.objectives import DPO, KTO, SFT, Objective
from modalign.scores import Scores, Units
from modalign.testing import toy_model, toy_pairs
from modalign.testing.doubles import BLOB
from modalign.training import Trainer, TrainingConfig
from modalign.training.loader import Assembling, grouped
from modalign.training.optimizer import make_optimizer, schedule
from modalign.training.plan import Pick, Plan
from modalign.training.steps import scored_tokens
from modalign.training.storage.metricslog import read_metrics


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(folder: Path) -> list[dict[str, float]]:
    """Metrics without those that measure time."""
    found = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in found]


def test_evaluation_is_the_mean_over_all_samples_whatever_the_batch(tmp_path: Path) -> None:
    found = [
        Trainer(
            model=toy_model(),
            objective=SFT(),
            data=toy_pairs(2),
            eval_data=toy_pairs(7, blobs=True),
            per_device_eval_batch_size=batch,
            output_dir=tmp_path,
        ).evaluate()
        for batch in (1, 3, 7)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-6)
    assert found[2] == pytest.approx(found[0], rel=1e-6)
    scores = toy_model().eval()(
        assemble([_sample(pair) for pair in toy_pairs(7, blobs=True)], share=True), Draws(seed=0)
    )
    assert found[0]["eval_loss"] == pytest.approx((-scores.logps.sum() / scores.counts.sum()).item(), rel=1e-6)
    assert not (tmp_path / "metrics.jsonl").exists()


def _sample(pair: Comparison) -> Sample:
    return encode(pair, toy_model().assembly.preparer, SFT.needs)


def test_a_run_evaluates_when_due_and_once_at_the_end(tmp_path: Path) -> None:
    trainer = Trainer(
        model=toy_model(),
        objective=DPO(),
        data=toy_pairs(8),
        eval_data=toy_pairs(4),
        output_dir=tmp_path,
        max_steps=4,
        eval_steps=2,
        quiet=True,
    )
    result = trainer.train()
    assert [row["step"] for row in rows(tmp_path) if "eval_loss" in row] == [2, 4]
    assert "eval_rewards/accuracies" in result.metrics
    assert trainer.evaluate()["eval_loss"] == result.metrics["eval_loss"]


def test_matrices_decay_and_heads_may_have_a_rate_of_their_own() -> None:
    config = TrainingConfig(learning_rate=1e-3, head_learning_rate=1e-2, weight_decay=0.1)
    groups = make_optimizer(toy_model(head=True), config).param_groups
    assert {(group["weight_decay"], group["peak"]) for group in groups} == {(0.1, 1e-3), (0.0, 1e-3), (0.1, 1e-2)}
    assert all((group["weight_decay"] > 0) == (value.ndim >= 2) for group in groups for value in group["params"])


def test_schedules_have_the_shapes_that_transformers_gives_them() -> None:
    transformers = pytest.importorskip("transformers")
    for name in ("constant", "linear", "cosine"):
        config = TrainingConfig(lr_scheduler_type=name, warmup_steps=3)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        known = transformers.get_scheduler(
            "constant_with_warmup" if name == "constant" else name, optimizer, num_warmup_steps=3, num_training_steps=10
        )
        for step in range(10):
            assert schedule(config, step, 10) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
            optimizer.step()
            known.step()


@pytest.mark.parametrize(("batch", "accumulation", "world"), [(1, 1, 1), (2, 1, 2), (1, 3, 2), (3, 2, 3)])
def test_every_position_is_taken_once_and_every_process_takes_as_many_micro_batches(
    batch: int, accumulation: int, world: int
) -> None:
    plan = Plan(total=23, batch=batch, accumulation=accumulation, world=world)
    seen: list[int] = []
    for step in range(plan.steps):
        ranks = [plan.micro_batches(step, rank=rank) for rank in range(world)]
        assert len({len(micro) for micro in ranks}) == 1
        assert all(len(micro) > 0 for micros in ranks for micro in micros)
        real = [pick.position for micros in ranks for micro in micros for pick in micro if pick.real]
        assert set(real) == set(range(step * plan.together, min((step + 1) * plan.together, 23)))
        seen += real
    assert sorted(seen) == list(range(23))


def test_tokens_are_counted_before_the_forward_pass_as_scores_count_them() -> None:
    pairs = toy_pairs(3, blobs=True)
    batch: Batch = assemble([_pair(pair) for pair in pairs], share=True)
    scores: Scores = toy_model().eval()(batch, Draws())
    assert scored_tokens(batch).equal(scores.counts)
    half = replace(batch, segments=tuple(replace(one, weight=float(n % 2)) for n, one in enumerate(batch.segments)))
    scores = toy_model().eval()(half, Draws())
    assert scored_tokens(half).equal(scores.counts)
    assert isinstance(scores.units["text"], Units)


def _pair(pair: Comparison) -> Sample:
    return encode(pair, toy_model().assembly.preparer, DPO.needs)


def test_a_filler_has_no_weight() -> None:
    sample = _pair(toy_pairs(1)[0])
    made = Assembling(share=True, pad=0, objective=DPO())([(Pick(0, real=False), sample)])
    assert not isinstance(made, Exception)
    assert (made.samples, made.tokens, made.batch.targets.weights.tolist()) == (0, 0, [0.0])


def _look(seen: list[set[bool]], read: list[int], _: object, inputs: tuple[Batch, Draws]) -> None:
    """Note whether the samples of a batch have blobs, and how many tokens are read for them."""
    batch = inputs[0]
    blobs = {batch.ids[one.response] for one in batch.segments if one.modality == BLOB}
    seen.append({name in blobs for name in batch.ids})
    read.append(batch.tokens.numel())


def _mixed() -> list[Comparison]:
    """Pairs of words, and pairs with blobs among them, by turns."""
    either = toy_pairs(8, blobs=True), toy_pairs(8)
    return [replace(either[number % 2][number], id=str(number)) for number in range(8)]


@pytest.mark.parametrize("objective", [DPO(), SFT(), KTO()], ids=lambda one: type(one).__name__)
def test_like_samples_lie_together_and_the_step_stays_the_same(objective: Objective, tmp_path: Path) -> None:
    widths: dict[bool, int] = {}
    ended: dict[bool, dict[str, torch.Tensor]] = {}
    for group in (False, True):
        model = toy_model()
        seen: list[set[bool]] = []
        read: list[int] = []

        handle = model.register_forward_pre_hook(partial(_look, seen, read))
        Trainer(
            model=model,
            objective=objective,
            data=_mixed(),
            output_dir=tmp_path / str(group),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=4,
            max_steps=3,
            learning_rate=1e-2,
            adam_epsilon=1e-2,  # a gradient that is nothing but rounding moves nothing
            group_micro_batches=group,
            quiet=True,
        ).train()
        handle.remove()
        widths[group] = sum(read)
        ended[group] = {name: value.detach() for name, value in model.named_parameters()}
        if not objective.needs.mismatched:  # another prompt's response may be of another kind
            assert all(len(kinds) == 1 for kinds in seen) == group
    for name, value in ended[False].items():
        assert torch.allclose(ended[True][name], value, rtol=1e-4, atol=1e-6), name
    first, second = ([row["loss"] for row in rows(tmp_path / str(group)) if "loss" in row] for group in (False, True))
    assert second == pytest.approx(first, rel=1e-5)
    assert objective.needs.mismatched or widths[True] < widths[False]


def test_a_problem_of_a_sample_leaves_the_step_as_it_is() -> None:
    sample, problem = _pair(toy_pairs(1)[0]), DataError("wrong")
    planned = [[(Pick(0), sample)], [(Pick(1), problem)]]
    assert grouped(planned) == planned
