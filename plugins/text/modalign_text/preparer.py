"""Comparisons to token sequences, by the tokenizer's own chat template.

A sequence is the prompt, one response, and the response's end of turn. What a template writes behind the last end of
turn (a newline, an end of text) is left out: nothing would score it and nothing that is scored sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import cast, final

from transformers import PreTrainedTokenizerBase

from modalign.comparison import Comparison
from modalign.content import RAW, Message, Part, Response
from modalign.errors import DataError, ModalignError
from modalign.roles import Encoded, EncodedSegment, Preparer
from modalign_text.rendering import Conversation, Template
from modalign_text.tokens import Tokeniser
from modalign_text.truncation import fit


@final
class ChatPreparer(Preparer):
    """Whole comparisons to sequences for a causal language model.

    Conversations go through the chat template as text and are tokenised once, whole. A message of role `RAW` continues
    the sequence as it is, between the tokenizer's own special tokens. Of a response, each assistant message and the end
    of turn behind it is scored; a tool's message is context only. A token that straddles the end of the prompt belongs
    to the response.

    tokenizer: of the checkpoint.
    template: a Jinja chat template to use instead of the tokenizer's.

    >>> from modalign_text.testing import tiny_tokenizer
    >>> preparer = ChatPreparer(tiny_tokenizer())
    >>> say = lambda role, words: Message(role=role, parts=(Part(modality="text", value=words),))
    >>> answer = Response(messages=(say("assistant", "4"),))
    >>> (one,) = preparer.encode(Comparison.unpaired([say("user", "2+2?")], answer))
    >>> preparer.tokenizer.decode(one.tokens[one.segments[0].start : one.segments[0].stop])
    '4<|im_end|>'
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, template: str | None = None) -> None:
        self.tokenizer = tokenizer
        self._template = Template(tokenizer, template)
        self._tokens = Tokeniser(tokenizer)
        self.pad = next((one for one in (self._tokens.pad, self._tokens.end) if one is not None), 0)
        spelt = sorted(set(self._tokens.special.values()), key=len, reverse=True)
        self._spelt = re.compile("|".join(map(re.escape, filter(None, spelt))) or "(?!)")

    def encode(
        self, comparison: Comparison, *, max_length: int | None = None, truncate: str | None = None
    ) -> tuple[Encoded, ...]:
        """One `Encoded` per response, in their order; `Preparer.encode` describes the arguments."""
        prompt, responses = comparison.prompt, comparison.responses
        self._check(prompt, "prompt")
        for name, response in _named(comparison):
            self._check(response.messages, name)
        _uniform([*prompt, *(message for response in responses for message in response.messages)])
        if not responses:
            self.prompt_ids(prompt)  # a template that refuses it says so now
            return ()
        conversation = Conversation(self._template, prompt)
        encoded: list[Encoded] = []
        for name, response in _named(comparison):
            raw = prompt[0].role == RAW
            one = self._continued(prompt, response) if raw else self._answered(conversation, prompt, response)
            if not one.segments:
                raise DataError(
                    "the response has no token to score",
                    field=name,
                    got=f"messages of roles {[message.role for message in response.messages]}",
                    fix="give it an assistant message that says something, or remove the row",
                )
            encoded.append(one)
        return fit(encoded, max_length=max_length, truncate=truncate, start=self._tokens.begin)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens a model continues to answer these messages."""
        self._check(messages, "prompt")
        _uniform(messages)
        if messages[0].role == RAW:
            ids = self._tokens.read(_words(messages), whole=True).ids
            # what the tokenizer puts behind a sequence would end the text before the response; words never spell it
            return list(ids[:-1] if ids[-1:] == (self._tokens.end,) else ids)
        conversation = Conversation(self._template, messages)
        text = conversation.text(messages, cue=True)
        if text == conversation.text(messages):  # the template knows no generation prompt: take its answer's header
            answered = [*messages, _say("assistant", "x")]
            text = conversation.text(answered)[: conversation.start(answered, len(messages))]
        return list(self._tokens.read(text).ids)

    def response_of(self, ids: Sequence[int], *, role: str = "assistant") -> Response:
        """What a model wrote, up to its end of turn.

        role: `RAW` where it continued plain text.
        """
        end = next((at for at, token in enumerate(ids) if token in self.stop_ids), len(ids))
        words = self.tokenizer.decode(list(ids[:end]), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Response(messages=(_say(role, cast(str, words)),))

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """The tokens that end a response: end of text, and what the template puts behind an answer."""
        found = frozenset() if self._tokens.end is None else frozenset({self._tokens.end})
        asked, answered = _say("user", "x"), _say("assistant", "x")
        # some templates end a turn only by the header of the next one
        for following in ((), (_say("user", "x"),)):
            try:
                one = self._answered(
                    Conversation(self._template, ()), (asked,), Response(messages=(answered, *following))
                )
            except ModalignError:
                continue
            last = one.tokens[one.segments[0].stop - 1] if one.segments else None
            if last is not None and last in self._tokens.special:
                return found | {last}
        return found

    def _answered(self, conversation: Conversation, prompt: Sequence[Message], response: Response) -> Encoded:
        """A conversation: the template's text, tokenised once."""
        messages = [*prompt, *response.messages]
        text = conversation.text(messages)
        tokens = self._tokens.read(text)
        segments: list[EncodedSegment] = []
        first, place = None, 0
        for at in range(len(prompt), len(messages)):
            if not messages[at].scored:
                first = len(conversation.text(prompt)) if first is None else first
                continue
            place = conversation.start(messages, at, least=place)
            first = place if first is None else first
            start = tokens.inside(place)
            limit = conversation.limit(messages, at)
            place = max(place, min(conversation.end(messages, at), limit))
            behind = range(max(start, tokens.inside(place)), tokens.inside(limit))
            stop = self._turn_end(tokens.ids, behind) or tokens.covering(place)
            if stop > start:
                segments.append(_segment(start, stop))
        ids = tokens.ids[: segments[-1].stop] if segments and messages[-1].scored else tokens.ids
        bound = min([tokens.inside(first or 0), *(segment.start for segment in segments)])
        return Encoded(tokens=ids, prompt=bound, segments=tuple(segments))

    def _turn_end(self, ids: Sequence[int], behind: range) -> int | None:
        """Past the first special token behind the content; None where the template writes none."""
        return next((at + 1 for at in behind if ids[at] in self._tokens.special), None)

    def _continued(self, prompt: Sequence[Message], response: Response) -> Encoded:
        """Plain text: the response continues the prompt, and ends with the tokenizer's end of text."""
        before, words = _words(prompt), self._unended(_words(response.messages))
        tokens = self._tokens.read(before + words, whole=True)
        ids, end = tokens.ids, self._tokens.end
        if end is not None and ids[-1:] != (end,):
            ids = (*ids, end)
        start = tokens.inside(len(before))
        segments = (_segment(start, len(ids)),) if len(ids) > start else ()
        return Encoded(tokens=ids, prompt=start, segments=segments)

    def _unended(self, words: str) -> str:
        """A plain response without the end of text that some data sets write out."""
        end = self.tokenizer.eos_token
        return words.removesuffix(str(end)) if end else words

    def _check(self, messages: Sequence[Message], field: str) -> None:
        """Refuse what would be encoded as something else than it is."""
        if not messages:
            raise DataError(f"the {field} is empty", field=field, fix="give it a message, or remove the row")
        for message in messages:
            for part in message.parts:
                if part.modality != "text" or not isinstance(part.value, str):
                    raise DataError(
                        f"this model takes no {part.modality}",
                        field=field,
                        got=f"a part of {part.modality} in a message of {message.role}",
                        fix="it takes text; use a model that takes the other, or rows without it",
                    )
            for words in _strings(message):
                plain = self._unended(words) if message.role == RAW and field != "prompt" else words
                if found := self._spelt.search(plain):
                    raise DataError(
                        f"the content spells the special token {found[0]!r}, and would be read as that token",
                        field=field,
                        got=f"...{plain[max(0, found.start() - 20) : found.end() + 20]}...",
                        fix="remove it from the row; the chat template writes such tokens itself",
                    )
        if field == "prompt" and messages[0].role == RAW and not _words(messages):
            raise DataError("the prompt is empty", field=field, fix="write a prompt, or remove the row")


