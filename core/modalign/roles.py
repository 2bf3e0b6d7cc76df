"""The roles a plugin can fill, as abstract classes.

r rows, n tokens, d width, u units, a responses, k numbers of a head.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final, Self, final

import torch
from torch import Tensor, nn

from modalign.batch import Batch, Medium
from modalign.comparison import Comparison, Origin
from modalign.config import Config
from modalign.content import Message, Part, Response
from modalign.draws import Draws
from modalign.errors import ConfigError, DataError, ModelError
from modalign.frozen import empty
from modalign.scores import UnitKind, Units
from modalign.stored import restore, said, store
from modalign.timeline import Spans

if TYPE_CHECKING:
    from modalign.caching.memo import Memo
    from modalign.config import GenerationConfig, ModelConfig
    from modalign.decoders.backprop import Backprop
    from modalign.model import Model
    from modalign.world.concept import Concept


# --- content -------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True)
class Content:
    """A medium decoded: what a model's processor is given.

    modality: what it is.
    tensor: as its plugin lays decoded media out.
    rate: samples or frames per second of ``tensor``, where it has a time.
    times: of each frame or sample, in seconds, where they are not evenly spaced.
    seconds: of the whole medium, of which ``tensor`` may be a part.
    tracks: what else the same file holds, by modality.
    """

    modality: str
    tensor: Tensor
    rate: float | None = None
    times: tuple[float, ...] = ()
    seconds: float | None = None
    tracks: Mapping[str, Content] = field(default_factory=empty)


class MediaSettings(Config):
    """How media of one modality are decoded, and the most that is decoded: the base of each plugin's own."""


class Modality(ABC):
    """What reads, checks, decodes, saves and shows a part of one modality.

    name: the modality's registered name.
    columns: row columns it claims besides the messages (a data set's column of media).
    blocks: the `type` of the content blocks it claims.
    settings: how its media are decoded; the section `media.NAME` of a model's config.
    timed: whether its media last: then a row may say which seconds of one are scored.
    """

    name: ClassVar[str]
    columns: ClassVar[tuple[str, ...]] = ()
    blocks: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[type[MediaSettings]] = MediaSettings
    timed: ClassVar[bool] = False

    @abstractmethod
    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        """The part a content block says, or a `DataError` that names the field.

        root: the folder that files must lie in; None allows no files.
        """

    @abstractmethod
    def block(self, part: Part) -> Mapping[str, object]:
        """The content block that says a part: the inverse of `read`, JSON but for media in memory."""

    def save(self, part: Part, stem: Path) -> Path:
        """Write a part to ``stem`` with its own suffix; returns the file. Unless written anew, its block as JSON."""
        file = stem.with_name(f"{stem.name}.json")
        file.write_text(json.dumps(self.block(part)) + "\n", encoding="utf-8")
        return file

    def show(self, part: Part) -> str:
        """A part as self-contained, escaped HTML. Unless written anew, its block as JSON."""
        return f"<code>{escape(json.dumps(self.block(part)))}</code>"

    def decode(self, part: Part, settings: MediaSettings, *, rate: float | None = None) -> Content:
        """What a part holds; a `DataError` where it is broken, hostile or larger than the settings allow.

        settings: of this modality's own class.
        rate: samples per second the model takes; None keeps the medium's own.
        """
        raise ModelError(f"parts of {self.name} are read as they are, not decoded", got=type(self).__name__)

    def empty(self, part: Part) -> bool:
        """Whether a part holds nothing: no response consists of empty parts only."""
        return isinstance(part.value, str) and not part.value.strip()


class Format(ABC):
    """A kind of row: what its columns mean."""

    @abstractmethod
    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        """Whether rows with these columns, of which ``row`` is the first, are of this format."""

    @abstractmethod
    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        """The comparison a row says, or a `DataError` that names the field."""


# --- what the assembler needs --------------------------------------------------------------------


GIVEN: Final = -1  #: instead of a code: a token whose format dictates it


