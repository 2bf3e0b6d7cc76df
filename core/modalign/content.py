"""What people write and models answer: parts of one modality, messages of parts, responses of messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias, final

import torch
from torch import Tensor

from modalign.files import File
from modalign.frozen import empty
from modalign.timeline import Spans

Fact: TypeAlias = str | float | bool

RAW = "raw"  #: role of content that continues the sequence as it is, outside any chat template


def digest(value: object) -> str:
    """SHA-256 of a part's content, as hex: equal content has equal digests wherever it comes from.

    value: words, encoded bytes, a file, or a tensor (whose dtype and shape count too).
    """
    sha = hashlib.sha256()
    match value:
        case str():
            sha.update(b"words\0" + value.encode("utf-8", "surrogatepass"))
        case bytes() | bytearray() | memoryview():
            sha.update(value)
        case File():
            with value.open() as file:
                while block := file.read(1 << 20):
                    sha.update(block)
        case Tensor():
            still = value.detach().cpu().contiguous()
            sha.update(f"{still.dtype}{tuple(still.shape)}\0".encode())
            sha.update(still.reshape(-1).view(torch.uint8).numpy().tobytes())
        case _:
            msg = f"a part's value is str, bytes, File or Tensor, not {type(value).__name__}"
            raise TypeError(msg)
    return sha.hexdigest()


@final
@dataclass(frozen=True, kw_only=True)
class Part:
    """One piece of content of one modality.

    modality: the registered name of what it is.
    value: words, encoded bytes, a file inside the data root, or a tensor in memory.
    facts: what has to be known of it beside its content, by name: the rate of samples in memory, the seconds of a
        recording that are meant, the SHA-256 that a file must have.
    spans: the seconds of a response's medium that are scored, counted from where it begins; all of it where there are
        none. They are no content, and no part of the digest.
    """

    modality: str
    value: str | bytes | File | Tensor
    facts: Mapping[str, Fact] = field(default_factory=empty)
    spans: Spans = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, of what it is taken for, and of the facts: the same bytes may be two things."""
        facts = json.dumps(dict(sorted(self.facts.items())))
        return hashlib.sha256(f"{self.modality}\0{digest(self.value)}\0{facts}".encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Part)
            and self.modality == other.modality
            and self.spans == other.spans
            and self.digest == other.digest
        )

    def __hash__(self) -> int:
        return hash((self.modality, self.digest))


@final
@dataclass(frozen=True, kw_only=True)
class Message:
    """A role and its parts.

    role: `user`, `assistant`, `system`, `tool`, or `RAW` for a continuation outside any template.
    parts: in reading order.
    extra: further fields of the row's message (tool calls, names), handed to the chat template untouched.
    """

    role: str
    parts: tuple[Part, ...]
    extra: Mapping[str, object] = field(default_factory=empty)

    @property
    def scored(self) -> bool:
        """Whether the model wrote this message, so that its parts are segments: a tool's output is context."""
        return self.role in ("assistant", RAW)


@final
@dataclass(frozen=True, kw_only=True)
class Feedback:
    """What was said of a response in words.

    rationale: why it was rated as it was.
    critique: what is wrong with it.
    refinement: how it would be better.
    """

    rationale: str | None = None
    critique: str | None = None
    refinement: str | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Response:
    """The assistant's messages, with what people said of them.

    messages: usually one assistant message; tool calls make more.
    label: desirable or not, where one person judged this response alone.
    reward: one number for the whole response.
    scores: a number by dimension (`helpfulness`: 0.7).
    critique, refinement: learning from language feedback: what is wrong, and a better answer.
    feedback: what was said in words, by dimension.
    facts: what is known of it that nothing is trained on: which model wrote it.
    """

    messages: tuple[Message, ...]
    label: bool | None = None
    reward: float | None = None
    scores: Mapping[str, float] = field(default_factory=empty)
    critique: str | None = None
    refinement: str | None = None
    feedback: Mapping[str, Feedback] = field(default_factory=empty)
    facts: Mapping[str, Fact] = field(default_factory=empty)

    def segments(self) -> Iterator[Part]:
        """The parts that are scored, in order."""
        for message in self.messages:
            if message.scored:
                yield from message.parts

    def parts(self) -> Iterator[Part]:
        """All parts, in order."""
        for message in self.messages:
            yield from message.parts
