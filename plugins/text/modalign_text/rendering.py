"""A conversation through the tokenizer's chat template, and where in the text each of its messages is written.

No template says where a message begins and ends. It is found by rendering the conversation again: up to the message
with a generation prompt, and with a mark at the end of what the message says. Templates that rewrite history (strip the
reasoning of earlier turns), trim content or ignore the generation prompt stay correct.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import cast, final

from jinja2.exceptions import TemplateError, TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from modalign.content import Message, Part
from modalign.errors import DataError, ModelError
from modalign_text.media import MediaWriter

SETTINGS = ("tools", "chat_template_kwargs")  #: fields of a message that are the conversation's
_WRITTEN = ("content", "text", "reasoning_content", "thinking", "reasoning", "arguments")  # what a model writes itself
_NESTED = ("content", "tool_calls", "function")  # where more of it may be inside

# what a template's expressions raise when a message is not what they expect
_RAISED = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


@final
class Template:
    """A tokenizer's chat template, or another one in its place.

    media: what stands for media in a message; None where the model takes words only.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: str | None = None, media: MediaWriter | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.media = media

    def render(self, messages: Sequence[Mapping[str, object]], *, cue: bool, **settings: object) -> str:
        """The conversation as text.

        cue: with a generation prompt, what the model continues from.
        """
        if self.template is None and not self.tokenizer.chat_template:
            raise DataError(
                "the tokenizer has no chat template, and the row is a conversation",
                field="prompt",
                fix="set model.chat_template to a Jinja file, or write the rows as plain prompt and response",
            )
        try:
            text = self.tokenizer.apply_chat_template(
                cast(list[dict[str, str]], [dict(message) for message in messages]),
                chat_template=self.template,
                add_generation_prompt=cue,
                tokenize=False,
                **settings,  # pyright: ignore[reportArgumentType]
            )
        except TemplateSyntaxError as error:
            raise ModelError(
                "the chat template is not valid Jinja",
                got=f"line {error.lineno}: {error.message}",
                fix="correct it, or set model.chat_template to another file",
            ) from error
        except _RAISED as error:
            raise DataError(
                "the chat template refuses the conversation",
                field="prompt",
                got=f"{error} (roles: {', '.join(str(message.get('role')) for message in messages)})",
                fix="change the row's messages to what the template takes, or set model.chat_template to another file",
            ) from error
        return cast(str, text)

    def said(self, part: Part) -> str | Mapping[str, object]:
        """What stands for a medium in a message's content."""
        assert self.media is not None  # a model without it has refused the part
        return self.media.said(part)

    @cached_property
    def blocks(self) -> bool:
        """Whether the template reads content as a list of blocks only, and not as a string."""
        mark = _mark("")
        for content in (mark, [{"type": "text", "text": mark}]):
            try:
                if mark in self.render([{"role": "user", "content": content}], cue=True):
                    return not isinstance(content, str)
            except DataError:
                continue
        return False


