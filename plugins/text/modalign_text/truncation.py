"""Cutting the sequences of one comparison down to a length, so that they still share their prompt."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace

from modalign.errors import ConfigError, TooLong
from modalign.roles import Encoded, EncodedSegment


def fit(
    encoded: Sequence[Encoded],
    *,
    max_length: int | None,
    truncate: str | None,
    start: int | None,
    special: Container[int] = (),
) -> tuple[Encoded, ...]:
    """The sequences, none longer than ``max_length``.

    truncate: `prompt` drops the oldest tokens of the prompt, the same ones of every sequence; `response` the last
        tokens of each response that is too long. A medium is cut off whole. What is left has a prompt token and a
        scored token.
    start: the token id a sequence begins with, kept when the prompt is cut.
    special: control tokens; those that touch a medium go with it, for they say where it begins and ends.
    """
    if truncate not in (None, "prompt", "response"):
        raise ConfigError("truncate is 'prompt', 'response' or None", got=repr(truncate))
    longest = max((len(one.tokens) for one in encoded), default=0)
    if max_length is None or longest <= max_length:
        return tuple(encoded)
    match truncate:
        case "prompt":
            return _cut_prompt(encoded, max_length, start, special)
        case "response":
            return tuple(_cut_response(one, max_length, encoded, special) for one in encoded)
        case _:
            raise _too_long(
                encoded, max_length, "is too long", "raise max_length, or set on_too_long to skip or truncate"
            )


def _cut_prompt(
    encoded: Sequence[Encoded], max_length: int, start: int | None, special: Container[int]
) -> tuple[Encoded, ...]:
    excess = max(len(one.tokens) for one in encoded) - max_length
    kept = 1 if start is not None and all(one.tokens[:1] == (start,) for one in encoded) else 0
    for begin, end in _media(encoded[0], special):
        if begin < kept + excess < end:
            excess = end - kept
    if excess > min(one.prompt for one in encoded) - kept - 1:
        raise _too_long(
            encoded,
            max_length,
            "is too long even without its prompt",
            "raise max_length, or truncate responses instead",
        )
    return tuple(
        _only_used(
            one,
            tokens=one.tokens[:kept] + one.tokens[kept + excess :],
            slots=tuple(
                replace(slot, start=slot.start - excess, stop=slot.stop - excess)
                for slot in one.slots
                if slot.start >= kept + excess
            ),
            prompt=one.prompt - excess,
            segments=tuple(_moved(segment, excess) for segment in one.segments),
        )
        for one in encoded
    )


def _cut_response(one: Encoded, max_length: int, encoded: Sequence[Encoded], special: Container[int]) -> Encoded:
    if len(one.tokens) <= max_length:
        return one
    length = min([max_length, *(begin for begin, end in _media(one, special) if begin < max_length < end)])
    segments = tuple(
        replace(segment, stop=min(segment.stop, length)) if segment.kind == "token" else segment
        for segment in one.segments
        if (segment.start < length if segment.kind == "token" else segment.after <= length)
    )
    if not segments or one.prompt < 1:
        raise _too_long(
            encoded,
            max_length,
            "is too long even without its response",
            "raise max_length, or truncate prompts instead",
        )
    return _only_used(
        one,
        tokens=one.tokens[:length],
        segments=segments,
        slots=tuple(slot for slot in one.slots if slot.stop <= length),
    )


def _media(one: Encoded, special: Container[int]) -> list[tuple[int, int]]:
    """Where each showing of a medium begins and ends, the control tokens that touch it with it: cut whole or not."""
    found: list[tuple[int, int]] = []
    for slot in sorted(one.slots, key=lambda slot: slot.start):
        if slot.first == 0:
            found.append((slot.start, slot.stop))
        else:
            found[-1] = (found[-1][0], slot.stop)
    return [_touching(one, begin, end, special) for begin, end in found]


def _moved(segment: EncodedSegment, excess: int) -> EncodedSegment:
    """A segment of a sequence that has lost so many tokens before it."""
    if segment.kind == "token":
        return replace(segment, start=segment.start - excess, stop=segment.stop - excess)
    return replace(segment, after=segment.after - excess)


def _touching(one: Encoded, begin: int, end: int, special: Container[int]) -> tuple[int, int]:
    while begin and one.tokens[begin - 1] in special:
        begin -= 1
    while end < len(one.tokens) and one.tokens[end] in special:
        end += 1
    return begin, end


def _only_used(one: Encoded, **changes: object) -> Encoded:
    """The sequence with changes, and without the media that were cut off."""
    cut = replace(one, **changes)
    used = {slot.digest for slot in cut.slots}
    used |= {digest for segment in cut.segments for digest in (segment.digest, segment.given, segment.asks)}
    return replace(cut, media={digest: medium for digest, medium in one.media.items() if digest in used})


def _too_long(encoded: Sequence[Encoded], max_length: int, what: str, fix: str) -> TooLong:
    prompt = max(one.prompt for one in encoded)
    responses = ", ".join(str(len(one.tokens) - one.prompt) for one in encoded)
    return TooLong(
        f"the sample {what}",
        got=f"{max(len(one.tokens) for one in encoded)} tokens where max_length is {max_length}: "
        f"prompt {prompt}, response(s) {responses}",
        fix=fix,
    )
