"""The trainer on the toy double: what it learns, what it refuses, what it leaves alone and what it leaves behind."""

import gc
import math
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from modalign.assembler import assemble
from modalign.comparison import Comparison
from modalign.draws import Draws
from modalign.errors import ConfigError, ModelError, ResourceError
from modalign.model import Model
from modalign.objectives import DPO, IPO, KTO, ORPO, SFT, BradleyTerry, Objective
from modalign.testing import toy_model, toy_pairs
from modalign.training import Trainer
from modalign.training.ranks import make_accelerator
from modalign.training.storage.metricslog import read_metrics


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make(
    folder: Path,
    *,
    model: Model | None = None,
    objective: Objective | None = None,
    data: object = None,
    **settings: object,
) -> Trainer:
    return Trainer(
        model=model or toy_model(),
        objective=objective or DPO(),
        data=toy_pairs(8) if data is None else data,
        quiet=True,
        **{"output_dir": folder, "learning_rate": 1e-2, **settings},
    )


def rows(folder: Path) -> list[dict[str, float]]:
    """Metrics without those that measure time."""
    found = read_metrics(folder / "metrics.jsonl")
    return [{name: value for name, value in row.items() if not name.startswith("perf/")} for row in found]


# --- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [False, True])
def test_the_first_loss_of_dpo_is_log_two_to_the_last_digit(tmp_path: Path, adapter: bool) -> None:
    trainer = make(
        tmp_path, model=toy_model(adapter=adapter), data=toy_pairs(8, blobs=True), per_device_train_batch_size=4
    )
    trainer.train()
    # -log sigmoid(0) = log 2
    assert rows(tmp_path)[0]["loss"] == math.log(2)
    assert rows(tmp_path)[1]["loss"] != math.log(2)


def test_a_tiny_run_learns(tmp_path: Path) -> None:
    result = make(
        tmp_path, max_steps=20, per_device_train_batch_size=8, lr_scheduler_type="constant", learning_rate=3e-2
    ).train()
    losses = [row["loss"] for row in rows(tmp_path)]
    assert losses[-1] < 0.5 * losses[0]
    assert result.steps == 20
    assert result.metrics["rewards/accuracies"] == 1.0


def test_the_split_of_a_step_does_not_change_it(tmp_path: Path) -> None:
    found = []
    for number, (batch, accumulation) in enumerate([(6, 1), (3, 2), (1, 6)]):
        folder = tmp_path / str(number)
        for objective in (SFT(), KTO()):
            make(
                folder / objective.__class__.__name__,
                objective=objective,
                data=toy_pairs(10),
                max_steps=3,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulation,
            ).train()
        found.append([row["loss"] for kind in ("SFT", "KTO") for row in rows(folder / kind)])
    # KTO too: its z0 is taken over the whole step, not over each micro-batch
    assert found[1] == pytest.approx(found[0], abs=1e-6)
    assert found[2] == pytest.approx(found[0], abs=1e-6)
    assert len(set(found[0])) == len(found[0])


def test_the_margin_of_responses_that_are_no_pairs_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    likes = [replace(pair.responses[number % 2], label=number % 2 == 0) for number, pair in enumerate(toy_pairs(6))]
    data = [Comparison.unpaired(pair.prompt, said) for pair, said in zip(toy_pairs(6), likes, strict=True)]
    found = []
    for batch in (6, 1):
        make(
            tmp_path / str(batch),
            objective=KTO(),
            data=data,
            max_steps=2,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=6 // batch,
        ).train()
        found.append(rows(tmp_path / str(batch))[-1])
    for row in found:
        assert row["rewards/margins"] == row["rewards/chosen"] - row["rewards/rejected"]
    assert found[1]["rewards/margins"] == pytest.approx(found[0]["rewards/margins"], abs=1e-6)
    assert found[0]["rewards/margins"] != 0


def test_a_micro_batch_that_reaches_nothing_that_trains_adds_no_gradient(tmp_path: Path) -> None:
    model = toy_model().requires_grad_(False)
    model.encoders.requires_grad_(True)
    before = model.get_parameter("encoders.blob.project.weight").clone()
    pairs = zip(toy_pairs(4), toy_pairs(4, blobs=True), strict=True)
    words_and_media = [blob if number % 2 else plain for number, (plain, blob) in enumerate(pairs)]
    make(tmp_path / "a", model=model, objective=SFT(), data=words_and_media).train()
    norms = [row["grad_norm"] for row in rows(tmp_path / "a")]
    # half of the samples hold a medium
    assert sorted(norm > 0 for norm in norms) == [False, False, True, True]
    assert not before.equal(model.get_parameter("encoders.blob.project.weight"))


