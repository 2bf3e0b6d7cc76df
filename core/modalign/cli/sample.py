"""`modalign sample --model M --data ROWS --reward R --output pairs.jsonl`: pairs of a model's own responses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from modalign.cli.answering import counting, how, in_media, prompt_columns, prompts_of, rows_file
from modalign.errors import ConfigError, DataError

if TYPE_CHECKING:
    from modalign.comparison import Comparison
    from modalign.data.media_out import MediaFolder
    from modalign.roles import Reward
    from modalign.training.rollout import Judge, Tally


def sample(
    *,
    model: str,
    reward: str,
    output: Path,
    data: str | None = None,
    prompt: Sequence[str] = (),
    split: str | None = None,
    reward_dimension: str | None = None,
    cost: str | None = None,
    cost_dimension: str | None = None,
    cost_weight: float | None = None,
    cost_limit: float | None = None,
    count: int = 4,
    limit: int | None = None,
    seed: int = 0,
    max_new_tokens: int = 256,
    max_media: int = 8,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    batch_size: int = 8,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> int:
    """Sample several responses to each prompt, and write the best and the worst by a reward as a preference pair.

    Prompts whose responses all have the same reward, or none, are left out and counted. Rows are written as they come.
    With a cost, responses are ordered by what is left of the reward (`cost_weight`), or those come first that keep the
    limit (`cost_limit`).

    Parameters
    ----------
    model
        A model's folder (a run's `final/` among them) or an id on the hub.
    reward
        Name of a registered reward, or a reward model's folder or id.
    output
        A new JSONL file for the pairs, with their media in the folder `NAME_media` beside it.
    data
        Rows whose prompts are answered, or `oracle`.
    prompt
        What a user says, instead; may be given more than once.
    split
        Split of the rows; `prompts` of the oracle.
    reward_dimension
        Of a reward model, the dimension that counts; by default `reward`, or its only one.
    cost
        Name of a registered reward, or a folder or id of a model of `modalign train cost`: higher is worse. Needs
        `cost_weight` or `cost_limit`.
    cost_dimension
        Of that model, the dimension that counts; by default `cost`, or its only one.
    cost_weight
        Order responses by reward - `cost_weight` * cost.
    cost_limit
        Responses that cost more come after all others, the cheaper ones first; those others are ordered by reward. A
        cost above 0 means harm.
    count
        Responses to a prompt.
    limit
        Answer the first rows only.
    seed
        Of the sampling; each response to a prompt has one of its own, made from this.
    max_new_tokens
        Most tokens of a response.
    max_media
        Most media in a response of a model that writes words and media.
    temperature
        1 samples from the model; lower is closer to its most likely response.
    top_p
        Sample from the smallest set of tokens with this probability.
    top_k
        Sample from this many tokens; 0 is all.
    num_inference_steps
        Steps of a diffusion or flow sampler; by default the pipeline's own.
    guidance_scale
        How strongly media are pushed towards their prompt; by default the pipeline's own.
    batch_size
        Prompts at a time; `count` responses to each of them are in memory.
    dtype
        Type of the weights: auto, float32, bfloat16 or float16.
    revision
        Branch, tag or commit of an id on the hub.
    trust_remote_code
        Run code that the model's repository brings; needs a commit as revision where it is an id.
    """
    settings = how(
        max_new_tokens=max_new_tokens,
        max_media=max_media,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        batch_size=batch_size,
        seed=seed,
    )
    _one_use(cost, cost_dimension, cost_weight, cost_limit)
    media = rows_file(output)
    prompts = prompts_of("sample", prompt, data, split=split, limit=limit)
    from modalign.loading import load
    from modalign.training.costs import COST, Constrained, Penalised
    from modalign.training.rewards import find_reward
    from modalign.training.rollout import Tally, rollouts

    first = find_reward(reward, dimension=reward_dimension, batch_size=batch_size)
    judge: Judge = first
    if cost is not None:
        second = find_reward(cost, dimension=cost_dimension, batch_size=batch_size, usual=COST)
        if cost_weight is not None:
            judge = Penalised(first, second, weight=cost_weight)
        elif cost_limit is not None:
            judge = Constrained(first, second, limit=cost_limit)
    tally = Tally()
    answers = rollouts(
        load(model, dtype=dtype, revision=revision, trust_remote_code=trust_remote_code),
        prompts,
        judge,
        count=count,
        progress=counting(len(prompts)),
        **settings.model_dump(),
    )
    _write(output, tally.pairs(answers), media)
    if not tally.chosen:
        raise _nothing(tally, count, first)
    print(f"{len(tally.chosen)} pairs of {tally.prompts} prompts in {output}{in_media(media)}")
    print(f"mean reward {_mean(tally.rewards)}: chosen {_mean(tally.chosen)}, rejected {_mean(tally.rejected)}")
    if cost is not None:
        _say_costs(tally, cost_limit)
    if tally.dropped:
        print(f"left out: {_reasons(tally)}")
    return 0


def _one_use(cost: str | None, dimension: str | None, weight: float | None, limit: float | None) -> None:
    """Raise where the flags of a cost do not say one way in which it counts."""
    given = {"cost_dimension": dimension, "cost_weight": weight, "cost_limit": limit}
    said = [name for name, value in given.items() if value is not None]
    if cost is None and said:
        raise ConfigError("nothing says what costs", where=said[0], got="no --cost", fix="name the model with --cost")
    if cost is not None and (weight is None) == (limit is None):
        raise ConfigError(
            "a cost counts in one of two ways",
            where="cost",
            got="no weight and no limit" if weight is None else "a weight and a limit",
            fix="give --cost_limit 0 to rank what is harmful below all that is not, or --cost_weight 1 to subtract it",
        )


def _say_costs(tally: Tally, limit: float | None) -> None:
    """What chosen and rejected cost, and how many keep the limit."""
    every = [one["cost"] for one in tally.scores]
    chosen, rejected = ([one["cost"] for one in side] for side in zip(*tally.compared, strict=True))
    print(f"mean cost {_mean(every)}: chosen {_mean(chosen)}, rejected {_mean(rejected)}")
    if limit is not None:
        kept = [f"{sum(one <= limit for one in costs)} of {len(costs)}" for costs in (every, chosen, rejected)]
        print(f"cost at most {limit:g}: {kept[0]} responses, {kept[1]} chosen, {kept[2]} rejected")


def _write(output: Path, pairs: Iterable[Comparison], media: MediaFolder) -> None:
    """Write rows as they come, into a file that is made for the first of them."""
    with ExitStack() as stack:
        file = None
        for number, pair in enumerate(pairs, 1):
            file = file or stack.enter_context(output.open("x", encoding="utf-8"))
            file.write(f"{json.dumps(_row(pair, media, number), ensure_ascii=False)}\n")
            file.flush()


def _row(pair: Comparison, media: MediaFolder, number: int) -> dict[str, object]:
    """A row of the format `preference`, media in blocks that name their files."""
    from modalign.data.writing import column

    said: Mapping[str, object] = {
        **prompt_columns(media.take(pair.prompt, f"{number:05d}-prompt"), pair.chosen.messages),
        "chosen": column(media.take(pair.chosen.messages, f"{number:05d}-chosen")),
        "rejected": column(media.take(pair.rejected.messages, f"{number:05d}-rejected")),
        "score_chosen": pair.chosen.reward,
        "score_rejected": pair.rejected.reward,
        "chosen_scores": dict(pair.chosen.scores) or None,
        "rejected_scores": dict(pair.rejected.scores) or None,
        "margin": pair.margin,
        "id": pair.id,
        "weight": None if pair.weight == 1.0 else pair.weight,
        "facts": dict(pair.facts) or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _nothing(found: Tally, count: int, judge: Reward) -> DataError:
    """The error where no prompt gave a pair: what the reward said instead."""
    from modalign.world.reward import OracleReward

    said = f"{found.prompts} prompts, {count} responses to each; {_reasons(found)}"
    if found.rewards:
        least, most = min(found.rewards), max(found.rewards)
        said += f"; rewards: {f'all {least:g}' if least == most else f'{least:g} to {most:g}'}"
    fix = "raise --count or --temperature, train the model further, or take a reward that tells its responses apart"
    if isinstance(judge, OracleReward):
        if not found.rewards:
            fix = "ask what the oracle can judge: --data oracle"
        elif not any(found.rewards):
            said += ", as the oracle can read none of them, or finds nothing that was asked"
            fix = "teach the model first: modalign train sft"
    return DataError("no prompt gave a pair, so nothing is written", got=said, fix=fix)


def _reasons(found: Tally) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in found.dropped.items())


def _mean(numbers: Sequence[float]) -> str:
    return f"{sum(numbers) / len(numbers):.3f}"
