"""The same loss and gradient as TRL 1.16 on the same model and the same tokens, through `Model.forward`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("trl")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
)
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_config import KTOConfig
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

import modalign
from modalign.assembler import Sample, assemble, encode
from modalign.batch import Batch
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.draws import Draws
from modalign.heads import LinearHead
from modalign.model import Model
from modalign.objectives import DPO, IPO, KTO, ORPO, BradleyTerry, Objective, SimPO
from modalign.roles import Encoded, EncodedSegment
from modalign_text.testing import tiny_model, tiny_tokenizer

# warnings of TRL and what it imports are not ours to mend
pytestmark = pytest.mark.filterwarnings("ignore")

LOSS = 1e-5  # of 1, relative
GRADIENT = 1e-4  # relative, in the norm of each parameter's gradient

# prompts and responses of odd lengths, so that rows are ragged: token ids below 256 are bytes, 258 ends a turn
PROMPTS = [[72, 105, 33, 10, 7], [81, 58, 32, 119, 104, 121, 63, 10, 65, 58, 3], [9, 200, 31]]
CHOSEN = [[65, 66, 67, 68, 258], [120, 121, 258], [40, 41, 42, 43, 44, 45, 46, 258]]
REJECTED = [[97, 258], [130, 131, 132, 133, 134, 135, 258], [40, 41, 50, 258]]
LABELS = [True, False, True]
MARGINS = [0.5, 0.0, 1.25]


# --- our side --------------------------------------------------------------------------------------


def encoded(prompt: Sequence[int], response: Sequence[int]) -> Encoded:
    tokens = (*prompt, *response)
    segment = EncodedSegment(modality="text", decoder="text", kind="token", start=len(prompt), stop=len(tokens))
    return Encoded(tokens=tokens, prompt=len(prompt), segments=(segment,))


def comparison(number: int, *, responses: int, margin: float | None = None) -> Comparison:
    """What the tokens above were said to be; only its key and margin matter once it is encoded."""
    said = tuple(
        Response(messages=(Message(role="assistant", parts=(Part(modality="text", value=f"{number} {one}"),)),))
        for one in range(responses)
    )
    kind = "pair" if responses == 2 else "unpaired"
    return Comparison(prompt=(), responses=said, kind=kind, id=str(number), margin=margin)


def pairs(model: Model, numbers: Sequence[int] = (0, 1, 2), margins: Sequence[float] | None = None) -> Batch:
    samples = [
        Sample(
            comparison=comparison(n, responses=2, margin=None if margins is None else margins[n]),
            encoded=(encoded(PROMPTS[n], CHOSEN[n]), encoded(PROMPTS[n], REJECTED[n])),
            own=2,
        )
        for n in numbers
    ]
    return assemble(samples, share=model.shares)


def labelled(model: Model) -> Batch:
    """Each response alone, beside the one before it laid under its prompt, as TRL rotates them."""
    samples = [
        Sample(
            comparison=comparison(n, responses=1),
            encoded=(encoded(PROMPTS[n], CHOSEN[n]), encoded(PROMPTS[n], CHOSEN[n - 1])),
            own=1,
            labels=(LABELS[n],),
        )
        for n in range(3)
    ]
    return assemble(samples, share=model.shares)


def step_of_ours(
    objective: Objective, policy: Model, reference: Model, batch: Batch
) -> tuple[float, Mapping[str, float], Model]:
    """The loss, the metrics, and the policy with the gradient."""
    scores = {"policy": policy(batch, Draws())}
    if "reference" in objective.needs.roles:
        with torch.no_grad():
            scores["reference"] = reference(batch, Draws())
    loss = objective(scores, batch.targets)
    loss.mean.backward()
    return loss.mean.item(), {name: (mean.sum / mean.count).item() for name, mean in loss.metrics.items()}, policy


# --- both ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A policy and a reference of other weights, so that log-ratios are not 0."""
    root = tmp_path_factory.mktemp("models")
    return tiny_model(root / "policy", scale=4.0), tiny_model(root / "reference", seed=1, scale=4.0)