@final
@dataclass(frozen=True, kw_only=True)
class EncodedSegment:
    """One segment in the encoding of a response.

    modality, decoder, kind: what it is, and which decoder scores it in which kind of unit.
    start, stop: for a decoder of tokens, the tokens of the sequence that are scored.
    codes: what these are in the decoder's own vocabulary, where a medium stands in their places: codes, or their
        numbers in the medium of ``digest`` where the decoder finds codes itself. A token that is `GIVEN` is not scored.
    digest: for a decoder of media, the medium that is scored.
    given: for a decoder of media without a backbone, the medium that conditions it: what the prompt asks for.
    query: for a decoder of media behind a backbone, the tokens of its query positions. They follow the first
        ``after`` tokens of the sequence as a leaf that no other token sees.
    asks: the medium whose embeddings those positions take, where they are learned; a key of the sequence's media.
    last: for a decoder of media that has no query positions: how many of the states at these ``after`` tokens it reads.
    weight: in the response's log-likelihood; 0 is context only.
    spans: for a decoder of media, the seconds that are scored; all where there are none.
    """

    modality: str
    decoder: str
    kind: UnitKind
    start: int = 0
    stop: int = 0
    codes: tuple[int, ...] = ()
    digest: str | None = None
    given: str | None = None
    query: tuple[int, ...] = ()
    after: int = 0
    asks: str | None = None
    last: int = 0
    weight: float = 1.0
    spans: Spans = ()


@final
@dataclass(frozen=True, kw_only=True)
class EncodedSlot:
    """The tokens of a sequence whose embeddings a medium replaces.

    start, stop: the tokens.
    digest: the medium.
    first: which of the medium's embeddings the first token takes; a medium may lie in several runs of tokens.
    """

    start: int
    stop: int
    digest: str
    first: int = 0


@final
@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A prompt with one response, as the backbone will read it.

    tokens: the whole sequence.
    prompt: how many of them the prompt gives: the trunk is never longer.
    segments, slots: into the sequence.
    media: every medium in slots and segments, by digest.
    positions: ``p n`` where the family numbers positions in several axes.
    features: further per-token inputs of a family, by name, ``n``; sequences without one have zeros.
    """

    tokens: tuple[int, ...]
    prompt: int
    segments: tuple[EncodedSegment, ...] = ()
    slots: tuple[EncodedSlot, ...] = ()
    media: Mapping[str, Medium] = field(default_factory=empty)
    positions: Tensor | None = None
    features: Mapping[str, Tensor] = field(default_factory=empty)


class Preparer(ABC):
    """Turns a whole comparison into sequences, the way the backbone's plugin does it.

    pad: a token id for the ends of short rows; masked, so any will do.
    """

    pad: int = 0

    @abstractmethod
    def encode(
        self, comparison: Comparison, *, max_length: int | None = None, truncate: str | None = None
    ) -> tuple[Encoded, ...]:
        """One `Encoded` per response, in their order.

        max_length: most tokens of a sequence; a longer one is a `TooLong` unless ``truncate`` says what to cut.
        truncate: `prompt` drops the prompt's oldest tokens, `response` the response's last ones.
        """

    def ask(self, comparison: Comparison) -> Encoded:
        """The prompt with a response that the model is yet to make."""
        raise ModelError(
            "no gradient passes through what this model writes",
            got=type(self).__name__,
            fix="train a diffusion or flow generator, or use an objective that learns from responses (DPO, SFT)",
        )


# --- modules -------------------------------------------------------------------------------------


class Encoder(nn.Module, ABC):
    """Media of one modality to embeddings of its own width.

    modality: of the media.
    width: of the embeddings.
    rate: samples per second it takes, which `Modality.decode` is asked for; None where it takes any.
    facts: its settings beside its weights, by name: what it gives depends on them.
    memo: what counts its passes; the model's.
    """

    modality: str
    width: int
    rate: float | None = None
    facts: Mapping[str, object] = empty()
    memo: Memo | None = None

    @classmethod
    def load(
        cls, path: str, *, revision: str | None = None, dtype: torch.dtype | None = None, **options: object
    ) -> Self:
        """The encoder in a folder or of an id, ready for use; ``options`` are its own further settings.

        Unless it is written anew, this reads what `save` below has written.
        """
        if options:
            raise ConfigError(
                f"{cls.__name__} has no further settings", where="options", got=", ".join(options), fix="remove them"
            )
        return restore(cls, Path(path).expanduser()).to(dtype or torch.float32)

    @classmethod
    def measure(cls, path: str, *, revision: str | None = None, **options: object) -> int | None:
        """The width of what `load` would give, by small files only; None where those do not tell."""
        return width if isinstance(width := said(cls, Path(path).expanduser()).get("width"), int) else None

    def save(self, folder: Path) -> None:
        """Write what `load` reads, with the library's own files.

        Unless it is written anew, the arguments that it was made with, each an attribute of the same name, and weights.
        """
        store(self, folder)

    @abstractmethod
    def prepare(self, content: Content) -> Medium:
        """What `forward` reads, made by the library's own processor on the CPU; ``cost`` is how many embeddings."""

    @abstractmethod
    def forward(self, media: Sequence[Medium]) -> list[Tensor]:
        """Embeddings of each medium, ``cost width``; says by `ran` how many its tower was run on."""

    def ran(self, count: int) -> None:
        """Count media that the tower was run on."""
        if self.memo is not None:
            self.memo.passes[self.modality] += count

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """Its towers, and what connects them to a backbone where the checkpoint brings that along."""
        return [self], []

    @property
    def frozen(self) -> bool:
        """Whether nothing in it trains, so that what it gave may be remembered by the medium's digest."""
        return not any(parameter.requires_grad for parameter in self.parameters())

    @property
    def unstored(self) -> str:
        """Why nothing of what it gives can be stored by the medium's digest; empty where something can."""
        return "" if self.frozen else "its weights train"


