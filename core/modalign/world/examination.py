"""A model before the oracle: what it answers to prompts of the world, and how often that is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from modalign.comparison import Comparison
from modalign.content import Response
from modalign.errors import DataError
from modalign.world.measure import Measure, Verdict, judge, measure

if TYPE_CHECKING:
    from modalign.model import Model


@final
@dataclass(frozen=True, kw_only=True)
class Examination:
    """What a model answered, and what the oracle says of it.

    responses: one per prompt.
    measure: of all of them.
    """

    responses: tuple[Response, ...]
    measure: Measure


def examine(
    model: Model,
    rows: Sequence[Comparison],
    *,
    temperature: float = 1.0,
    max_new_tokens: int = 40,
    batch_size: int = 96,
    seed: int = 0,
) -> Examination:
    """What a model answers to the prompts of rows, judged; a `DataError` names a row that the oracle cannot judge.

    rows: of the oracle world; responses that they have are not looked at.
    temperature: 0 takes the most likely token; 1 samples from the model.
    seed: of the sampling.
    """
    from modalign.registry import registry

    words = [number for number, row in enumerate(rows) if _in_words(row)]
    found = dict(
        zip(
            words,
            model.generate(
                [rows[number].prompt for number in words],
                temperature=temperature,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                seed=seed,
            ),
            strict=True,
        )
    )
    # prompts with media are written one by one: with one seed for all, every answer would be drawn by the same numbers
    for number in sorted(set(range(len(rows))) - found.keys()):
        (found[number],) = model.generate(
            [rows[number].prompt],
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            seed=seed * len(rows) + number,
        )
    responses = tuple(found[number] for number in range(len(rows)))
    depictions = registry.depictions()
    verdicts: list[Verdict] = []
    for row, response in zip(rows, responses, strict=True):
        verdict = judge(row.prompt, response, depictions)
        if verdict is None:
            raise DataError(
                f"the oracle cannot judge an answer to {row.key}",
                field="prompt",
                got="neither a request of the oracle world nor a question about a readable medium of it",
                fix="ask with rows of the world: modalign.read('oracle', split='prompts-test')",
            )
        verdicts.append(verdict)
    return Examination(responses=responses, measure=measure(verdicts))


def _in_words(row: Comparison) -> bool:
    return all(isinstance(part.value, str) for message in row.prompt for part in message.parts)
