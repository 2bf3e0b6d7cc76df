"""The row shapes of preference data in words: TRL's, HH-RLHF dialogues, and lists of messages.

The shapes are TRL's (https://huggingface.co/docs/trl/dataset_formats), so that the same files train with either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import final

from modalign.comparison import Comparison, Origin
from modalign.data.fields import Fields, expected, number, sequence
from modalign.data.messages import Parser, conversational, nonempty, response
from modalign.errors import DataError
from modalign.roles import Format
from modalign.shown import shown
from modalign_text.columns import REJECTED, Turns, answer_start, finished, paired

_ANSWERS = frozenset({"chosen", "rejected", "completion", "responses", "messages"})
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


@final
class Preference(Format):
    """TRL's preference rows: `chosen` and `rejected`, with the prompt in its own column or at the start of both."""

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return {"chosen", "rejected"} <= columns

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        fields = Fields(row)
        parser = Parser(fields, root=root)
        chosen, rejected = fields.take("chosen"), fields.take("rejected")
        if conversational(chosen) != conversational(rejected):
            raise expected("the same shape as `chosen`, string or messages", rejected, "rejected")
        prompt = fields.take("prompt") if "prompt" in row else None
        if prompt is not None and conversational(prompt) >= conversational(chosen):
            context = parser.prompt()
            inside = conversational(prompt)
            one = parser.completion(chosen, "chosen", conversation=inside)
            other = parser.completion(rejected, "rejected", conversation=inside, rejected=True)
        elif conversational(chosen):
            context, one, other = parser.implicit(chosen, rejected)
            _repeats(prompt, context)
        else:
            context, one, other = _split_strings(parser, fields)
        if fields.has("messages") and row["messages"] == chosen:
            fields.take("messages")  # data sets for supervised training repeat the chosen conversation there
        return paired(parser, fields, origin, (context, one, other))


@final
class HHRLHF(Format):
    r"""HH-RLHF dialogues: "\n\nHuman: ...\n\nAssistant: ..." twice, alike up to the assistant's last turn.

    Bai et al. 2022, https://arxiv.org/abs/2204.05862; read as conversations, so that a chat template applies.
    """

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        dialogues = row.get("chosen"), row.get("rejected")
        return "prompt" not in columns and all(
            isinstance(one, str) and one.startswith("\n\nHuman:") for one in dialogues
        )

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        fields = Fields(row)
        parser = Parser(fields, root=root)
        chosen, rejected = dialogue(fields.text("chosen"), "chosen"), dialogue(fields.text("rejected"), "rejected")
        return paired(parser, fields, origin, parser.implicit(chosen, rejected))


@final
class Unpaired(Format):
    """TRL's unpaired rows: a prompt, one completion, and whether it is desirable."""

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return {"prompt", "completion", "label"} <= columns

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        return _single(row, origin, root, labelled=True)


@final
class PromptCompletion(Format):
    """TRL's prompt-completion rows: an example to imitate."""

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return {"prompt", "completion"} <= columns and "label" not in columns

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        return _single(row, origin, root, labelled=False)


@final
class Messages(Format):
    """A conversation to imitate: what the assistant says after the last user message is the response."""

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return "messages" in columns and not columns & (_ANSWERS - {"messages"} | {*REJECTED})

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        fields = Fields(row)
        parser = Parser(fields, root=root)
        turns = parser.conversation(fields.take("messages"), "messages")
        end = answer_start(turns, "messages")
        prompt = parser.attach(nonempty(turns[:end], "messages"))
        answer = response(turns[end:], "messages")
        return finished(parser, fields, origin, Comparison(prompt=prompt, responses=(answer,), kind="unpaired"))