def test_the_gradient_is_of_the_sum_over_the_global_count(tmp_path: Path) -> None:
    # one step of plain SGD would move by lr * gradient; AdamW's first moment after one step is (1 - beta1) * gradient
    model, data = toy_model(), toy_pairs(5)
    trainer = make(
        tmp_path,
        model=model,
        objective=SFT(),
        data=data,
        max_steps=1,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_grad_norm=0,
    )
    picked = [trainer.parts.data.sample(position, 0) for position in range(4)]
    batch = assemble(picked, share=True, pad=0)
    twin = toy_model().eval()
    scores = twin(batch, Draws())
    loss = -scores.logps.sum() / scores.counts.sum()
    loss.backward()
    trainer.train()
    state = load_file(tmp_path / "checkpoints" / "checkpoint-1" / "tensors.safetensors")
    assert rows(tmp_path)[0]["loss"] == pytest.approx(loss.item(), rel=1e-6)
    weight = twin.get_parameter("backbone.qkv.weight").grad
    assert weight is not None
    torch.testing.assert_close(state["optimizer.backbone.qkv.weight.exp_avg"], 0.1 * weight, rtol=1e-4, atol=1e-7)


def test_a_last_step_that_is_short_counts_what_it_has(tmp_path: Path) -> None:
    make(tmp_path, data=toy_pairs(7), per_device_train_batch_size=2, gradient_accumulation_steps=2).train()
    found = rows(tmp_path)
    # 7 pairs in steps of 4: 4 and 3
    assert [row["epoch"] for row in found] == [4 / 7, 1.0]
    tokens = sum(
        len(span)
        for position in range(7)
        for span in assemble(
            [make(tmp_path / "x", data=toy_pairs(7)).parts.data.sample(position, 0)], share=True
        ).layout.spans
    )
    assert found[-1]["num_tokens"] == tokens


def test_metrics_of_a_window_are_the_means_over_its_samples(tmp_path: Path) -> None:
    for every in (1, 3):
        make(
            tmp_path / str(every),
            data=toy_pairs(7),
            objective=SFT(),
            per_device_train_batch_size=2,
            num_train_epochs=1,
            logging_steps=every,
        ).train()
    each, together = rows(tmp_path / "1"), rows(tmp_path / "3")
    assert [row["step"] for row in together] == [3, 4]
    # steps of 2, 2, 2 and 1 responses
    assert together[0]["logps/chosen"] == pytest.approx(sum(row["logps/chosen"] for row in each[:3]) / 3, rel=1e-12)
    assert together[1]["loss"] == each[3]["loss"]


# --- refusals ----------------------------------------------------------------------------------------------------


def test_a_setting_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no setting 'learning_rat'"):
        make(tmp_path, learning_rat=1)
    with pytest.raises(ConfigError, match="max_steps"):
        make(tmp_path, max_steps=-1)


def test_a_model_gets_the_head_its_objective_needs_the_same_from_the_same_seed(tmp_path: Path) -> None:
    heads = []
    for seed in (0, 0, 1):
        model = toy_model()
        make(tmp_path, model=model, objective=BradleyTerry(), seed=seed)
        heads.append(next(model.heads["reward"].parameters()))
    assert heads[0].requires_grad
    assert heads[0].equal(heads[1])
    assert not heads[0].equal(heads[2])


def test_a_model_in_which_nothing_trains_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing in this model trains"):
        make(tmp_path, model=toy_model().requires_grad_(False))


def test_an_objective_refuses_draws_where_the_samples_have_them(tmp_path: Path) -> None:
    make(tmp_path / "words", objective=ORPO(), max_steps=1).train()
    with pytest.raises(ModelError, match="normalised likelihood"):
        make(tmp_path / "blobs", objective=ORPO(), data=toy_pairs(4, blobs=True)).train()


def test_a_run_folder_that_is_used_is_refused_and_kept(tmp_path: Path) -> None:
    make(tmp_path, max_steps=1).train()
    before = rows(tmp_path)
    with pytest.raises(ConfigError, match="earlier run"):
        make(tmp_path, max_steps=1).train()
    assert rows(tmp_path) == before


# --- what does not train -----------------------------------------------------------------------------------------


def test_a_reward_model_asks_no_decoder_and_trains_none(tmp_path: Path) -> None:
    model = toy_model(head=True)
    calls: list[str] = []
    for name, decoder in model.decoders.items():
        decoder.register_forward_hook(lambda *_, name=name: calls.append(name))
    make(tmp_path, model=model, objective=BradleyTerry(), max_steps=6, per_device_train_batch_size=8).train()
    assert calls == []
    assert not any(name.startswith("decoders.") for name in model.trainable())
    found = rows(tmp_path)
    assert found[-1]["loss"] < found[0]["loss"]
    assert {"accuracy", "margin", "mean_reward"} <= found[0].keys()


def test_a_head_that_the_loss_does_not_name_does_not_train(tmp_path: Path) -> None:
    model = toy_model(head=True)
    before = model.get_parameter("heads.reward.score.weight").clone()
    make(tmp_path, model=model, max_steps=2, weight_decay=0.5).train()
    assert before.equal(model.get_parameter("heads.reward.score.weight"))


