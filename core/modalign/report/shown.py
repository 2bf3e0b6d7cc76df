"""Prompts and responses as a report shows them: text, pictures and players, with what the oracle says of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from modalign.content import Message, Part, Response
from modalign.model import Model, generation
from modalign.registry import registry
from modalign.report.page import Answer, Case
from modalign.world.measure import Verdict, judge


def before_and_after(
    models: tuple[Callable[[], Model], Callable[[], Model]], prompts: Sequence[Sequence[Message]], **settings: object
) -> list[Case]:
    """What two models answer to the same prompts, from the same seed.

    models: load the one before and the one after; each is let go before the next.
    settings: of `GenerationConfig`.
    """
    config = generation(settings)

    def written(make: Callable[[], Model]) -> list[Response]:
        model = make()
        return model.assembly.generate(model, prompts, config)

    first, second = (written(make) for make in models)
    return [
        Case(
            prompt=show_all(prompt),
            answers=(answer("Before", "start", prompt, one), answer("After", "dpo", prompt, other)),
        )
        for prompt, one, other in zip(prompts, first, second, strict=True)
    ]


def answer(label: str, role: str, prompt: Sequence[Message], response: Response) -> Answer:
    """A response to a prompt; of the oracle world, with what is right in it.

    label, role: whose it is.
    """
    verdict = judge(prompt, response, registry.depictions())
    return Answer(
        label=label,
        role=role,
        html=show(response.parts()),
        marks=() if verdict is None or verdict.shown is None else tuple(verdict.right.items()),
        summary=_summary(verdict),
        right=None if verdict is None else verdict.accurate,
    )


def show_all(messages: Sequence[Message]) -> str:
    """A prompt, escaped by its modalities."""
    return show(part for message in messages for part in message.parts)


def show(parts: Iterable[Part]) -> str:
    """Parts one below the other, each escaped by its modality."""
    return "".join(f"<div>{registry.modality(part.modality).show(part)}</div>" for part in parts)


def _summary(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    if verdict.shown is None:
        return "unreadable"
    wrong = sum(not right for right in verdict.right.values())
    return f"{wrong} wrong" if wrong else "all right"
