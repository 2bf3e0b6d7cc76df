"""Prompts and responses from a row's columns: what every format of rows shares, whatever the columns mean.

A string is a `RAW` message, a continuation outside any chat template. A list of messages is a conversation. A content
block belongs to the modality that claims its type; a block that nobody claims is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import final

from modalign.content import RAW, Fact, Feedback, Message, Part, Response
from modalign.data.fields import Fields, expected, mapping, sequence, spans, string, take_over
from modalign.data.media import MediaColumns
from modalign.data.vocabulary import vocabulary
from modalign.errors import DataError
from modalign.files import File
from modalign.registry import registry
from modalign.roles import Modality
from modalign.shown import shown
from modalign.timeline import FIELD, Spans

ROLES = ("system", "developer", "user", "assistant", "tool")  #: of a conversation's messages

_TEMPLATE_COLUMNS = ("tools", "chat_template_kwargs")


def holds_nothing(part: Part) -> bool:
    """Whether a part is empty, as its modality sees it."""
    if isinstance(part.value, str):
        return not part.value.strip()
    known = registry.entries("modalities")
    return part.modality in known and registry.modality(part.modality).empty(part)


def says_nothing(messages: Sequence[Message]) -> bool:
    """Whether nothing in these messages is there to be scored: only empty parts, and no tool is called."""
    return all(
        all(holds_nothing(part) for part in message.parts) and not message.extra.get("tool_calls")
        for message in messages
        if message.scored
    )


def conversational(value: object) -> bool:
    """Whether a column holds messages rather than a string."""
    return isinstance(value, list | tuple)


@final
class Parser:
    """Reads the messages of one row.

    fields: the row's columns.
    root: the folder that media files must lie in; None allows no files.

    Items of a column that a modality claims fill, in order, the blocks that say their type and no content; where there
    is no such block, `attach` puts them before the words of the prompt's first user message. See `MediaColumns`.
    """

    def __init__(self, fields: Fields, *, root: Path | None) -> None:
        self._fields = fields
        self._root = root
        self._vocabulary = vocabulary()
        self._media = MediaColumns(fields, self._vocabulary)

    def prompt(self, name: str = "prompt") -> tuple[Message, ...]:
        """A column that must be a prompt: a string or a conversation, and not empty."""
        value = self._fields.take(name)
        messages = self.conversation(value, name) if conversational(value) else (self.raw(value, name),)
        return nonempty(messages, name)

    def completion(
        self, value: object, field: str, *, conversation: bool, rejected: bool = False
    ) -> tuple[Message, ...]:
        """The messages of a response: of a conversation its messages or the assistant's words, else a continuation.

        rejected: whether it takes the rejected response's own media, where the row has some.
        """
        if conversational(value):
            if not conversation:
                raise expected("a string, as the prompt is one", value, field)
            return self.conversation(value, field, rejected=rejected)
        if conversation:
            part = Part(modality=self._vocabulary.of_strings(), value=string(value, field))
            return (Message(role="assistant", parts=(part,)),)
        return (self.raw(value, field),)

    def raw(self, value: object, field: str) -> Message:
        """A string as a continuation outside any chat template."""
        if not isinstance(value, str):
            raise expected("a string or a list of messages", value, field)
        part = Part(modality=self._vocabulary.of_strings(), value=string(value, field))
        return Message(role=RAW, parts=(part,))

    def conversation(self, value: object, field: str, *, first: int = 0, rejected: bool = False) -> tuple[Message, ...]:
        """A list of messages, at least one.

        first: the number of its first one in the column.
        rejected: whether they take the rejected response's own media, where the row has some.
        """
        found = sequence(value, field)
        if not found:
            raise DataError("a conversation without messages", field=field, got="an empty list", fix="remove the row")
        self._media.expect(found, rejected=rejected)
        return tuple(self.message(one, f"{field}[{at}]", rejected=rejected) for at, one in enumerate(found, first))

    def implicit(
        self, chosen: object, rejected: object
    ) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
        """Prompt, chosen and rejected of two conversations that begin with the same prompt."""
        one, other = sequence(chosen, "chosen"), sequence(rejected, "rejected")
        end = shared_turns(one, other, "rejected")
        prompt = nonempty(self.conversation(one[:end], "chosen"), "chosen")
        return (
            prompt,
            self.conversation(one[end:], "chosen", first=end),
            self.conversation(other[end:], "rejected", first=end, rejected=True),
        )

    def message(self, value: object, field: str, *, rejected: bool = False) -> Message:
        """A message: an object with a role and content; its further fields are kept for the chat template."""
        found = mapping(value, field)
        if "role" not in found and "from" in found:
            fix = "rename `from` to role and `value` to content; human is user, gpt is assistant"
            raise DataError("a message without a role", field=f"{field}.role", got=shown(value), fix=fix)
        role = string(found.get("role"), f"{field}.role")
        if role not in ROLES:
            fix = f"use one of {', '.join(ROLES)}"
            raise DataError("a role that no chat template knows", field=f"{field}.role", got=shown(role), fix=fix)
        extra = {key: one for key, one in found.items() if key not in ("role", "content") and one is not None}
        for key, one in extra.items():
            if key in self._vocabulary.columns:
                raise DataError(
                    "media beside a message's content would not be seen",
                    field=f"{field}.{key}",
                    got=shown(one),
                    fix="put them into the content as blocks, or into a column of the row",
                )
        content = found.get("content")
        if content is None and not extra.get("tool_calls"):
            raise DataError("a message without content", field=f"{field}.content", got="null", fix="remove the row")
        return Message(role=role, parts=self.parts(content, f"{field}.content", rejected=rejected), extra=extra)

    def parts(self, content: object, field: str, *, rejected: bool = False) -> tuple[Part, ...]:
        """The parts of a message's content: a string, or a list of blocks."""
        if content is None:
            return ()
        if isinstance(content, str):
            return (Part(modality=self._vocabulary.of_strings(), value=string(content, field)),)
        if not isinstance(content, list | tuple):
            raise expected("a string or a list of blocks", content, field)
        return tuple(self.block(one, f"{field}[{at}]", rejected=rejected) for at, one in enumerate(content))

    def block(self, value: object, field: str, *, rejected: bool = False) -> Part:
        """The part that a content block says, read by the modality that claims its type.

        Which seconds of it are scored, `spans`, stands in the block, or in the object that says its content.
        """
        block = {key: one for key, one in mapping(value, field).items() if one is not None}
        kind = string(block.get("type"), f"{field}.type")
        modality = self._vocabulary.of_block(kind, f"{field}.type")
        field, taken = self._media.take(block, kind, field, rejected=rejected)
        filled = dict(taken)
        try:
            seconds = _scored(filled, kind, modality)
            part = replace(modality.read(filled, root=self._root), spans=seconds)
            if isinstance(part.value, File):
                part.value.open().close()  # whoever decodes it later does not know the field any more
        except DataError as error:
            inner = f"{field}.{error.field}" if error.field else field
            raise type(error)(error.what, field=inner, got=error.got, fix=error.fix) from error
        return part

    def attach(self, prompt: tuple[Message, ...]) -> tuple[Message, ...]:
        """The prompt with the items of columns that have no blocks; an item too many is an error."""
        parts = tuple(self.block({"type": kind, kind: item}, field) for kind, field, item in self._media.left())
        if not parts:
            return prompt
        for at, message in enumerate(prompt):
            if message.role in ("user", RAW):
                whole = replace(message, parts=(*parts, *message.parts))
                return (*prompt[:at], whole, *prompt[at + 1 :])
        raise DataError("no user message to put a column's items into", field="prompt", fix="add one, or use blocks")

    def done(self) -> None:
        """Raise if a column is left that nobody read, or that asks for what cannot be done."""
        for name in _TEMPLATE_COLUMNS:
            if self._fields.has(name) and self._fields.take(name) not in ([], {}, "", "[]", "{}"):
                raise DataError(
                    "rows cannot set what the chat template is given yet",
                    field=name,
                    fix="remove the column, or write what it says into a system message",
                )
        for _, field, item in self._media.left():
            raise DataError("a medium that has no place in the row", field=field, got=shown(item), fix="remove it")
        self._fields.done()