def test_dropout_is_off_unless_asked_for(tmp_path: Path) -> None:
    model = toy_model()
    vars(model.get_submodule("backbone"))["attention_dropout"] = 0.2
    vars(model.get_submodule("backbone"))["drop_prob"] = 0.2  # stochastic depth
    make(tmp_path, model=model)
    assert model.get_submodule("backbone").drop_prob == 0.0
    assert model.get_submodule("backbone.dropout").p == 0.0
    assert model.get_submodule("backbone").attention_dropout == 0.0
    kept = toy_model()
    make(tmp_path, model=kept, disable_dropout=False)
    assert kept.get_submodule("backbone.dropout").p == 0.1


# --- what is left ------------------------------------------------------------------------------------------------


def test_a_run_folder_says_what_was_done(tmp_path: Path) -> None:
    result = make(tmp_path, max_steps=3, save_steps=1, run_name="first|try").train()
    assert result.folder == tmp_path
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["checkpoint-2", "checkpoint-3"]
    card = (tmp_path / "README.md").read_text()
    assert card == (tmp_path / "final/README.md").read_text()
    for said in ("first|try", "**dpo**", "beta 0.1", "| loss |", "modalign.load", "torch"):
        assert said in card
    assert "name: dpo" in (tmp_path / "config.yaml").read_text()
    assert not (tmp_path / "tmp-final").exists()


def test_a_model_is_left_as_it_was_found_and_can_be_trained_again(tmp_path: Path) -> None:
    model = toy_model().eval()
    make(tmp_path / "1", model=model, objective=SFT(), max_steps=1, mixed_precision="bf16").train()
    assert not model.training
    assert not {"forward", "_original_forward", "_is_accelerate_prepared"} & model.__dict__.keys()
    # a checkpoint's modules need not be in one mode: what a library loads is in evaluation mode, what wraps it is not
    model.train().encoders.eval()
    modes = [module.training for module in model.modules()]
    trainer = make(tmp_path / "unwritten", model=model, objective=SFT(), eval_data=toy_pairs(2))
    trainer.evaluate()
    assert [module.training for module in model.modules()] == modes
    make(tmp_path / "2", model=model, max_steps=1).train()
    # the reference is the model as the second run found it
    assert rows(tmp_path / "2")[0]["loss"] == math.log(2)


def test_bf16_starts_at_log_two_and_is_another_computation(tmp_path: Path) -> None:
    for precision in ("no", "bf16"):
        make(tmp_path / precision, max_steps=2, mixed_precision=precision).train()
    found = [rows(tmp_path / precision) for precision in ("no", "bf16")]
    assert found[1][0]["loss"] == math.log(2)
    assert found[1][0]["logps/chosen"] != found[0][0]["logps/chosen"]
    assert found[1][0]["logps/chosen"] == pytest.approx(found[0][0]["logps/chosen"], rel=2e-2)


def test_fp16_without_a_gpu_is_refused_in_words(tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("there is an accelerator")
    with pytest.raises(ConfigError, match="mixed_precision='fp16' does not work here"):
        make(tmp_path, mixed_precision="fp16")


def test_a_step_that_fp16_skips_has_no_norm_to_report(tmp_path: Path) -> None:
    # gradients of a thousand times 2^127 are infinite in float32; then the scale falls to 2^7
    trainer = make(
        tmp_path, objective=IPO(beta=1e-3), max_steps=2, learning_rate=1e-6, max_grad_norm=0, logging_steps=1
    )
    trainer.parts.ranks.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-120)
    trainer.train()
    assert ["grad_norm" in row for row in rows(tmp_path)] == [False, True]


def test_memory_that_runs_out_in_the_optimizer_is_told_as_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate the moments")

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    with pytest.raises(ResourceError, match=r"out of memory in step 1.*allocate the moments.*lower per_device"):
        make(tmp_path, max_steps=1).train()


def test_a_trainer_that_is_done_keeps_no_moments(tmp_path: Path) -> None:
    trainer = make(tmp_path, max_steps=1)
    made: list[weakref.ref[torch.optim.Optimizer]] = []
    torch_init = torch.optim.AdamW.__init__

    def remember(self: torch.optim.AdamW, *args: object, **settings: object) -> None:
        torch_init(self, *args, **settings)  # pyright: ignore[reportArgumentType]
        made.append(weakref.ref(self))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "__init__", remember)
        trainer.train()
    gc.collect()
    assert [one() for one in made] == [None]


def test_a_launcher_cannot_divide_the_loss_again_or_shard_unseen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerate = pytest.importorskip("accelerate")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert make_accelerator("no", toy_model()).gradient_accumulation_steps == 1
    monkeypatch.setattr(accelerate.Accelerator, "distributed_type", accelerate.DistributedType.FSDP)
    with pytest.raises(ConfigError, match="cannot shard a model; found: a launcher that asks for FSDP"):
        make(tmp_path)


def test_a_device_without_float64_is_left_for_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toy_model()
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("mps"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    asked: list[bool] = []

    def note(*, cpu: bool, **_: object) -> None:
        asked.append(cpu)
        raise InterruptedError

    monkeypatch.setattr("accelerate.Accelerator", note)
    with pytest.raises(InterruptedError):
        make_accelerator("no", model)
    assert asked == [True]