@final
class Group(Format):
    """Many responses to one prompt, each with its reward."""

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return {"prompt", "responses"} <= columns

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        fields = Fields(row)
        parser = Parser(fields, root=root)
        inside = conversational(fields.take("prompt"))
        prompt = parser.prompt()
        found = sequence(fields.take("responses"), "responses")
        rewards = sequence(fields.take("rewards"), "rewards")
        if not found:
            raise DataError("a group without responses", field="responses", got="an empty list", fix="remove the row")
        if len(found) != len(rewards):
            raise DataError(
                "expected a reward for each response", field="rewards", got=f"{len(rewards)} for {len(found)} responses"
            )
        answers = tuple(
            response(
                parser.completion(one, f"responses[{at}]", conversation=inside),
                f"responses[{at}]",
                reward=number(reward, f"rewards[{at}]"),
            )
            for at, (one, reward) in enumerate(zip(found, rewards, strict=True))
        )
        prompt = parser.attach(prompt)
        return finished(parser, fields, origin, Comparison(prompt=prompt, responses=answers, kind="group"))


@final
class PromptOnly(Format):
    """A prompt that a policy will answer."""

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return "prompt" in columns and not columns & _ANSWERS

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        fields = Fields(row)
        parser = Parser(fields, root=root)
        prompt = parser.attach(parser.prompt())
        return finished(parser, fields, origin, Comparison(prompt=prompt, responses=(), kind="prompt"))


def dialogue(text: str, field: str) -> list[object]:
    r"""The messages of an HH-RLHF dialogue, white space around them stripped.

    >>> dialogue("\n\nHuman: Hello!\n\nAssistant: Hi.", "chosen")[1]
    {'role': 'assistant', 'content': 'Hi.'}
    """
    before, *pieces = _TURN.split(text)
    if before.strip() or not pieces:
        raise DataError(
            "expected a dialogue that begins with a turn of the human",
            field=field,
            got=shown(text),
            fix="begin it with two line ends and `Human:`, or name another format",
        )
    return [{"role": _ROLES[who], "content": said.strip()} for who, said in zip(pieces[::2], pieces[1::2], strict=True)]


def _split_strings(parser: Parser, fields: Fields) -> tuple[Turns, Turns, Turns]:
    """Prompt and continuations of two strings: the prompt is what both begin with, as in TRL's ``extract_prompt``."""
    chosen, rejected = fields.text("chosen"), fields.text("rejected")
    shortest = min(len(chosen), len(rejected))
    end = next((at for at in range(shortest) if chosen[at] != rejected[at]), None)
    if end is None:
        end = max(shortest - 1, 0)  # one begins with all of the other, and neither response may be empty
    elif end and chosen[end - 1] == " ":
        end -= 1  # the space belongs to the word that follows
    prompt = (parser.raw(chosen[:end], "chosen"),)
    if not chosen[:end].strip():
        raise DataError(
            "chosen and rejected do not begin with the same prompt",
            field="rejected",
            got=f"{shown(chosen[:20])} and {shown(rejected[:20])}",
            fix="write the prompt into a column `prompt`, or remove the row",
        )
    return prompt, (parser.raw(chosen[end:], "chosen"),), (parser.raw(rejected[end:], "rejected"),)


def _repeats(prompt: object, context: Turns) -> None:
    """Data sets that keep the conversations whole repeat the question as a string; another string is an error."""
    every = [part.value for message in context if message.role == "user" for part in message.parts]
    said = [value for value in every if isinstance(value, str)]
    if prompt is not None and prompt not in said:
        raise DataError(
            "a prompt that is neither a conversation nor what the user says in chosen and rejected",
            field="prompt",
            got=shown(prompt),
            fix="write the prompt as messages, or remove the column",
        )


def _single(row: Mapping[str, object], origin: Origin, root: Path | None, *, labelled: bool) -> Comparison:
    """One response to a prompt, with the columns that it may have."""
    fields = Fields(row)
    parser = Parser(fields, root=root)
    inside = conversational(fields.take("prompt"))
    prompt = parser.prompt()
    answer = response(
        parser.completion(fields.take("completion"), "completion", conversation=inside),
        "completion",
        label=fields.flag("label") if labelled else None,
        reward=fields.maybe_number("reward"),
        scores=fields.numbers("scores"),
        critique=fields.maybe_text("critique"),
        refinement=fields.maybe_text("refinement"),
        feedback=fields.feedback("feedback"),
        facts=fields.facts("completion_facts"),
    )
    prompt = parser.attach(prompt)
    return finished(parser, fields, origin, Comparison(prompt=prompt, responses=(answer,), kind="unpaired"))
