"""Rows that say comparisons: the inverse of reading them, in TRL's shapes, with media in columns of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import final

from torch import Tensor

from modalign.comparison import Comparison
from modalign.content import RAW, Message, Part, Response
from modalign.data.media import vacant
from modalign.data.vocabulary import Vocabulary
from modalign.errors import DataError, PluginError
from modalign.registry import registry
from modalign.timeline import FIELD

Row = dict[str, object]


def column(messages: Sequence[Message]) -> str | list[dict[str, object]]:
    """A string for a continuation outside any template, else a list of messages with role and content.

    >>> from modalign.content import Part
    >>> column([Message(role="user", parts=(Part(modality="words", value="Hello"),))])
    [{'role': 'user', 'content': 'Hello'}]
    """
    if len(messages) == 1 and messages[0].role == RAW and isinstance(words := _content(messages[0]), str):
        return words
    return [{"role": message.role, "content": _content(message), **message.extra} for message in messages]


def _content(message: Message) -> str | list[dict[str, object]]:
    if len(message.parts) == 1 and isinstance(words := message.parts[0].value, str):
        return words
    return [block_of(part) for part in message.parts]


def block_of(part: Part) -> Row:
    """The content block that says a part, with the seconds of it that are scored."""
    said = dict(registry.modality(part.modality).block(part))
    return said | {FIELD: [list(one) for one in part.spans]} if part.spans else said


def shape(row: Mapping[str, object]) -> str:
    """What tells rows apart that cannot stand in one file: their columns of content, and whether those are strings."""
    content = [name for name in ("prompt", "chosen", "completion", "label", "responses") if name in row]
    return f"{', '.join(content)}{' of plain strings' if isinstance(row['prompt'], str) else ''}"


@final
class RowWriter:
    """Writes comparisons as rows.

    vocabulary: which modality claims which columns and blocks.
    blocks: whether words are blocks too, wherever they stand in a message: files of one type per column need that.
    """

    def __init__(self, vocabulary: Vocabulary, *, blocks: bool) -> None:
        self._vocabulary, self._blocks = vocabulary, blocks

    def row(self, found: Comparison) -> tuple[Row, dict[str, list[Part]]]:
        """The row without its media, and the media by column, in the order in which blocks take them."""
        media: dict[str, list[Part]] = {}
        row: Row = {"prompt": self._prompt(found.prompt, media)}
        match found.kind:
            case "pair":
                for side, response in zip(("chosen", "rejected"), found.responses, strict=True):
                    row[side] = self._messages(response.messages, media)
                    row |= _said(response, f"score_{side}", f"{side}_", facts=f"{side}_facts")
            case "unpaired":
                (response,) = found.responses
                row["completion"] = self._messages(response.messages, media)
                row |= _said(response, "reward", "", facts="completion_facts")
                if response.label is not None:
                    row["label"] = response.label
            case "group":
                row["responses"] = [self._messages(response.messages, media) for response in found.responses]
                row["rewards"] = [response.reward for response in found.responses]
            case "prompt":
                pass
        whole = {
            "margin": found.margin,
            "preferences": dict(found.preferences) or None,
            "weight": None if found.weight == 1.0 else found.weight,
            "id": found.id,
            "facts": dict(found.facts) or None,
        }
        return row | {name: value for name, value in whole.items() if value is not None}, media

    def _prompt(self, messages: Sequence[Message], media: dict[str, list[Part]]) -> object:
        """A prompt's column; media before the words of a plain prompt need no blocks."""
        if len(messages) == 1 and messages[0].role == RAW and isinstance(messages[0].parts[-1].value, str):
            *others, words = messages[0].parts
            if not any(isinstance(part.value, str) for part in others):
                for part in others:
                    media.setdefault(self._column(part.modality), []).append(part)
                return words.value
        return self._messages(messages, media)

    def _messages(self, messages: Sequence[Message], media: dict[str, list[Part]]) -> object:
        if len(messages) == 1 and messages[0].role == RAW:
            if len(messages[0].parts) == 1 and isinstance(words := messages[0].parts[0].value, str):
                return words
            raise DataError(
                "a plain continuation with media in it has no place in a row",
                field="prompt",
                got=", ".join(part.modality for part in messages[0].parts),
                fix="write it as messages",
            )
        return [{"role": message.role, "content": self._parts(message, media), **message.extra} for message in messages]

    def _parts(self, message: Message, media: dict[str, list[Part]]) -> object:
        if not message.parts:
            return None
        if not self._blocks and len(message.parts) == 1 and isinstance(words := message.parts[0].value, str):
            return words
        return [self._block(part, media) for part in message.parts]

    def _block(self, part: Part, media: dict[str, list[Part]]) -> Row:
        """A block of words, or one that leaves its content to a column."""
        block = block_of(part)
        if isinstance(part.value, str):
            return block
        kind = str(block["type"])
        media.setdefault(self._column(part.modality), []).append(part)
        # what has to be known of a medium in memory is said by its encoding
        facts = {} if isinstance(part.value, Tensor) else {key: block[key] for key in part.facts if key in block}
        said = {"type": kind, **facts, **({FIELD: block[FIELD]} if part.spans else {})}
        assert vacant(said, kind)
        return said

    def _column(self, modality: str) -> str:
        """The column of a modality's media, a list in every row: the one in the plural where it claims several."""
        claimed = [name for name, owners in self._vocabulary.columns.items() if modality in owners]
        if not claimed:
            raise PluginError(
                f"no column holds media of {modality}",
                got="its plugin claims none",
                fix="declare columns=(...) where the modality is registered",
            )
        return next((name for name in claimed if name.endswith("s")), claimed[0])


def _said(response: Response, reward: str, prefix: str, *, facts: str) -> Row:
    """The columns of what was said of a response; those that would say nothing are left out."""
    feedback = {
        name: {kind: words for kind, words in dataclasses.asdict(one).items() if words is not None}
        for name, one in response.feedback.items()
    }
    said = {
        reward: response.reward,
        f"{prefix}scores": dict(response.scores),
        f"{prefix}critique": response.critique,
        f"{prefix}refinement": response.refinement,
        f"{prefix}feedback": feedback,
        facts: dict(response.facts),
    }
    return {name: value for name, value in said.items() if value is not None and value != {}}
