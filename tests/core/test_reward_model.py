"""A reward model as a function: what it takes, that it gives the model's numbers, and that its folder stays plain."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

import modalign
from modalign import RewardModel
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.draws import Draws
from modalign.errors import ConfigError, DataError, ModelError
from modalign.heads import GaussianHead, LabelHead, LinearHead, OrdinalHead
from modalign.model import Model
from modalign.testing import toy_batch, toy_model
from modalign.testing.doubles import ask, say
from modalign_text.testing import tiny_model


def numbers(model: Model, prompt: Sequence[Message], *responses: Response) -> torch.Tensor:
    """What the head `reward` says in a forward pass like those of training, ``a``."""
    batch = toy_batch([Comparison.group(prompt, responses)], share=False)
    with torch.no_grad():
        return model.eval()(batch, Draws()).rewards["reward"][:, 0].double()


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


def test_it_gives_the_number_of_a_forward_pass() -> None:
    model = toy_model(head=True)
    wanted = numbers(model, ask("say a: "), say("aa"))
    assert RewardModel(model)(user("say a: "), "aa") == {"reward": pytest.approx(wanted.item())}


def test_a_prompt_is_said_in_any_of_its_ways() -> None:
    judge = RewardModel(toy_model(head=True))
    wanted = judge(user("say a: "), "aa")
    block = [{"type": "text", "text": "say a: "}]
    for prompt in (user(block), ask("say a: ")):
        for answer in ("aa", [{"role": "assistant", "content": "aa"}], say("aa"), say("aa").messages):
            assert judge(prompt, answer) == wanted


def test_lists_are_judged_one_by_one_whatever_the_batch() -> None:
    model = toy_model(head=True)
    prompts = [user(f"say {letter}: ") for letter in "abbbc"]
    answers = ["aa", "b", "bbbb", "c", "cc"]
    alone = [RewardModel(model)(prompt, answer)["reward"] for prompt, answer in zip(prompts, answers, strict=True)]  # type: ignore[call-overload]
    for size in (1, 2, 8):
        found = RewardModel(model, batch_size=size)(prompts, answers)
        assert isinstance(found, list)
        assert [one["reward"] for one in found] == pytest.approx(alone, abs=1e-6)
    assert len(set(alone)) == 5


def test_one_prompt_takes_many_responses() -> None:
    judge = RewardModel(toy_model(head=True))
    many = judge(user("say a: "), ["aa", "b", "ccc"])
    assert many == judge([user("say a: ")] * 3, ["aa", "b", "ccc"])
    assert isinstance(many, list)
    assert [one["reward"] for one in many] == pytest.approx(
        [judge(user("say a: "), answer)["reward"] for answer in ("aa", "b", "ccc")],  # type: ignore[call-overload]
        abs=1e-6,
    )
    assert judge([], []) == []


def test_media_in_messages_are_judged() -> None:
    model = toy_model(head=True)
    blob = torch.tensor([1.0, -1.0, 0.5, 2.0])
    judge = RewardModel(model)
    found = judge(ask("look: ", blob), say("ok", blob))
    assert found == {"reward": pytest.approx(numbers(model, ask("look: ", blob), say("ok", blob)).item(), abs=1e-6)}
    assert found != judge(ask("look: ", blob), say("ok", -blob))


def test_no_gradient_and_no_dropout_even_when_the_model_trains_elsewhere() -> None:
    model = toy_model(head=True)
    judge = RewardModel(model)
    before = judge("say a: ", "aa")
    model.train()
    assert judge("say a: ", "aa") == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(parameter.requires_grad for parameter in model.heads.parameters())


def test_each_kind_of_head_answers_in_its_own_terms() -> None:
    model = toy_model()
    for name, head in {
        "linear": LinearHead(16, dimensions=("help",)),
        "sure": GaussianHead(16, dimensions=("truth",)),
        "labels": LabelHead(16, dimensions=("hate", "crime")),
        "rates": OrdinalHead(16, dimensions=("tone",)),
    }.items():
        model.heads[name] = head
    judge = RewardModel(model)
    assert judge.dimensions == ("help", "truth", "hate", "crime", "tone")
    found = judge("say a: ", "aa")
    assert isinstance(found, Mapping)
    assert set(found) == {"help", "truth", "truth/variance", "hate", "crime", "tone"}
    assert found["truth/variance"] > 0
    assert 0 < found["hate"] < 1
    assert 0 < found["tone"] < 3
    assert list(RewardModel(model, head="labels")("say a: ", "aa")) == ["hate", "crime"]


def test_two_heads_of_one_dimension_are_asked_apart() -> None:
    model = toy_model(head=True)
    model.heads["again"] = LinearHead(16)
    with pytest.raises(ModelError, match=r"two reward heads judge 'reward'; found: reward and again.*head='reward'"):
        RewardModel(model)
    assert list(RewardModel(model, head="again")("a", "b")) == ["reward"]


def test_what_cannot_be_judged_says_so() -> None:
    with pytest.raises(ModelError, match=r"has no reward head; found: heads: none.*modalign train reward"):
        RewardModel(toy_model())
    with pytest.raises(ModelError, match="no reward head 'x'; found: heads: reward"):
        RewardModel(toy_model(head=True), head="x")
    judge = RewardModel(toy_model(head=True))
    with pytest.raises(ConfigError, match="2 prompts and 1 responses"):
        judge(["a", "b"], ["c"])
    with pytest.raises(ConfigError, match="takes a list of responses"):
        judge(["a", "b"], "c")
    with pytest.raises(ConfigError, match="a string or messages; found: int"):
        judge(3, "c")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="an empty prompt"):
        judge("", "c")
    with pytest.raises(DataError, match="an empty response"):
        judge(user("a"), " ")
    with pytest.raises(DataError, match="begin and end with a message of the assistant"):
        judge(user("a"), user("b"))
    with pytest.raises(DataError, match=r"prompt\[0\].role"):
        judge([{"role": "nobody", "content": "a"}], "b")
    with pytest.raises(ConfigError, match="at least one response"):
        RewardModel(toy_model(head=True), batch_size=0)


# --- a folder of a language model ------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = modalign.load(tiny_model(tmp_path / "base"))
    torch.manual_seed(0)
    assert model.backbone is not None
    model.heads["quality"] = LinearHead(model.backbone.width, dimensions=("help", "truth"), read="mean")
    model.heads["sure"] = GaussianHead(model.backbone.width, dimensions=("overall",))
    model.save(tmp_path / "reward")
    return tmp_path / "reward"


def test_two_lines_judge_with_what_was_saved(folder: Path) -> None:
    judge = RewardModel.load(folder)
    verdict = judge(user("2+2?"), "4")
    assert isinstance(verdict, dict)
    assert set(verdict) == {"help", "truth", "overall", "overall/variance"}
    assert verdict != judge(user("2+2?"), "5")
    assert verdict == RewardModel.load(str(folder), head=None)(user("2+2?"), "4")
    assert not judge.model.training
    # a string is a continuation outside the chat template, as in rows of data
    assert verdict != judge("2+2?", "4")
    messages = (Message(role="user", parts=(Part(modality="text", value="2+2?"),)),)
    assert judge(messages, "4") == verdict


def test_plain_transformers_loads_the_folder(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert {"modalign.json", "heads.safetensors", "model.safetensors"} <= {path.name for path in folder.iterdir()}
    judge = RewardModel.load(folder, dtype="float32")
    # the same states by transformers alone: the mean over a chat's tokens, times the head's weights
    text = tokenizer.apply_chat_template([*user("2+2?"), {"role": "assistant", "content": "4"}], tokenize=False)
    ids = tokenizer(text.removesuffix("\n"), return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        states = plain.base_model(ids).last_hidden_state[0]  # n d
    weights = judge.model.heads["quality"].state_dict()["score.weight"]
    wanted = (states.mean(0) @ weights.T).tolist()
    verdict = judge(user("2+2?"), "4")
    assert isinstance(verdict, dict)
    assert [verdict["help"], verdict["truth"]] == pytest.approx(wanted, abs=1e-5)
    assert json.loads((folder / "modalign.json").read_text())["heads"]["quality"]["settings"]["read"] == "mean"