def _segment(start: int, stop: int) -> EncodedSegment:
    return EncodedSegment(modality="text", decoder="text", kind="token", start=start, stop=stop)


def _say(role: str, words: str) -> Message:
    return Message(role=role, parts=(Part(modality="text", value=words),))


def _words(messages: Sequence[Message]) -> str:
    return "".join(cast(str, part.value) for message in messages for part in message.parts)


def _named(comparison: Comparison) -> Iterator[tuple[str, Response]]:
    """The responses by the names their columns have."""
    names = ("chosen", "rejected") if comparison.kind == "pair" else ()
    for number, response in enumerate(comparison.responses):
        yield (names[number] if names else f"responses[{number}]"), response


def _uniform(messages: Sequence[Message]) -> None:
    roles = {message.role for message in messages}
    if RAW in roles and len(roles) > 1:
        raise DataError(
            "a row is a conversation or plain text, not both",
            field="prompt",
            got=f"roles {', '.join(sorted(roles))}",
            fix="write prompt and responses both as messages, or both as plain strings",
        )


def _strings(message: Message) -> Iterator[str]:
    """Every string of a message that can reach the sequence."""
    waiting: list[object] = [*(part.value for part in message.parts), *message.extra.values()]
    while waiting:
        match waiting.pop():
            case str() as words:
                yield words
            case Mapping() as fields:
                waiting.extend(fields.values())
            case list() | tuple() as several:
                waiting.extend(several)
            case _:
                pass