class Connector(nn.Module, ABC):
    """Embeddings of one width to embeddings of another."""

    @classmethod
    def make(cls, width: int, out: int, **options: object) -> Self:
        """A fresh connector from embeddings of ``width`` to states of ``out``."""
        return cls(width, out, **options)

    def length(self, cost: int) -> int:
        """How many embeddings it makes of ``cost``; only a query connector changes their number."""
        return cost

    @abstractmethod
    def forward(self, embeddings: Tensor) -> Tensor:
        """``m width`` to ``m' d`` with m' = `length` of m."""


class Backbone(nn.Module, ABC):
    """The sequence model over embeddings.

    width: of its states (d).
    shares: whether responses to one prompt can branch from one trunk with the results of separate rows.
    causal: whether a token sees only what comes before it, so that the first state knows nothing of a response.
    blocks: names of the module classes to wrap for sharding.
    facts: its settings beside its weights, by name: what it gives depends on them.
    """

    width: int
    facts: Mapping[str, object] = empty()
    shares: bool = False
    causal: bool = True
    blocks: tuple[str, ...] = ()

    @abstractmethod
    def forward(self, batch: Batch, embeddings: Mapping[str, Tensor]) -> Tensor:
        """States ``r n d``; padding may hold anything.

        embeddings: of each medium that has a slot, by digest, ``m d``.
        """


class Decoder(nn.Module, ABC):
    """Answers how likely each of its segments is, given its context.

    modality: of the segments it scores.
    kind: of the units it gives.
    memo: what its frozen parts gave in this step; the model's.
    precomputes: whether all that its frozen parts give can be made before training, and kept.
    anywhere: whether it may read any state; else those alone before its units, and those that condition its segments.
    """

    modality: str
    kind: UnitKind
    memo: Memo | None = None
    precomputes: bool = False
    anywhere: bool = True

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        """What it is made of, and what connects that to a backbone."""
        return [self], []

    @property
    def shape(self) -> str:
        """What goes in and what comes out, in a word or two."""
        return f"-> {self.modality}"

    def embed(self, medium: Medium) -> Tensor:
        """What its own positions in the sequence are embedded by, ``m d``: learned queries, or codes that it scores.

        medium: of the modality `batch.own` names.
        """
        raise ModelError("this decoder has no positions of its own in a sequence", got=type(self).__name__)

    @abstractmethod
    def forward(self, states: Tensor | None, batch: Batch, draws: Draws) -> Units:
        """Units of every segment of the batch that names this decoder.

        states: ``r n d`` of the backbone; None where the model has none.
        """

    def precompute(self, batch: Batch) -> None:
        """Put what frozen parts give of a batch into the memo's cache, where it is not there yet."""

    def release(self) -> None:
        """Free the memory of frozen parts, which come back where they are needed after all."""

    def restore(self, device: torch.device | None = None) -> None:
        """Have the parts back that were released.

        device: by default where the decoder computes.
        """

    def judged(self, batch: Batch, draws: Draws, backprop: Backprop) -> Tensor:
        """The reward of what it makes for each response of the batch, ``a`` in float64, with a gradient to its weights.

        Of several draws it is the mean.
        """
        raise ModelError(
            f"no gradient passes through how this decoder makes {self.modality}",
            got=type(self).__name__,
            fix="train a diffusion or flow generator",
        )