@final
class Conversation:
    """The conversations of one comparison, rendered once each."""

    def __init__(self, template: Template, messages: Sequence[Message]) -> None:
        self._template = template
        self._known: dict[tuple[tuple[int, ...], bool], str] = {}
        self._settings: dict[str, object] = {}
        for message in messages:
            if (tools := message.extra.get("tools")) is not None:
                self._settings.setdefault("tools", tools)
            for name, value in _mapping(message.extra.get("chat_template_kwargs")).items():
                self._settings.setdefault(name, value)

    def text(self, messages: Sequence[Message], *, cue: bool = False) -> str:
        """What the template writes."""
        key = (tuple(map(id, messages)), cue)
        if key not in self._known:
            self._known[key] = self._render([self._said(message) for message in messages], cue)
        return self._known[key]

    def start(self, messages: Sequence[Message], at: int, *, least: int = 0) -> int:
        """Where in the whole text the model begins to write message ``at``.

        least: where the message the model wrote before it ends.
        """
        text = self.text(messages)
        before, cue = self.text(messages[:at]), self.text(messages[:at], cue=True)
        if cue == before:  # the template knows no generation prompt
            place = self._first(messages, at)
            if text.startswith(cue) and not text[len(cue) : place].strip():
                return len(cue)
            return max(len(text[:place].rstrip(" ")), least)  # a space belongs to the word behind it
        same = shared(text, cue)
        if same == len(cue):
            return max(same, least)
        place = self._first(messages, at)
        opened = shared(before, cue)
        if same >= opened:  # the same history, and a generation prompt that opens more than the message has
            return max(min(same, place), least)
        header = cue[opened:]
        found = text.rfind(header, least, place) if header else -1
        return max(place, least) if found < 0 else found + len(header)

    def end(self, messages: Sequence[Message], at: int) -> int:
        """Where in the whole text the content of message ``at`` ends; 0 where the template leaves it out."""
        text = self.text(messages)
        mark = _mark(text)
        marked = self._changed(messages, at, lambda value: value + mark, mark)
        if marked is None or mark not in marked:
            return 0
        tail = marked[marked.rfind(mark) + 1 :]
        return len(text) - shared(text[::-1], tail[::-1])

    def limit(self, messages: Sequence[Message], at: int) -> int:
        """Where in the whole text the message behind ``at`` says something: an end of turn lies before it."""
        return len(self.text(messages)) if at + 1 == len(messages) else self._first(messages, at + 1)

    def _first(self, messages: Sequence[Message], at: int) -> int:
        """Where the text begins to depend on what message ``at`` says."""
        text = self.text(messages)
        mark = _mark(text)
        other = self._changed(messages, at, lambda _: mark, mark)
        return len(text) if other is None else shared(text, other)

    def _changed(self, messages: Sequence[Message], at: int, change: Callable[[str], str], mark: str) -> str | None:
        """The text with everything message ``at`` says changed; None where the template refuses it so."""
        said = [self._said(message) for message in messages]
        said[at] = _rewrite(said[at], change, mark)
        try:
            return self._render(said, False)
        except DataError:
            return None

    def _render(self, said: Sequence[Mapping[str, object]], cue: bool) -> str:
        return self._template.render(said, cue=cue, **self._settings)

    def _said(self, message: Message) -> dict[str, object]:
        """A message as templates take it."""
        extra = {name: value for name, value in message.extra.items() if name not in SETTINGS}
        return {**extra, "role": message.role, "content": self._content(message)}

    def _content(self, message: Message) -> object:
        """Words as one string, unless the template takes blocks only or a medium is a block of its own."""
        blocks: list[Mapping[str, object]] = []
        words = ""
        for part in message.parts:
            said = part.value if isinstance(part.value, str) else self._template.said(part)
            if isinstance(said, str):
                words += said
                continue
            blocks.extend([{"type": "text", "text": words}] if words else [])
            blocks.append(said)
            words = ""
        if not blocks and not self._template.blocks:
            return words
        return [*blocks, {"type": "text", "text": words}] if words or not blocks else blocks


def shared(one: str, other: str) -> int:
    """Length of the longest common beginning."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _mark(text: str) -> str:
    """A private character that the text does not have."""
    return next(mark for mark in map(chr, range(0xE000, 0xF8FF)) if mark not in text)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _rewrite(message: Mapping[str, object], change: Callable[[str], str], mark: str) -> dict[str, object]:
    """The message with all that a model writes changed, and names and types left as they are."""
    changed: dict[str, object] = {}
    for name, value in message.items():
        if name in _WRITTEN and isinstance(value, str):
            changed[name] = change(value)
        elif name == "arguments" and isinstance(value, Mapping):
            changed[name] = {**value, mark: mark}  # the last argument, whatever the others are
        elif name in _NESTED and isinstance(value, Mapping):
            changed[name] = _rewrite(value, change, mark)
        elif name in _NESTED and isinstance(value, Sequence) and not isinstance(value, str):
            changed[name] = [_rewrite(one, change, mark) if isinstance(one, Mapping) else one for one in value]
        else:
            changed[name] = value
    return changed
