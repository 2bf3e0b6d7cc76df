"""Text to tokens of which it is known where in the text each one ends.

A token belongs to what comes before a place in the text only if it lies there wholly.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast, final

from transformers import PreTrainedTokenizerBase


class Tokens(Protocol):
    """Tokens of a text."""

    ids: tuple[int, ...]

    def inside(self, place: int) -> int:
        """How many tokens lie wholly in the first ``place`` characters."""
        ...

    def covering(self, place: int) -> int:
        """How many tokens it takes to cover the first ``place`` characters."""
        ...


@final
class Tokeniser:
    """A tokenizer, its special tokens, and the places of what it returns.

    special: the tokens that stand for control, by id: content must not spell them.
    begin, end, pad: those of a sequence, where the tokenizer has them.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder
        self.special: dict[int, str] = {number: str(token) for number, token in added.items() if token.special}
        named = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=False)
        self.special |= {number: str(token) for number, token in named}
        self.begin, self.end, self.pad = (
            cast("int | None", number)
            for number in (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
        )

    def read(self, text: str, *, whole: bool = False) -> Tokens:
        """Tokens of a text.

        whole: with the special tokens that the tokenizer itself puts around a sequence.
        """
        if not self.tokenizer.is_fast:
            return _Prefixes(text, lambda part: self._ids(part, whole))
        found = self.tokenizer(text, add_special_tokens=whole, return_offsets_mapping=True, verbose=False)
        ids = cast(list[int], found["input_ids"])
        return _Offsets(text, ids, cast(list[tuple[int, int]], found["offset_mapping"]), self.special)

    def _ids(self, text: str, whole: bool) -> list[int]:
        return cast(list[int], self.tokenizer(text, add_special_tokens=whole, verbose=False)["input_ids"])


@final
class _Offsets:
    """By the offsets of a fast tokenizer."""

    def __init__(
        self, text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]], special: Mapping[int, str]
    ) -> None:
        self.ids = tuple(ids)
        self._starts: list[int] = []
        self._ends: list[int] = []
        last = 0
        for number, (start, end) in zip(ids, offsets, strict=True):
            if (literal := special.get(number)) and (found := text.find(literal, start, end)) >= 0:
                # a special token may swallow the white space beside it (Phi-3's do): that space is not its own
                end = found + len(literal)  # noqa: PLW2901
            # a byte-level tokenizer may leave leading spaces out of its offsets: the gap is this token's
            self._starts.append(min(start, last))
            last = max(last, end)
            self._ends.append(last)

    def inside(self, place: int) -> int:
        count = bisect_right(self._ends, place)
        # a token of no width at this very place was put there for what follows
        while count and self._starts[count - 1] == self._ends[count - 1] == place:
            count -= 1
        return count

    def covering(self, place: int) -> int:
        count = self.inside(place)
        reached = self._ends[count - 1] if count else 0
        return count + 1 if reached < place and count < len(self.ids) else count


@final
class _Prefixes:
    """By the tokens of the text's beginnings, for a tokenizer that gives no offsets."""

    def __init__(self, text: str, ids: Callable[[str], list[int]]) -> None:
        self.ids = tuple(ids(text))
        self._text, self._read = text, ids

    def inside(self, place: int) -> int:
        return self._shared(self._read(self._text[:place]))

    def covering(self, place: int) -> int:
        beginning = self._read(self._text[:place])
        count = self._shared(beginning)
        return count if count == len(beginning) else min(count + 1, len(self.ids))

    def _shared(self, beginning: Sequence[int]) -> int:
        pairs = enumerate(zip(beginning, self.ids, strict=False))
        return next((at for at, (one, other) in pairs if one != other), min(len(beginning), len(self.ids)))