def _scored(block: dict[str, object], kind: str, modality: Modality) -> Spans:
    """The spans of a block, taken out of it; a block of what has no time cannot have any."""
    item = block.get(kind)
    if isinstance(item, Mapping) and FIELD in item:
        take_over(block, item, FIELD)
        block[kind] = {name: one for name, one in item.items() if name != FIELD}
    if (said := block.pop(FIELD, None)) is None:
        return ()
    if not modality.timed:
        raise DataError(
            f"{modality.name} has no time of which spans are scored", field=FIELD, got=shown(said), fix="remove it"
        )
    return spans(said, FIELD)


def nonempty(prompt: tuple[Message, ...], field: str) -> tuple[Message, ...]:
    """The prompt, which must say something."""
    if all(holds_nothing(part) for message in prompt for part in message.parts) and not any(
        message.extra.get("tool_calls") for message in prompt
    ):
        raise DataError("an empty prompt", field=field, got="nothing but white space", fix="remove the row")
    return prompt


def response(
    messages: tuple[Message, ...],
    field: str,
    *,
    label: bool | None = None,
    reward: float | None = None,
    scores: Mapping[str, float] | None = None,
    critique: str | None = None,
    refinement: str | None = None,
    feedback: Mapping[str, Feedback] | None = None,
    facts: Mapping[str, Fact] | None = None,
) -> Response:
    """A response whose first and last messages are the model's, and which says something."""
    for which, message in (("first", messages[0]), ("last", messages[-1])):
        if not message.scored:
            raise DataError(
                "a response must begin and end with a message of the assistant",
                field=field,
                got=f"the {which} message is by {shown(message.role)}",
                fix="move what comes before it into the prompt, and remove what comes after it",
            )
    if says_nothing(messages):
        raise DataError("an empty response", field=field, got="nothing but white space", fix="remove the row")
    return Response(
        messages=messages,
        label=label,
        reward=reward,
        scores=scores or {},
        critique=critique,
        refinement=refinement,
        feedback=feedback or {},
        facts=facts or {},
    )


def shared_turns(chosen: Sequence[object], rejected: Sequence[object], field: str) -> int:
    """How many turns of two conversations are their prompt: those of the longest common prefix, never all of one.

    As TRL's ``extract_prompt`` counts them; but the responses begin with an assistant's message, so that a tool's
    output goes with the call it answers, and two conversations whose users differ are an error.
    """
    shortest = min(len(chosen), len(rejected)) - 1
    end = next((at for at in range(shortest) if chosen[at] != rejected[at]), max(shortest, 0))
    while end and "tool" in (_role(chosen, end), _role(rejected, end)):
        end -= 1
    roles = _role(chosen, end), _role(rejected, end)
    if end == 0 or roles != ("assistant", "assistant"):
        raise DataError(
            "chosen and rejected do not answer the same prompt",
            field=f"{field}[{end}]",
            got=f"message {end}, the first that differs, is by {shown(roles[0])} and {shown(roles[1])}",
            fix="remove the row: nothing says what was preferred to what",
        )
    return end


def _role(messages: Sequence[object], at: int) -> object:
    message = messages[at] if at < len(messages) else None
    return message.get("role") if isinstance(message, Mapping) else None
