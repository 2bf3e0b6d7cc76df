"""Comparisons to token sequences, by the tokenizer's own chat template.

A sequence is the prompt, one response, and the response's end of turn. What a template writes behind the last end of
turn (a newline, an end of text) is left out: nothing would score it and nothing that is scored sees it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast, final

from transformers import PreTrainedTokenizerBase

from modalign.batch import Medium
from modalign.comparison import Comparison
from modalign.content import RAW, Message, Part, Response
from modalign.errors import DataError, Foreign, ModalignError
from modalign.files import File
from modalign.roles import Encoded, EncodedSegment, EncodedSlot, Preparer
from modalign_text.conversations import check_uniform, named, strings_of
from modalign_text.media import (
    Expansion,
    MediaWriter,
    Span,
    between,
    media_of,
    ordered,
    spans_of,
    unclosed,
    with_tracks,
)
from modalign_text.rendering import Conversation, Template
from modalign_text.tokens import Tokeniser, Tokens
from modalign_text.truncation import fit

_Drawn = tuple[EncodedSegment, Mapping[str, Medium]]


@final
class ChatPreparer(Preparer):
    """Whole comparisons to sequences for a causal language model.

    Conversations go through the chat template as text and are tokenised once, whole. A message of role `RAW` continues
    the sequence as it is, between the tokenizer's own special tokens. Of a response, each assistant message and the end
    of turn behind it is scored; a tool's message is context only. A token that straddles the end of the prompt belongs
    to the response.

    Media in a response are context: its words are scored, in as many segments as media leave them in. Those that the
    model makes are scored too, by what makes them, and so is the token that opens each.

    tokenizer: of the checkpoint.
    template: a Jinja chat template to use instead of the tokenizer's.
    media: how media are written; None where the model takes words only.
    model: what the model is called in messages.

    >>> from modalign_text.testing import tiny_tokenizer
    >>> preparer = ChatPreparer(tiny_tokenizer())
    >>> say = lambda role, words: Message(role=role, parts=(Part(modality="text", value=words),))
    >>> answer = Response(messages=(say("assistant", "4"),))
    >>> (one,) = preparer.encode(Comparison.unpaired([say("user", "2+2?")], answer))
    >>> preparer.tokenizer.decode(one.tokens[one.segments[0].start : one.segments[0].stop])
    '4<|im_end|>'
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        template: str | None = None,
        media: MediaWriter | None = None,
        model: str = "this model",
    ) -> None:
        self.tokenizer = tokenizer
        self.media = media
        self._model = model
        self._template = Template(tokenizer, template, media)
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
        for name, response in named(comparison):
            self._check(response.messages, name)
        check_uniform([*prompt, *(message for response in responses for message in response.messages)])
        self._decode(prompt, "prompt")
        for name, response in named(comparison):
            self._decode(response.messages, name)
        if self.media is not None:
            self._compare(comparison, self.media)
            heard = tuple(replace(one, messages=with_tracks(one.messages, self.media)) for one in responses)
            comparison = replace(comparison, prompt=with_tracks(prompt, self.media), responses=heard)
            prompt, responses = comparison.prompt, comparison.responses
        if not responses:
            self._prompted(prompt)  # a template that refuses it says so now
            return ()
        conversation = Conversation(self._template, prompt)
        encoded: list[Encoded] = []
        for name, response in named(comparison):
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
        cut = fit(
            encoded,
            max_length=max_length,
            truncate=truncate,
            start=self._tokens.begin,
            special=self._tokens.special,
        )
        return cut if self.media is None else tuple(self.media.finish(one, ordered(one)) for one in cut)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """The tokens a model continues to answer these messages."""
        return list(self.prompt(messages).tokens)

    def prompt(self, messages: Sequence[Message]) -> Encoded:
        """What a model continues to answer these messages."""
        self._check(messages, "prompt")
        check_uniform(messages)
        return self._prompted(messages if self.media is None else with_tracks(messages, self.media))

    def _prompted(self, messages: Sequence[Message]) -> Encoded:
        """The same, of messages whose media are followed by what belongs to them."""
        if messages[0].role == RAW:
            expansion = self._expand(self._words(messages), media_of(messages))
            tokens = self._tokens.read(expansion.text, whole=True)
            ids = tokens.ids
            # what the tokenizer puts behind a sequence would end the text before the response; words never spell it
            ids = ids[:-1] if ids[-1:] == (self._tokens.end,) else ids
        else:
            conversation = Conversation(self._template, messages)
            text = conversation.text(messages, cue=True)
            if text == conversation.text(messages):  # no generation prompt: an answer has its header
                answered = [*messages, _say("assistant", "x")]
                text = conversation.text(answered)[: conversation.start(answered, len(messages))]
            expansion = self._expand(text, media_of(messages))
            tokens = self._tokens.read(expansion.text)
            ids = tokens.ids
        one = self._encoded(tokens, expansion, ids=ids, prompt=len(ids), segments=())
        return one if self.media is None else self.media.finish(one, ordered(one))

    def response_of(self, ids: Sequence[int], *, role: str = "assistant") -> Response:
        """What a model wrote, up to its end of turn.

        role: `RAW` where it continued plain text.
        """
        end = next((at for at, token in enumerate(ids) if token in self.stop_ids), len(ids))
        return Response(messages=(_say(role, self.words(ids[:end])),))

    def words(self, ids: Sequence[int]) -> str:
        """Tokens as words, without those that stand for control."""
        found = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return cast(str, found)

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
        """A conversation: the template's text, its media written out, tokenised once."""
        messages = [*prompt, *response.messages]
        text = conversation.text(messages)
        expansion = self._expand(text, media_of(messages))
        tokens = self._tokens.read(expansion.text)
        segments: list[EncodedSegment] = []
        drawn: list[_Drawn] = []
        first, place = None, 0
        for at in range(len(prompt), len(messages)):
            if not messages[at].scored:
                first = len(conversation.text(prompt)) if first is None else first
                continue
            place = conversation.start(messages, at, least=place)
            first = place if first is None else first
            start = tokens.inside(expansion.at(place))
            limit = conversation.limit(messages, at)
            shown = spans_of(expansion, messages, at)
            ends = [conversation.end(messages, at), *(span.old[1] for span in shown)]
            place = max(place, min(max(ends), limit))
            behind = range(max(start, tokens.inside(expansion.at(place))), tokens.inside(expansion.at(limit)))
            stop = self._turn_end(tokens.ids, behind) or tokens.covering(expansion.at(place))
            taken = [self._taken(tokens, span) for span in shown]
            segments.extend(_segment(*run) for run in between(start, stop, taken))
            drawn.extend(self._drawn(tokens, shown))
        last = max((one.stop for one in (*segments, *(segment for segment, _ in drawn))), default=0)
        ids = tokens.ids[:last] if segments and messages[-1].scored else tokens.ids
        bound = min([tokens.inside(expansion.at(first or 0)), *(segment.start for segment in segments)])
        return self._encoded(tokens, expansion, ids=ids, prompt=bound, segments=tuple(segments), drawn=drawn)

    def _taken(self, tokens: Tokens, span: Span) -> tuple[int, int]:
        """The tokens of a medium that are not scored as words."""
        said = 0 if self.media is None or span.part.modality not in self.media.makes else self.media.opening(span.part)
        return tokens.inside(span.start) + said, tokens.covering(span.stop)

    def _drawn(self, tokens: Tokens, spans: Sequence[Span]) -> list[_Drawn]:
        """What scores the media among these that the model makes: each follows the token that opens it."""
        if self.media is None:
            return []
        made = [(span, self.media.drawn(span.part)) for span in spans if span.part.modality in self.media.makes]
        return [(_placed(segment, tokens.inside(span.start)), media) for span, (segment, media) in made]

    def _turn_end(self, ids: Sequence[int], behind: range) -> int | None:
        """Past the first special token behind the content; None where the template writes none."""
        return next((at + 1 for at in behind if ids[at] in self._tokens.special), None)

    def _continued(self, prompt: Sequence[Message], response: Response) -> Encoded:
        """Plain text: the response continues the prompt, and ends with the tokenizer's end of text."""
        before, words = self._words(prompt), self._unended(self._words(response.messages))
        expansion = self._expand(before + words, media_of([*prompt, *response.messages]))
        tokens = self._tokens.read(expansion.text, whole=True)
        ids, end = tokens.ids, self._tokens.end
        if end is not None and ids[-1:] != (end,):
            ids = (*ids, end)
        start = tokens.inside(expansion.at(len(before)))
        shown = [span for span in expansion.spans if span.old[0] >= len(before)]
        taken = [self._taken(tokens, span) for span in shown]
        segments = tuple(_segment(*run) for run in between(start, len(ids), taken))
        drawn = self._drawn(tokens, shown)
        return self._encoded(tokens, expansion, ids=ids, prompt=start, segments=segments, drawn=drawn)

    def _decode(self, messages: Sequence[Message], field: str) -> None:
        """Prepare the media, so that what is wrong with one is said of its place in the row and of its file."""
        if self.media is None:
            return
        for at, message in enumerate(messages):
            for number, part in enumerate(message.parts):
                if isinstance(part.value, str):
                    continue
                try:
                    if part.modality in self.media.takes:
                        self.media.medium(part)
                    if part.modality in self.media.makes and field != "prompt":
                        self.media.drawn(part)
                except DataError as error:
                    place = f"{field}[{at}].content[{number}].{error.field or part.modality}"
                    found = error.got
                    if isinstance(part.value, File) and part.value.name not in str(found):
                        found = f"{part.value.name}: {found}" if found else part.value.name
                    raise type(error)(error.what, field=place, got=found, fix=error.fix) from error

    def _compare(self, comparison: Comparison, media: MediaWriter) -> None:
        """Refuse a pair whose media differ too much where each response has as many of a kind as the other."""
        for modality in media.makes if comparison.kind == "pair" else ():
            sides = [[one for one in each.parts() if one.modality == modality] for each in comparison.responses]
            for one, other in zip(*sides, strict=True) if len(sides[0]) == len(sides[1]) else ():
                if one.digest != other.digest:
                    try:
                        media.compare([one, other])
                    except DataError as error:
                        raise error.at(field="rejected") from error

    def _expand(self, text: str, parts: Sequence[Part]) -> Expansion:
        return Expansion(text=text) if self.media is None else self.media.expand(text, parts)

    def _encoded(
        self,
        tokens: Tokens,
        expansion: Expansion,
        *,
        ids: Sequence[int],
        prompt: int,
        segments: tuple[EncodedSegment, ...],
        drawn: Sequence[_Drawn] = (),
    ) -> Encoded:
        if self.media is None or not expansion.spans:
            return Encoded(tokens=tuple(ids), prompt=prompt, segments=segments)
        slots = tuple(slot for slot in self.media.slots(tokens, expansion) if slot.stop <= len(ids))
        parts = [span.part for span in expansion.spans if span.part.modality in self.media.takes]
        media = {part.digest: self.media.medium(part) for part in parts}
        for segment, needed in drawn:
            segments, media = (*segments, segment), {**media, **needed}
            if segment.kind == "token" and segment.digest is not None:  # it stands there as what it is scored by
                inside, key = range(segment.start, segment.stop), segment.digest
                slots = tuple(replace(slot, digest=key) if slot.start in inside else slot for slot in slots)
        media = {key: media[key] for key in media if key in _used(slots, segments)}
        return Encoded(
            tokens=tuple(map(self.media.token, ids)), prompt=prompt, segments=segments, slots=slots, media=media
        )

    def _words(self, messages: Sequence[Message]) -> str:
        """Plain text, with what stands for its media."""
        parts = [part for message in messages for part in message.parts]
        return "".join(
            part.value if isinstance(part.value, str) else cast(MediaWriter, self.media).plain(part) for part in parts
        )

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
                takes = {"text"} if self.media is None else {"text", *self.media.takes}
                if self.media is not None and field != "prompt":
                    takes |= self.media.makes
                if part.modality not in takes or (part.modality == "text") != isinstance(part.value, str):
                    raise Foreign(
                        f"{self._model} takes no {part.modality}",
                        field=field,
                        got=f"a part of {part.modality} in a message of {message.role}",
                        fix=f"it takes {', '.join(sorted(takes))}; use a model that takes it, or rows without it",
                    )
            said = "".join(part.value for part in message.parts if isinstance(part.value, str))
            for words in (said, *strings_of(message)):  # a token may be spelt across parts
                plain = self._unended(words) if message.role == RAW and field != "prompt" else words
                makes = () if self.media is None or field == "prompt" else self.media.makes
                if (error := unclosed(plain, makes, field)) is not None:
                    raise error
                if found := self._spelt.search(plain):
                    raise DataError(
                        f"the content spells the special token {found[0]!r}, and would be read as that token",
                        field=field,
                        got=f"...{plain[max(0, found.start() - 20) : found.end() + 20]}...",
                        fix="remove it from the row; the chat template writes such tokens itself",
                    )
        if field == "prompt" and messages[0].role == RAW and not self._words(messages):
            raise DataError("the prompt is empty", field=field, fix="write a prompt, or remove the row")


def _segment(start: int, stop: int) -> EncodedSegment:
    return EncodedSegment(modality="text", decoder="text", kind="token", start=start, stop=stop)


def _used(slots: Sequence[EncodedSlot], segments: Sequence[EncodedSegment]) -> set[str | None]:
    """Digests of the media that a sequence needs."""
    asked = {digest for segment in segments for digest in (segment.digest, segment.given, segment.asks)}
    return asked | {slot.digest for slot in slots}


def _placed(segment: EncodedSegment, at: int) -> EncodedSegment:
    """A medium's segment where the medium stands."""
    if segment.kind == "token":
        return replace(segment, start=at + segment.start, stop=at + segment.stop)
    return replace(segment, after=at)


def _say(role: str, words: str) -> Message:
    return Message(role=role, parts=(Part(modality="text", value=words),))
