"""What a model answers to prompts, several times each, with a reward; the best and the worst answer are a pair."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from typing import Final, TypeAlias, final

from modalign.comparison import Comparison
from modalign.config import GenerationConfig
from modalign.content import Message, Response
from modalign.data.messages import says_nothing
from modalign.errors import ConfigError, ModelError
from modalign.frozen import empty
from modalign.model import Model, generation


@final
@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a judge says of a response, where one number does not say it.

    rank: what responses to one prompt are ordered by, compared number by number; the highest is the best.
    reward: how good it is, which the response keeps.
    scores: further numbers by dimension, which it keeps too.
    """

    rank: tuple[float, ...]
    reward: float
    scores: Mapping[str, float] = field(default_factory=empty)

    @staticmethod
    def of(said: float | Verdict) -> Verdict:
        """What a judge said; of a number it is rank and reward."""
        return said if isinstance(said, Verdict) else Verdict(rank=(float(said),), reward=float(said))

    @property
    def finite(self) -> bool:
        """Whether it says anything: a judge says nothing of a response by a number that is not finite."""
        return all(map(math.isfinite, (*self.rank, self.reward, *self.scores.values())))

    def margin(self, other: Verdict) -> float | None:
        """How much better this one is, in reward; None where reward is not what put it before the other."""
        by_reward = self.rank[:-1] == other.rank[:-1] and (self.rank[-1], other.rank[-1]) == (self.reward, other.reward)
        return self.reward - other.reward if by_reward else None


#: A number or a `Verdict` per response: a `Reward`, or any function like it. NaN says nothing of a response.
Judge: TypeAlias = Callable[[Sequence[Sequence[Message]], Sequence[Response]], Sequence[float | Verdict]]

EQUAL: Final = "every response has the same reward"
SAME: Final = "the best and the worst response are the same"
UNJUDGED: Final = "fewer than two responses say something that has a reward"


