"""Media as codes: numbers of a vocabulary of their own, which a language model writes and reads one after the other.

n codes of a medium, v codes there are, d width of the backbone, u units.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Final, Self

import torch
from einops import rearrange
from torch import Tensor, nn

from modalign.batch import Batch, Medium, own
from modalign.connectors.options import seeded
from modalign.content import Part
from modalign.draws import Draws
from modalign.errors import DataError, ModelError
from modalign.ops.linear_logprob import linear_logprob
from modalign.roles import Content, Decoder
from modalign.scores import UnitKind, Units

CODES: Final = "codes"  #: the name under which a medium's codes lie in it


class Codec(nn.Module, ABC):
    """Media of one modality to codes and back; frozen.

    size: how many codes there are (v).
    length: codes of every medium (n).
    rate: samples per second it takes, which `Modality.decode` is asked for; None where it takes any.
    """

    size: int
    length: int
    rate: float | None = None

    @classmethod
    @abstractmethod
    def load(cls, path: str, *, revision: str | None = None, **options: object) -> Self:
        """The codec in a folder or of an id; ``options`` are its own further settings."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write what `load` reads, and needs no options for."""

    @abstractmethod
    def encode(self, content: Content) -> Tensor:
        """The codes of a decoded medium, ``n`` of int64; a `DataError` where it cannot have any."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Part:
        """The medium that codes ``n`` are."""


class CodeDecoder(Decoder):
    """Exact log-probabilities of a medium's codes, from the states before them: units like those of words.

    A medium's codes stand in the sequence, embedded by a table of this decoder's own; a head of its own says how
    likely each is. A subclass names its `codec`, and is what a plugin registers.

    codec: media to codes and back.
    modality: of the segments it scores; segments name the decoder by it too.
    width: of the backbone's states (d).
    """

    kind: UnitKind = "token"
    anywhere = False
    reads: ClassVar[type[Codec]]  #: the class that `load` makes the codec by

    def __init__(self, codec: Codec, *, modality: str, width: int, seed: int = 0) -> None:
        super().__init__()
        self.codec, self.modality, self.width = codec.requires_grad_(False), modality, width
        with seeded(seed):
            self.table = nn.Embedding(codec.size, width)
            self.head = nn.Linear(width, codec.size)
        nn.init.normal_(self.table.weight, std=0.02, generator=torch.Generator().manual_seed(seed))

    @classmethod
    def load(cls, path: str, *, modality: str, width: int, revision: str | None = None, **options: object) -> Self:
        """A decoder whose codec is in a folder or of an id, with a table and a head that are new."""
        return cls(cls.reads.load(path, revision=revision, **options), modality=modality, width=width)

    @property
    def rate(self) -> float | None:
        """Samples per second that media are decoded at."""
        return self.codec.rate

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.codec], [self.table, self.head]

    def prepare(self, content: Content) -> Medium:
        """A decoded medium as its codes."""
        codes = self.codec.encode(content)
        if codes.shape != (self.codec.length,) or codes.is_floating_point():
            raise ModelError(
                f"a codec gives {self.codec.length} whole numbers for each medium",
                got=f"{type(self.codec).__name__}: {tuple(codes.shape)} of {codes.dtype}",
            )
        if len(codes) and not (int(codes.min()) >= 0 and int(codes.max()) < self.codec.size):
            raise DataError(
                f"codes of this {self.modality} are not in its vocabulary",
                got=f"from {int(codes.min())} to {int(codes.max())}, of {self.codec.size}",
            )
        return Medium(modality=own(self.modality), tensors={CODES: codes.long().cpu()}, cost=self.codec.length)

    @property
    def places(self) -> tuple[bool, ...]:
        """For each token of a medium that is to be written, whether its code is the model's to say."""
        return (True,) * self.codec.length

    def embedded(self, codes: Tensor) -> Tensor:
        """Embeddings of codes, one each."""
        return self.table(codes)

    def logits(self, states: Tensor) -> Tensor:
        """Of the codes that may follow states ``r d``, ``r v``."""
        return self.head(states.to(self.head.weight.dtype))

    def embed(self, medium: Medium) -> Tensor:
        return self.embedded(medium.tensors[CODES])

    def forward(self, states: Tensor | None, batch: Batch, draws: Draws) -> Units:
        if states is None:
            raise ModelError("codes are read from a backbone's states", got="a model without one", fix="give it one")
        found = batch.units.get(self.modality)
        row, index, token, segment = (
            (torch.zeros(0, dtype=torch.long, device=batch.device),) * 4
            if found is None
            else (found.row, found.index, found.token, found.segment)
        )
        flat = rearrange(states, "r n d -> (r n) d")
        hidden = flat.index_select(0, row * states.shape[1] + index).to(self.head.weight.dtype)  # u d
        values = linear_logprob(hidden, self.head.weight, token, bias=self.head.bias)
        # a batch without such media reaches the table like any other: a process must not wait for its gradient
        return Units(kind=self.kind, values=values + self.table.weight[0].sum() * 0.0, segment=segment)
