"""A trained reward model as a function: a prompt and a response to numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, cast, final

import torch

from modalign.assembler import Sample, assemble
from modalign.comparison import Comparison
from modalign.config import ModelConfig
from modalign.content import RAW, Message, Response
from modalign.data.fields import Fields
from modalign.data.messages import Parser, response
from modalign.draws import Draws
from modalign.errors import ConfigError, ModelError
from modalign.heads.reading import ReadingHead
from modalign.loading import load
from modalign.model import Model
from modalign.roles import Head

Prompt = str | Sequence[Message] | Sequence[Mapping[str, object]]
Answer = str | Response | Sequence[Message] | Sequence[Mapping[str, object]]
Verdict = dict[str, float]


@final
class RewardModel:
    """Judges responses with the reward heads of a model.

    A prompt is a string, which the response continues outside any chat template, or messages, as in rows of data:
    ``[{"role": "user", "content": ...}]`` with a string or a list of content blocks. A response is a string, messages
    or a `Response`.

    model: in evaluation mode from now on.
    head: the head to ask; by default all of them.
    root: the folder that media files of content blocks must lie in; None allows no files.
    batch_size: responses at a time.

    >>> from modalign.testing import toy_model
    >>> judge = RewardModel(toy_model(head=True))
    >>> verdict = judge("say a: ", "aa")
    >>> list(verdict)
    ['reward']
    >>> judge(["say a: "], ["aa"]) == [verdict]
    True
    """

    def __init__(
        self, model: Model, *, head: str | None = None, root: str | Path | None = None, batch_size: int = 8
    ) -> None:
        if batch_size < 1:
            raise ConfigError("a batch has at least one response", where="batch_size", got=batch_size)
        self.model, self.root, self.batch_size = model.eval(), None if root is None else Path(root), batch_size
        self.heads = _heads(model, head)

    @classmethod
    def load(
        cls,
        model: str | Path | ModelConfig,
        *,
        head: str | None = None,
        root: str | Path | None = None,
        batch_size: int = 8,
        **settings: object,
    ) -> Self:
        """The reward model in a folder: the final/ of a run, or what `Model.save` wrote.

        settings: fields of `ModelConfig`.
        """
        return cls(load(model, **settings), head=head, root=root, batch_size=batch_size)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What it judges."""
        return tuple(
            name
            for head in self.heads.values()
            for name in (head.judged if isinstance(head, ReadingHead) else head.dimensions)
        )

    def __call__(
        self, prompt: Prompt | Sequence[Prompt], response: Answer | Sequence[Answer]
    ) -> Verdict | list[Verdict]:
        """Numbers by dimension of one response; of lists a list, and of one prompt with a list of responses too.

        A head with a variance gives it as `DIMENSION/variance`; a head of labels gives probabilities; a head of rates
        the expected rate.
        """
        if not _one(prompt):
            if _one(response):
                raise ConfigError("a list of prompts takes a list of responses", got=type(response).__name__)
            return self.judge(cast(Sequence[Prompt], prompt), cast(Sequence[Answer], response))
        if _one(response):
            return self.judge([cast(Prompt, prompt)], [cast(Answer, response)])[0]
        answers = cast(Sequence[Answer], response)
        return self.judge([cast(Prompt, prompt)] * len(answers), answers)

    def judge(self, prompts: Sequence[Prompt], responses: Sequence[Answer]) -> list[Verdict]:
        """Numbers by dimension of each response to the prompt at its place."""
        if len(prompts) != len(responses):
            raise ConfigError(
                "a response for each prompt", got=f"{len(prompts)} prompts and {len(responses)} responses"
            )
        pairs = [self._pair(prompt, answer) for prompt, answer in zip(prompts, responses, strict=True)]
        verdicts: list[Verdict] = []
        for start in range(0, len(pairs), self.batch_size):
            verdicts += self._judge(
                [_sample(self.model, group) for group in _grouped(pairs[start:][: self.batch_size])]
            )
        return verdicts

    @torch.no_grad()
    def _judge(self, samples: Sequence[Sample]) -> list[Verdict]:
        batch = assemble(samples, share=self.model.shares, pad=self.model.assembly.preparer.pad, units=False)
        self.model.eval()  # whoever shares it may have trained it since
        rewards = self.model(batch.to(next(self.model.parameters()).device), Draws()).rewards
        columns: dict[str, list[float]] = {}
        for name, head in self.heads.items():
            numbers = rewards[name].double()  # a k
            named = dict(zip(head.dimensions, numbers.unbind(-1), strict=True))
            found = head.answers(numbers) if isinstance(head, ReadingHead) else named
            columns |= {key: value.tolist() for key, value in found.items()}
        return [{key: values[at] for key, values in columns.items()} for at in range(batch.responses)]

    def _pair(self, prompt: Prompt, answer: Answer) -> tuple[tuple[Message, ...], Response]:
        context = _messages(prompt) or Parser(Fields({"prompt": prompt}), root=self.root).prompt()
        if isinstance(answer, Response):
            return context, answer
        parser = Parser(Fields({}), root=self.root)
        inside = context[0].role != RAW
        said = _messages(answer) or parser.completion(answer, "response", conversation=inside)
        return context, response(said, "response")


def _heads(model: Model, wanted: str | None) -> dict[str, Head]:
    heads = {name: cast(Head, head) for name, head in model.heads.items()}
    if not heads or (wanted is not None and wanted not in heads):
        raise ModelError(
            "this model has no reward head" + ("" if wanted is None else f" {wanted!r}"),
            got=f"heads: {', '.join(heads) or 'none'}",
            fix="train one (modalign train reward), and load the run's final/ folder",
        )
    chosen = heads if wanted is None else {wanted: heads[wanted]}
    owners: dict[str, str] = {}
    for name, head in chosen.items():
        for dimension in head.dimensions:
            if (other := owners.setdefault(dimension, name)) != name:
                raise ModelError(
                    f"two reward heads judge {dimension!r}",
                    got=f"{other} and {name}",
                    fix=f"say which to ask: head={other!r}",
                )
    return chosen


def _one(value: object) -> bool:
    """Whether this is one prompt or response, and no list of them."""
    if isinstance(value, str | Response):
        return True
    if not isinstance(value, list | tuple):
        raise ConfigError("a prompt or a response is a string or messages", got=type(value).__name__)
    members = cast("Sequence[object]", value)
    return bool(members) and all(isinstance(one, Message | Mapping) for one in members)


def _messages(value: object) -> tuple[Message, ...]:
    """The messages that are given as such; none where they must be read."""
    given = cast("Sequence[object]", value) if isinstance(value, list | tuple) else ()
    found = tuple(one for one in given if isinstance(one, Message))
    return found if len(found) == len(given) else ()


def _grouped(
    pairs: Sequence[tuple[tuple[Message, ...], Response]],
) -> Iterator[tuple[tuple[Message, ...], list[Response]]]:
    """Neighbours with the same prompt together: their prompt is read once."""
    last: tuple[tuple[Message, ...], list[Response]] | None = None
    for prompt, answer in pairs:
        if last is not None and last[0] == prompt:
            last[1].append(answer)
            continue
        if last is not None:
            yield last
        last = prompt, [answer]
    if last is not None:
        yield last


def _sample(model: Model, group: tuple[tuple[Message, ...], list[Response]]) -> Sample:
    comparison = Comparison.group(*group)
    encoded = model.assembly.preparer.encode(comparison)
    return Sample(comparison=comparison, encoded=encoded, own=len(encoded))