class Head(nn.Module, ABC):
    """States to numbers that judge a response.

    dimensions: what the numbers are called (k of them).
    anywhere: whether it may read any state; else the one at the end of each response alone.
    """

    dimensions: tuple[str, ...]
    anywhere: bool = True

    @abstractmethod
    def forward(self, states: Tensor, batch: Batch) -> Tensor:
        """Numbers of each response, ``a k`` in float32."""


class Adapters(ABC):
    """The adapters inside a model: weights that can be switched off to give the base back."""

    @abstractmethod
    def off(self) -> AbstractContextManager[None]:
        """Within it the base answers; requires_grad stays as it is."""

    @abstractmethod
    def parameters(self) -> Iterator[nn.Parameter]:
        """The adapters' own parameters."""


# --- what a loader returns -----------------------------------------------------------------------


class Loader(ABC):
    """A folder or an id becomes a model."""

    @abstractmethod
    def claims(self, config: ModelConfig) -> bool:
        """Whether this loader knows what the path holds, from its small files only."""

    @abstractmethod
    def load(self, config: ModelConfig) -> Model:
        """The model, with its `Assembly`."""

    def knows(self, config: ModelConfig) -> str | None:
        """Where it does not claim a path but sees what it is: what that is, and what it would load instead."""
        return None

    def gives(self, config: ModelConfig) -> frozenset[str] | None:
        """The modalities that the model of a path that it claims would give; None where only loading tells."""
        return None

    def refuses(self, config: ModelConfig) -> Callable[[Comparison], DataError | None] | None:
        """What says why the model would surely refuse a row, by small files only; None where those do not tell."""
        return None


class Assembly(ABC):
    """What a model is beyond its modules: how its input is prepared, how it writes and how it is saved.

    preparer: comparisons to sequences.
    modalities: what it takes, and what it gives.
    adapters: None where every trainable weight is the model's own.
    """

    preparer: Preparer
    takes: frozenset[str]
    gives: frozenset[str]
    adapters: Adapters | None = None

    @abstractmethod
    def save(self, model: Model, folder: Path, *, merge: bool = False) -> None:
        """Write the model, or its adapters, in the format its library reads.

        merge: fold the adapters into the weights and write a whole model.
        """

    @abstractmethod
    def generate(
        self,
        model: Model,
        prompts: Sequence[Sequence[Message]],
        config: GenerationConfig,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[Response]:
        """One response to each prompt, in their order."""


# --- verdicts and the oracle world ---------------------------------------------------------------


class Reward(ABC):
    """Judges responses with numbers, without being trained."""

    @abstractmethod
    def __call__(self, prompts: Sequence[Sequence[Message]], responses: Sequence[Response]) -> list[float]:
        """One number per response."""


class Depiction(ABC):
    """The oracle world in one modality: renders a concept, and reads it back without a model.

    modality: of the parts it makes.
    attributes: the attributes of a concept it can carry.
    lesson: settings of `modalign.world.demonstration` that its student needs, where they differ from those for words.
    """

    modality: ClassVar[str]
    attributes: ClassVar[frozenset[str]]
    lesson: ClassVar[Mapping[str, object]] = empty()

    @abstractmethod
    def depict(self, concept: Concept, *, seed: int = 0) -> Part:
        """A part that shows the attributes it can carry; the seed moves what is free."""

    @abstractmethod
    def read(self, part: Part) -> Concept | None:
        """The concept a part shows, its other attributes unset; None where it is unreadable, never a guess."""

    def student(self, folder: Path, *, seed: int = 0) -> Path | None:
        """Write a tiny untrained model of this modality, for `modalign quickstart`; None where there is none yet."""
        return None

    def taught(self, folder: Path) -> Path | None:
        """Write this modality's share of the model of all modalities that `modalign quickstart` starts from; None where
        it has none, or where the rest of that model is not installed."""
        return None


class Check(ABC):
    """One thing `modalign doctor` tries."""

    @abstractmethod
    def __call__(self) -> CheckResult:
        """What was tried and what came of it; does not raise."""


@final
@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """What one check found.

    ok: None where the thing is absent and nobody asked for it.
    found: a version, a device, or the error.
    fix: the command that mends it.
    """

    ok: bool | None
    found: str
    fix: str | None = None