def load(folders: tuple[Path, Path], sharing: str = "auto") -> tuple[Model, Model]:
    """Our policy and reference."""
    policy, reference = (modalign.load(folder, sharing=sharing, dtype="float32") for folder in folders)
    return policy, reference


def hugging_face(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def rows(columns: Mapping[str, Sequence[object]]) -> Dataset:
    """A data set a TRL trainer wants at its construction; the batches below do not come from it."""
    return Dataset.from_dict({name: list(values) for name, values in columns.items()})


WORDS = {"prompt": ["a", "b"], "chosen": [" c", " d"], "rejected": [" e", " f"]}
SETTINGS: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": "none", "per_device_train_batch_size": 3}


def step(trainer: Trainer, batch: Mapping[str, Tensor]) -> tuple[float, nn.Module]:
    """TRL's loss as its training loop takes it, and its model with the gradient."""
    model = cast(nn.Module, trainer.model).train()
    loss = cast(Tensor, trainer.compute_loss(model, dict(batch)))
    loss.backward()
    return loss.item(), model


def agree(
    ours: tuple[float, Mapping[str, float], Model],
    theirs: tuple[float, nn.Module],
    their_metrics: Mapping[str, Sequence[float]],
    names: Sequence[str],
) -> None:
    """Loss, metrics of these names, and the gradient of every parameter."""
    (loss, metrics, model), (their_loss, their_model) = ours, theirs
    assert loss == pytest.approx(their_loss, rel=LOSS, abs=LOSS)
    for name in names:
        assert metrics[name] == pytest.approx(their_metrics[name][-1], rel=1e-4, abs=1e-4), name
    gradients = {name: value.grad for name, value in model.named_parameters()}
    compared = 0
    for name, parameter in their_model.named_parameters():
        gradient = gradients.pop(renamed(name))
        assert (gradient is None) == (parameter.grad is None), name
        if gradient is not None and parameter.grad is not None:
            assert parameter.grad.norm() > 0, name
            assert (gradient - parameter.grad).norm() <= GRADIENT * parameter.grad.norm(), name
            compared += 1
    assert compared >= 20  # 9 weights of each of two layers, and norm, embeddings, head
    assert all(gradient is None for gradient in gradients.values()), "ours trains what theirs has not"


def renamed(name: str) -> str:
    """Our name of a parameter of a transformers model."""
    if name.startswith("model."):
        return name.replace("model.", "backbone.decoder.", 1)
    return {"lm_head.weight": "decoders.text.head.weight", "score.weight": "heads.reward.score.weight"}[name]


# --- DPO, IPO --------------------------------------------------------------------------------------

PAIR_METRICS = [
    *(f"rewards/{name}" for name in ("chosen", "rejected", "margins", "accuracies")),
    "logps/chosen",
    "logps/rejected",
]


@pytest.mark.parametrize(
    ("objective", "loss_type", "sharing"),
    [
        (DPO(beta=0.1), "sigmoid", "split"),
        (DPO(beta=0.1), "sigmoid", "mask"),
        (DPO(beta=1.5), "sigmoid", "off"),
        (IPO(beta=0.1, length_normalized=True), "ipo", "auto"),
    ],
    ids=str,
)
def test_pairs_agree(
    objective: DPO | IPO, loss_type: str, sharing: str, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    policy, reference = load(folders, sharing)
    trainer = DPOTrainer(
        model=hugging_face(folders[0]),
        ref_model=hugging_face(folders[1]),
        args=DPOConfig(
            output_dir=str(tmp_path), max_length=None, loss_type=[loss_type], beta=objective.beta, **SETTINGS
        ),
        train_dataset=rows(WORDS),
        processing_class=tiny_tokenizer(),
    )
    batch = trainer.data_collator(
        [
            {"prompt_ids": p, "chosen_ids": c, "rejected_ids": r}
            for p, c, r in zip(PROMPTS, CHOSEN, REJECTED, strict=True)
        ]
    )
    theirs = step(trainer, batch)
    ours = step_of_ours(objective, policy, reference, pairs(policy))
    agree(ours, theirs, trainer._metrics["train"], PAIR_METRICS)


def test_rows_of_plain_preferences_agree_from_their_words_on(folders: tuple[Path, Path], tmp_path: Path) -> None:
    words = {
        "prompt": ["The sky is", "2 + 2", "Naïve: a"],
        "chosen": [" blue.", " = 4", " word with ¨"],
        "rejected": [" a kind of soup", " = 5, I think", "!"],
    }
    policy, reference = load(folders)
    trainer = DPOTrainer(
        model=hugging_face(folders[0]),
        ref_model=hugging_face(folders[1]),
        args=DPOConfig(output_dir=str(tmp_path), beta=0.1, **SETTINGS),
        train_dataset=rows(words),
        processing_class=tiny_tokenizer(),
    )
    theirs = step(trainer, trainer.data_collator(cast(Any, list(cast(Dataset, trainer.train_dataset)))))
    data = modalign.read([dict(zip(words, row, strict=True)) for row in zip(*words.values(), strict=True)])
    samples = [encode(data[number], policy.assembly.preparer, DPO.needs) for number in range(3)]
    ours = step_of_ours(DPO(beta=0.1), policy, reference, assemble(samples, share=policy.shares))
    agree(ours, theirs, trainer._metrics["train"], PAIR_METRICS)


# --- KTO -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "clamped"),
    [({"beta": 0.1}, True), ({"beta": 0.5, "desirable_weight": 1.3, "undesirable_weight": 0.7}, False)],
    ids=str,
)
def test_kto_agrees(settings: dict[str, Any], clamped: bool, folders: tuple[Path, Path], tmp_path: Path) -> None:
    # with policy and reference in each other's place the KL estimate changes its sign: one of the two is clamped
    one, other = folders if clamped else folders[::-1]
    policy, reference = load((one, other))
    trainer = KTOTrainer(
        model=hugging_face(one),
        ref_model=hugging_face(other),
        args=KTOConfig(output_dir=str(tmp_path), max_length=None, **SETTINGS, **settings),
        train_dataset=rows({"prompt": ["a", "b"], "completion": [" c", " d"], "label": [True, False]}),
        processing_class=tiny_tokenizer(),
    )
    batch = trainer.data_collator(
        [
            {"prompt_ids": PROMPTS[n], "completion_ids": CHOSEN[n], "KL_completion_ids": CHOSEN[n - 1], "label": label}
            for n, label in enumerate(LABELS)
        ]
    )
    theirs = step(trainer, batch)
    ours = step_of_ours(KTO(**settings), policy, reference, labelled(policy))
    # the margin of what need not come in pairs is a difference of two means, taken once they are added up
    names = ["kl", *(name for name in PAIR_METRICS if name not in ("rewards/accuracies", "rewards/margins"))]
    agree(ours, theirs, trainer._metrics["train"], names)
    assert (ours[1]["kl"] == 0) == clamped


# --- rewards ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("margins", "center"), [(None, None), (MARGINS, 0.01)], ids=["plain", "margins and centring"])
def test_rewards_agree(
    margins: Sequence[float] | None, center: float | None, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    policy, reference = load(folders)
    theirs_model = AutoModelForSequenceClassification.from_pretrained(folders[0], num_labels=1, dtype=torch.float32)
    head = LinearHead(32)
    with torch.no_grad():
        nn.init.normal_(theirs_model.score.weight, std=0.5)
        head.score.weight.copy_(theirs_model.score.weight)
    policy.heads["reward"] = head
    trainer = RewardTrainer(
        model=theirs_model,
        args=RewardConfig(output_dir=str(tmp_path), max_length=None, center_rewards_coefficient=center, **SETTINGS),
        train_dataset=rows(WORDS),
        processing_class=tiny_tokenizer(),
    )
    batch = trainer.data_collator(
        [
            {"chosen_ids": PROMPTS[n] + CHOSEN[n], "rejected_ids": PROMPTS[n] + REJECTED[n]}
            | ({} if margins is None else {"margin": margins[n]})
            for n in range(3)
        ]
    )
    theirs = step(trainer, batch)
    objective = BradleyTerry(center_rewards_coefficient=center or 0.0)
    ours = step_of_ours(objective, policy, reference, pairs(policy, margins=margins))
    names = ["accuracy", "margin", "mean_reward", "min_reward", "max_reward"]
    agree(ours, theirs, trainer._metrics["train"], names)


# --- ORPO, SimPO -----------------------------------------------------------------------------------


def labels(prompt: Sequence[int], response: Sequence[int]) -> list[int]:
    return [-100] * len(prompt) + list(response)


def concatenated(trainer: ORPOTrainer | CPOTrainer) -> dict[str, Tensor]:
    """The pairs as TRL's experimental trainers take them."""
    examples: list[dict[str, list[int]]] = []
    for prompt, *responses in zip(PROMPTS, CHOSEN, REJECTED, strict=True):
        example: dict[str, list[int]] = {}
        for name, response in zip(("chosen", "rejected"), responses, strict=True):
            example[f"{name}_input_ids"] = [*prompt, *response]
            example[f"{name}_attention_mask"] = [1] * len(example[f"{name}_input_ids"])
            example[f"{name}_labels"] = labels(prompt, response)
        examples.append(example)
    return trainer.data_collator(examples)


# its logps are means over tokens, ours are sums
EXPERIMENTAL_METRICS = [name for name in PAIR_METRICS if not name.startswith("logps")]


def test_orpo_agrees(folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # TRL imitates the prompt as well, and averages over the tokens of all pairs; with prompts of one token and chosen
    # responses of one length that is what the paper says
    monkeypatch.setitem(globals(), "PROMPTS", [[7], [3], [31]])
    monkeypatch.setitem(globals(), "CHOSEN", [[65, 66, 67, 258], [120, 121, 122, 258], [40, 41, 42, 258]])
    policy, reference = load(folders)
    trainer = ORPOTrainer(
        model=hugging_face(folders[0]),
        args=ORPOConfig(output_dir=str(tmp_path), max_length=64, beta=0.5, **SETTINGS),
        train_dataset=rows(WORDS),
        processing_class=experimental_tokenizer(),
    )
    theirs = step(trainer, concatenated(trainer))
    ours = step_of_ours(ORPO(beta=0.5), policy, reference, pairs(policy))
    names = [*EXPERIMENTAL_METRICS, "nll_loss", "log_odds_ratio", "log_odds_chosen"]
    agree(ours, theirs, trainer._stored_metrics["train"], names)


def test_simpo_agrees(folders: tuple[Path, Path], tmp_path: Path) -> None:
    policy, reference = load(folders)
    settings: dict[str, Any] = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.5, "simpo_gamma": 1.4}
    trainer = CPOTrainer(
        model=hugging_face(folders[0]),
        args=CPOConfig(output_dir=str(tmp_path), max_length=64, **settings, **SETTINGS),
        train_dataset=rows(WORDS),
        processing_class=experimental_tokenizer(),
    )
    theirs = step(trainer, concatenated(trainer))
    ours = step_of_ours(SimPO(beta=2.5, gamma=1.4), policy, reference, pairs(policy))
    agree(ours, theirs, trainer._stored_metrics["train"], EXPERIMENTAL_METRICS)


def experimental_tokenizer() -> PreTrainedTokenizerFast:
    """TRL's experimental trainers want a tokenizer that begins sequences."""
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = "<|endoftext|>"
    return tokenizer