@final
@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The responses to one prompt.

    asked: the prompt; responses it came with are not looked at.
    responses: in the order of their seeds; one that says nothing, or of which the judge says nothing, has no reward.
    verdicts: of each; None where there is none.
    """

    asked: Comparison
    responses: tuple[Response, ...]
    verdicts: tuple[Verdict | None, ...]

    @property
    def rewards(self) -> tuple[float, ...]:
        """Those there are, in order."""
        return tuple(one.reward for one in self.responses if one.reward is not None)

    @property
    def pair(self) -> Comparison | None:
        """The best response and the worst, the first of equals; its margin is what lies between their rewards, where
        that is what they were ordered by.

        It has the id of the prompt, else one by where the prompt was read.
        """
        return self._verdict if isinstance(self._verdict, Comparison) else None

    @property
    def dropped(self) -> str | None:
        """Why there is no pair."""
        return self._verdict if isinstance(self._verdict, str) else None

    @cached_property
    def _verdict(self) -> Comparison | str:
        judged = [(said, one) for said, one in zip(self.verdicts, self.responses, strict=True) if said is not None]
        if len(judged) < 2:
            return UNJUDGED
        (high, chosen), (low, rejected) = max(judged, key=_rank), min(judged, key=_rank)
        if high.rank == low.rank:
            return EQUAL
        if chosen.messages == rejected.messages:
            return SAME
        found, asked = Comparison.pair(self.asked.prompt, chosen, rejected, margin=high.margin(low)), self.asked
        name = asked.id or (None if asked.origin is None else str(asked.origin))
        return replace(found, id=name, origin=asked.origin, weight=asked.weight, facts=asked.facts)


def _rank(judged: tuple[Verdict, Response]) -> tuple[float, ...]:
    return judged[0].rank


@final
class Tally:
    """What became of prompts, counted while their pairs go by."""

    def __init__(self) -> None:
        self.prompts = 0
        self.dropped: Counter[str] = Counter()  #: prompts without a pair, by reason
        self.rewards: list[float] = []  #: of every response that has one
        self.chosen: list[float] = []
        self.rejected: list[float] = []
        self.scores: list[Mapping[str, float]] = []  #: of every response that has a reward
        self.compared: list[tuple[Mapping[str, float], Mapping[str, float]]] = []  #: of chosen and rejected

    def pairs(self, answers: Iterable[Rollout]) -> Iterator[Comparison]:
        """The pairs there are."""
        for one in answers:
            self.prompts += 1
            self.rewards += one.rewards
            self.scores += [said.scores for said in one.verdicts if said is not None]
            if (pair := one.pair) is None:
                self.dropped[one.dropped or ""] += 1
            else:
                self.chosen.append(pair.chosen.reward or 0.0)
                self.rejected.append(pair.rejected.reward or 0.0)
                self.compared.append((pair.chosen.scores, pair.rejected.scores))
                yield pair


@final
@dataclass(frozen=True, kw_only=True)
class SampledPairs:
    """What came of prompts.

    pairs: in the order of the prompts.
    dropped: how many prompts gave no pair, by reason.
    rewards: of every response that has one.
    """

    pairs: tuple[Comparison, ...]
    dropped: Mapping[str, int]
    rewards: tuple[float, ...]


def sample_pairs(
    model: Model,
    prompts: Iterable[Comparison],
    reward: Judge,
    *,
    count: int = 4,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    **settings: object,
) -> SampledPairs:
    """A preference pair of each prompt whose responses differ in reward: the best and the worst of ``count``.

    Everything is kept in memory: `rollouts` gives one prompt after the other.

    >>> from modalign.testing import ask, toy_model
    >>> prompts = [Comparison.prompt_only(ask("say a: "))]
    >>> found = sample_pairs(toy_model(), prompts, lambda asked, said: [1.0] * len(said), max_new_tokens=2)
    >>> found.pairs, dict(found.dropped)
    ((), {'every response has the same reward': 1})
    """
    tally = Tally()
    pairs = tuple(tally.pairs(rollouts(model, prompts, reward, count=count, seed=seed, progress=progress, **settings)))
    return SampledPairs(pairs=pairs, dropped=dict(tally.dropped), rewards=tuple(tally.rewards))


def rollouts(
    model: Model,
    prompts: Iterable[Comparison],
    reward: Judge,
    *,
    count: int = 4,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    **settings: object,
) -> Iterator[Rollout]:
    """The responses to each prompt, in order; no more than `batch_size` prompts are in memory at a time.

    reward: asked once for all responses to those prompts, which lie side by side for each prompt.
    count: responses to a prompt, each of another seed.
    seed: equal seeds give equal responses, where everything else is equal.
    progress: called with the number of prompts done.
    settings: of `GenerationConfig`; the temperature is 1 where none is given.
    """
    if count < 2:
        raise ConfigError("a pair is made of two responses", where="count", got=count, fix="give 2 or more")
    config = generation({"temperature": 1.0, **settings, "seed": seed})
    if config.temperature == 0 and _writes_words_only(model):
        raise ConfigError(
            "without a temperature every response to a prompt is the same",
            where="temperature",
            got=0,
            fix="set temperature=1.0",
        )
    return _rollouts(model, iter(prompts), reward, count=count, config=config, progress=progress)


def _writes_words_only(model: Model) -> bool:
    from modalign.world.source import words_modality

    return model.assembly.gives <= {words_modality()}


def _rollouts(
    model: Model,
    prompts: Iterator[Comparison],
    judge: Judge,
    *,
    count: int,
    config: GenerationConfig,
    progress: Callable[[int], None] | None,
) -> Iterator[Rollout]:
    done = 0
    while some := list(islice(prompts, config.batch_size)):
        asked = [one.prompt for one in some]
        seeds = _seeds(config.seed, done, count)
        rounds = [model.assembly.generate(model, asked, config.model_copy(update={"seed": one})) for one in seeds]
        answers = list(zip(*rounds, strict=True))
        if len(answers) != len(some):
            raise ModelError("one response to each prompt", got=f"{len(answers)} to {len(some)} prompts")
        judged = iter(_judged(judge, [prompt for prompt in asked for _ in seeds], list(chain(*answers))))
        for one in some:
            responses, said = zip(*islice(judged, count), strict=True)
            yield Rollout(asked=one, responses=responses, verdicts=said)
        done += len(some)
        if progress is not None:
            progress(len(some))


def _seeds(seed: int, done: int, count: int) -> range:
    """Seeds of the responses to prompts that come after others; those of another seed lie elsewhere."""
    # 31 bits, since a generator of noise multiplies what it is given
    start = int.from_bytes(hashlib.sha256(f"{seed}/{done}".encode()).digest()[:4]) >> 1
    return range(start, start + count)


def verdicts(
    judge: Judge, prompts: Sequence[Sequence[Message]], responses: Sequence[Response], name: str = "reward"
) -> list[Verdict]:
    """What a judge says of each response.

    name: what messages call the judge.
    """
    found = judge(prompts, responses)
    if len(found) != len(responses):
        raise ModelError(
            f"a {name} gives one number per response",
            got=f"{len(found)} numbers for {len(responses)} responses",
            fix=f"correct the {name}",
        )
    return [Verdict.of(one) for one in found]


def _judged(
    judge: Judge, prompts: Sequence[Sequence[Message]], responses: Sequence[Response]
) -> list[tuple[Response, Verdict | None]]:
    """The responses with their verdicts; those that say nothing are not judged, as no row could hold them."""
    speaking = [at for at, one in enumerate(responses) if not says_nothing(one.messages)]
    said = verdicts(judge, [prompts[at] for at in speaking], [responses[at] for at in speaking]) if speaking else []
    known = {at: one for at, one in zip(speaking, said, strict=True) if one.finite}
    return [_kept(one, known.get(at)) for at, one in enumerate(responses)]


def _kept(response: Response, said: Verdict | None) -> tuple[Response, Verdict | None]:
    if said is None:
        return replace(response, reward=None), None
    return replace(response, reward=said.reward, scores={**response.scores, **said.scores}), said
