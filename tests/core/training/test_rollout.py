"""Sampling: the best and the worst of several responses are a pair, and whatever gives none is counted."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast, final

import pytest

from modalign.comparison import Comparison, Origin
from modalign.config import GenerationConfig
from modalign.content import Message, Response
from modalign.data import read
from modalign.errors import ConfigError, ModelError, PluginError
from modalign.model import Model
from modalign.reward import RewardModel
from modalign.roles import Assembly, Head, Reward
from modalign.testing import ask, say, toy_model
from modalign.training.rewards import ModelReward, find_reward
from modalign.training.rollout import EQUAL, SAME, UNJUDGED, rollouts, sample_pairs

Prompts = Sequence[Sequence[Message]]


@final
class Numbers(Assembly):
    """Answers a prompt with a number made of the seed and the prompt, and remembers who asked with which."""

    takes = frozenset({"text"})
    gives = frozenset({"text"})

    def __init__(self, answer: Callable[[str, int], str] = lambda words, seed: str(seed * 7919 % 1009)) -> None:
        self.answer = answer
        self.seeds: dict[str, list[int]] = {}
        self.configs: list[GenerationConfig] = []

    def save(self, model: Model, folder: Path, *, merge: bool = False) -> None:
        raise NotImplementedError

    def generate(
        self,
        model: Model,
        prompts: Prompts,
        config: GenerationConfig,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[Response]:
        self.configs.append(config)
        for prompt in prompts:
            self.seeds.setdefault(words_of(prompt), []).append(config.seed)
        return [say(self.answer(words_of(prompt), config.seed)) for prompt in prompts]


@final
class Size(Reward):
    """The number a response is."""

    def __call__(self, prompts: Prompts, responses: Sequence[Response]) -> list[float]:
        return [number(one) for one in responses]


def words_of(prompt: Sequence[Message]) -> str:
    return str(prompt[-1].parts[-1].value)


def number(response: Response) -> float:
    return float(str(next(response.parts()).value))


def model_of(assembly: Assembly | None = None) -> Model:
    return Model(assembly=assembly or Numbers())


def prompts(count: int = 5) -> list[Comparison]:
    return [replace(Comparison.prompt_only(ask(f"prompt {at}")), id=f"p{at}") for at in range(count)]


def test_the_best_and_the_worst_of_all_responses_are_the_pair() -> None:
    answers = list(rollouts(model_of(), prompts(), Size(), count=6, batch_size=2))
    assert [one.asked.id for one in answers] == ["p0", "p1", "p2", "p3", "p4"]
    for one in answers:
        every = [number(response) for response in one.responses]
        assert one.rewards == tuple(every)
        assert len(every) == 6
        assert one.pair is not None
        assert (one.pair.chosen.reward, one.pair.rejected.reward) == (max(every), min(every))
        assert (number(one.pair.chosen), number(one.pair.rejected)) == (max(every), min(every))
        assert one.pair.margin == max(every) - min(every)
        assert (one.pair.prompt, one.pair.id) == (one.asked.prompt, one.asked.id)


def test_a_plain_function_is_a_reward_too() -> None:
    found = sample_pairs(model_of(), prompts(), lambda asked, said: [-number(one) for one in said])
    turned = sample_pairs(model_of(), prompts(), Size())
    assert len(found.pairs) == 5
    for one, other in zip(found.pairs, turned.pairs, strict=True):
        assert (one.chosen.messages, one.rejected.messages) == (other.rejected.messages, other.chosen.messages)


def test_a_reward_sees_each_response_beside_its_own_prompt() -> None:
    def starts_alike(asked: Prompts, said: Sequence[Response]) -> list[float]:
        pairs = [(words_of(one), str(next(other.parts()).value)) for one, other in zip(asked, said, strict=True)]
        assert all(answer.startswith(prompt) for prompt, answer in pairs)
        return [float(answer[-1]) for _, answer in pairs]

    found = sample_pairs(model_of(Numbers(lambda words, seed: f"{words} {seed}")), prompts(), starts_alike)
    assert len(found.pairs) == 5


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_every_response_to_a_prompt_has_another_seed(batch_size: int) -> None:
    first, second = Numbers(), Numbers()
    for seed, assembly in ((0, first), (1, second)):
        sample_pairs(model_of(assembly), prompts(), Size(), count=4, seed=seed, batch_size=batch_size)
        assert {len(set(seeds)) for seeds in assembly.seeds.values()} == {4}
    # runs of neighbouring seeds share no response
    assert not {one for seeds in first.seeds.values() for one in seeds} & {
        one for seeds in second.seeds.values() for one in seeds
    }


def test_equal_seeds_give_equal_pairs_and_others_do_not() -> None:
    one, again, other = (sample_pairs(model_of(), prompts(), Size(), seed=seed) for seed in (3, 3, 4))
    assert one == again
    assert one.pairs != other.pairs
    # prompts that come later change nothing of those before
    fewer = sample_pairs(model_of(), prompts()[:2], Size(), seed=3, batch_size=2)
    assert fewer.pairs == sample_pairs(model_of(), prompts(), Size(), seed=3, batch_size=2).pairs[:2]


def test_settings_reach_the_model_and_it_samples_unless_told_otherwise() -> None:
    assembly = Numbers()
    sample_pairs(model_of(assembly), prompts(1), Size(), count=2, num_inference_steps=3, guidance_scale=2.0)
    assert [one.num_inference_steps for one in assembly.configs] == [3, 3]
    assert [one.guidance_scale for one in assembly.configs] == [2.0, 2.0]
    assert [one.temperature for one in assembly.configs] == [1.0, 1.0]


def test_prompts_without_a_pair_are_counted_by_reason() -> None:
    def answer(words: str, seed: int) -> str:
        return "1" if words.endswith("0") else "" if words.endswith("1") else str(seed)

    def judge(asked: Prompts, said: Sequence[Response]) -> list[float]:
        return [math.nan if words_of(one).endswith("2") else number(two) for one, two in zip(asked, said, strict=True)]

    found = sample_pairs(model_of(Numbers(answer)), prompts(4), judge, count=3)
    assert [one.id for one in found.pairs] == ["p3"]
    assert found.dropped == {EQUAL: 1, UNJUDGED: 2}
    assert len(found.rewards) == 3 + 3  # of the first prompt and the last


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_response_without_a_finite_reward_is_neither_best_nor_worst(bad: float) -> None:
    judge = lambda asked, said: [bad, 2.0, 5.0, bad]  # noqa: E731 - named for the line below
    (one,) = rollouts(model_of(), prompts(1), judge)
    assert one.rewards == (2.0, 5.0)
    assert one.pair is not None
    assert (one.pair.chosen, one.pair.rejected) == (one.responses[2], one.responses[1])


def test_equal_responses_of_a_judge_that_wavers_are_no_pair() -> None:
    found = sample_pairs(
        model_of(Numbers(lambda words, seed: "7")), prompts(1), lambda asked, said: [1.0, 2.0], count=2
    )
    assert found.dropped == {SAME: 1}


def test_responses_that_say_nothing_are_not_judged() -> None:
    seen: list[str] = []

    def judge(asked: Prompts, said: Sequence[Response]) -> list[float]:
        seen.extend(str(next(one.parts()).value) for one in said)
        return [float(len(one)) for one in seen]

    silent = Numbers(lambda words, seed: "" if seed % 2 else "x" * (1 + seed % 3))
    (one,) = rollouts(model_of(silent), prompts(1), judge)
    assert len(seen) == 2
    assert sum(response.reward is None for response in one.responses) == 2


def test_prompts_that_came_with_responses_are_asked_all_the_same() -> None:
    rows = read([{"prompt": "a", "chosen": "b", "rejected": "c", "facts": {"kind": "x"}, "weight": 2.0}])
    (pair,) = sample_pairs(model_of(), rows, Size()).pairs
    assert pair.prompt == rows[0].prompt
    assert pair.origin == rows[0].origin
    assert pair.id == str(rows[0].origin)  # it says where the prompt stands, since rows without a pair are left out
    assert (dict(pair.facts), pair.weight) == ({"kind": "x"}, 2.0)


def test_a_prompt_from_nowhere_gives_a_pair_without_a_name() -> None:
    (pair,) = sample_pairs(model_of(), [Comparison.prompt_only(ask("hi"))], Size()).pairs
    assert (pair.id, pair.origin) == (None, None)
    named = replace(Comparison.prompt_only(ask("hi")), origin=Origin(file="x.jsonl", row=3))
    assert sample_pairs(model_of(), [named], Size()).pairs[0].id == "x.jsonl:3"


def test_no_more_prompts_are_taken_than_are_answered_together() -> None:
    taken: list[str | None] = []

    def source() -> Iterator[Comparison]:
        for one in prompts(6):
            taken.append(one.id)
            yield one

    done: list[int] = []
    answers = rollouts(model_of(), source(), Size(), batch_size=2, progress=done.append)
    assert taken == []
    next(answers)
    assert taken == ["p0", "p1"]
    assert len(list(answers)) == 5
    assert done == [2, 2, 2]


def test_no_prompts_give_no_pairs() -> None:
    found = sample_pairs(model_of(), [], Size())
    assert (found.pairs, dict(found.dropped), found.rewards) == ((), {}, ())


def test_mistakes_are_met_before_anything_is_sampled() -> None:
    assembly = Numbers()
    with pytest.raises(ConfigError, match="a pair is made of two responses"):
        rollouts(model_of(assembly), prompts(), Size(), count=1)
    with pytest.raises(ConfigError, match="seed"):
        rollouts(model_of(assembly), prompts(), Size(), seed=-1)
    for name, value, said in (
        ("temperature", 0.0, "every response to a prompt is the same"),
        ("temprature", 1.0, "temprature"),
        ("batch_size", 0, "batch_size"),
    ):
        with pytest.raises(ConfigError, match=said):
            _ = rollouts(model_of(assembly), prompts(), Size(), **{name: value})  # pyright: ignore[reportArgumentType]
    assert assembly.configs == []


def test_a_reward_of_too_few_numbers_is_named() -> None:
    with pytest.raises(ModelError, match="1 numbers for 20 responses"):
        sample_pairs(model_of(), prompts(), lambda asked, said: [1.0])


# --- rewards by name ----------------------------------------------------------------------------------------------


def test_a_reward_model_is_a_reward() -> None:
    judge = RewardModel(toy_model(head=True))
    reward = ModelReward(judge)
    assert reward([ask("say a: "), ask("say b: ")], [say("aa"), say("ab")]) == [
        judge.judge([ask("say a: ")], [say("aa")])[0]["reward"],
        judge.judge([ask("say b: ")], [say("ab")])[0]["reward"],
    ]
    found = sample_pairs(model_of(), prompts(), ModelReward(judge, dimension="reward"))
    for pair in found.pairs:
        best, worst = judge.judge([pair.prompt] * 2, pair.responses)
        assert pair.chosen.reward == pytest.approx(best["reward"], abs=1e-6)
        assert pair.rejected.reward == pytest.approx(worst["reward"], abs=1e-6)
        assert best["reward"] > worst["reward"]


def test_a_dimension_that_a_reward_model_does_not_judge_is_named_with_those_it_does() -> None:
    with pytest.raises(ConfigError, match=r"judges no 'beauty'; found: dimensions: reward"):
        ModelReward(RewardModel(toy_model(head=True)), dimension="beauty")


def test_of_several_dimensions_one_has_to_be_named() -> None:
    model = toy_model(head=True)
    head = cast(Head, model.heads["reward"])
    head.dimensions = ("clarity", "truth")
    with pytest.raises(ConfigError, match=r"which dimension is the reward\?; found: dimensions: clarity, truth"):
        ModelReward(RewardModel(model))
    assert ModelReward(RewardModel(model), dimension="truth").dimension == "truth"
    head.dimensions = ("clarity", "reward")
    assert ModelReward(RewardModel(model)).dimension == "reward"


def test_a_name_that_is_no_reward_is_met_with_those_there_are() -> None:
    with pytest.raises(PluginError, match=r"no reward 'orcale'; found: registered: .*oracle.*no folder.*'oracle'\?"):
        find_reward("orcale")
    with pytest.raises(ConfigError, match="only a reward model has dimensions"):
        find_reward("oracle", dimension="truth")
    with pytest.raises(ModelError):
        find_reward("./no-such-folder")
