"""Tiny models and data for tests, without any library but torch: a token decoder, a draw decoder, responses of both.

A blob is a vector: a medium that a toy encoder reads and a toy denoiser scores, so that a test can hold a response of
two media. Words are bytes.

r rows, n tokens, d width, u units, a responses, c channels of a blob.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import log_softmax, scaled_dot_product_attention

from modalign.batch import Batch, Medium
from modalign.comparison import Comparison
from modalign.config import GenerationConfig
from modalign.content import Message, Part, Response
from modalign.draws import Draws
from modalign.errors import DataError, TooLong
from modalign.model import Model
from modalign.roles import (
    Adapters,
    Assembly,
    Backbone,
    Content,
    Decoder,
    Encoded,
    EncodedSegment,
    EncodedSlot,
    Encoder,
    Head,
    Preparer,
)
from modalign.scores import UnitKind, Units

WORDS = "text"  #: what bare strings of a row become
BLOB = "blob"
CHANNELS = 4  #: of a blob
VOCAB = 260  #: bytes, and four marks

_PAD, _END, _ASK, _QUERY = 256, 257, 258, 259
_SLOT_TOKENS = 2


@final
class ToyPreparer(Preparer):
    """Bytes of words, a mark after each turn, two tokens for each blob; a blob in a response is scored as draws."""

    pad = _PAD

    def encode(
        self, comparison: Comparison, *, max_length: int | None = None, truncate: str | None = None
    ) -> tuple[Encoded, ...]:
        encoded = tuple(self._one(comparison.prompt, response) for response in comparison.responses)
        longest = max((len(one.tokens) for one in encoded), default=0)
        if max_length is not None and longest > max_length:
            if truncate != "response":
                raise TooLong("a sample is too long", got=f"{longest} tokens", fix="raise max_length")
            encoded = tuple(_cut(one, max_length) for one in encoded)
        return encoded

    def _one(self, prompt: Sequence[Message], response: Response) -> Encoded:
        tokens: list[int] = []
        segments: list[EncodedSegment] = []
        slots: list[EncodedSlot] = []
        media: dict[str, Medium] = {}

        def add(part: Part, *, scored: bool) -> None:
            start = len(tokens)
            if isinstance(part.value, Tensor):
                media[part.digest] = Medium(modality=BLOB, tensors={"blob": part.value}, cost=_SLOT_TOKENS)
                if scored:
                    segments.append(
                        EncodedSegment(
                            modality=BLOB,
                            decoder=BLOB,
                            kind="draw",
                            digest=part.digest,
                            query=(_QUERY,),
                            after=start,
                        )
                    )
                tokens.extend([_PAD] * _SLOT_TOKENS)
                slots.append(EncodedSlot(start=start, stop=len(tokens), digest=part.digest))
                return
            if part.modality != WORDS:
                raise DataError(f"a toy model takes no {part.modality!r}", field="prompt", got=part.modality)
            tokens.extend(str(part.value).encode())
            if scored:
                tokens.append(_END)
                segments.append(
                    EncodedSegment(modality=WORDS, decoder=WORDS, kind="token", start=start, stop=len(tokens))
                )

        for message in prompt:
            for part in message.parts:
                add(part, scored=False)
        tokens.append(_ASK)
        asked = len(tokens)
        for message in response.messages:
            for part in message.parts:
                add(part, scored=message.scored)
        return Encoded(tokens=tuple(tokens), prompt=asked, segments=tuple(segments), slots=tuple(slots), media=media)


def _cut(one: Encoded, length: int) -> Encoded:
    segments = tuple(replace(segment, stop=min(segment.stop, length)) for segment in one.segments)
    return replace(one, tokens=one.tokens[:length], segments=segments)


@final
class ToyBackbone(Backbone):
    """One layer of attention under the layout's mask, and a low-rank adapter that starts at nothing."""

    def __init__(self, width: int = 16, *, shares: bool = True, adapter: bool = False) -> None:
        super().__init__()
        self.width, self.shares, self.adapted = width, shares, adapter
        self.tokens = nn.Embedding(VOCAB, width)
        self.positions = nn.Embedding(512, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(0.1)
        if adapter:
            self.down, self.up = nn.Linear(width, 4, bias=False), nn.Linear(4, width, bias=False)
            nn.init.zeros_(self.up.weight)

    def forward(self, batch: Batch, embeddings: Mapping[str, Tensor]) -> Tensor:
        x = self.tokens(batch.tokens)  # r n d
        for slot in batch.slots:
            x = x.index_put(
                (torch.tensor(slot.row), torch.arange(slot.start, slot.stop)), embeddings[slot.digest].to(x.dtype)
            )
        x = x + self.positions(batch.layout.index.to(x.device))
        q, k, v = self.qkv(x)[:, None].chunk(3, dim=-1)  # r 1 n d
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=batch.layout.mask().to(x.device)[:, None])[:, 0]
        if self.adapted:
            mixed = mixed + self.up(self.down(mixed))
        return x + self.dropout(torch.tanh(self.out(mixed)))


@final
class ToyAdapters(Adapters):
    """The adapter of a `ToyBackbone`."""

    def __init__(self, backbone: ToyBackbone) -> None:
        self.backbone = backbone

    @contextmanager
    def off(self) -> Iterator[None]:
        before, self.backbone.adapted = self.backbone.adapted, False
        try:
            yield
        finally:
            self.backbone.adapted = before

    def parameters(self) -> Iterator[nn.Parameter]:
        yield from self.backbone.down.parameters()
        yield from self.backbone.up.parameters()


@final
class ToyTokenDecoder(Decoder):
    """A language head."""

    modality, kind = WORDS, "token"

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.head = nn.Linear(width, VOCAB)

    def forward(self, states: Tensor | None, batch: Batch, draws: Draws) -> Units:
        assert states is not None
        units = batch.units.get(WORDS)
        if units is None:
            empty = torch.zeros(0, dtype=torch.long, device=states.device)
            return Units(kind=self.kind, values=self.head(states[:0, 0]).sum(-1), segment=empty)
        logps = log_softmax(self.head(states[units.row, units.index]).float(), -1)  # u vocab
        values = logps.gather(-1, units.token[:, None])[:, 0]
        return Units(kind=self.kind, values=values, segment=units.segment)


@final
class ToyDrawDecoder(Decoder):
    """A linear denoiser of blobs, conditioned on the states of its query positions: rectified flow."""

    modality = BLOB
    kind: UnitKind = "draw"

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.denoiser = nn.Linear(width + CHANNELS + 1, CHANNELS)

    def forward(self, states: Tensor | None, batch: Batch, draws: Draws) -> Units:
        rows: list[Tensor] = []
        wanted: list[Tensor] = []
        owners: list[int] = []
        for number, segment in enumerate(batch.segments):
            if segment.decoder != BLOB:
                continue
            assert states is not None
            assert segment.digest is not None
            assert segment.condition is not None
            span = batch.layout.spans[segment.condition]
            condition = states[span.row, span.start : span.stop].mean(0)  # d
            clean = batch.media[segment.digest].tensors["blob"].to(states)  # c
            for draw in range(draws.count):
                noise = draws.noise(segment.key, draw, tuple(clean.shape)).to(clean)
                t = draws.uniform(segment.key, draw)
                noised = (1 - t) * clean + t * noise
                rows.append(torch.cat([condition, noised, clean.new_tensor([t])]))
                wanted.append(noise - clean)
                owners.append(number)
        weight = self.denoiser.weight
        if not rows:
            return Units(
                kind=self.kind,
                values=self.denoiser(weight.new_zeros(0, weight.shape[1])).sum(-1),
                segment=torch.zeros(0, dtype=torch.long, device=weight.device),
            )
        errors = (self.denoiser(torch.stack(rows)) - torch.stack(wanted)).double().square().sum(-1)  # u
        return Units(
            kind=self.kind,
            values=-0.5 * errors,
            segment=torch.tensor(owners, device=weight.device),
            dims=torch.full((len(owners),), CHANNELS, device=weight.device),
        )


@final
class ToyEncoder(Encoder):
    """Blobs to two embeddings each."""

    modality = BLOB

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.project = nn.Linear(CHANNELS, _SLOT_TOKENS * width)
        self.passes = 0  #: media encoded so far, for tests that count

    def prepare(self, content: Content) -> Medium:
        return Medium(modality=BLOB, tensors={"blob": content.tensor}, cost=_SLOT_TOKENS)

    def forward(self, media: Sequence[Medium]) -> list[Tensor]:
        self.passes += len(media)
        self.ran(len(media))
        return [self.project(medium.tensors["blob"]).reshape(_SLOT_TOKENS, -1) for medium in media]


@final
class ToyHead(Head):
    """One number from the last state of each response."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.dimensions = ("reward",)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, states: Tensor, batch: Batch) -> Tensor:
        return self.score(states[batch.ends[:, 0], batch.ends[:, 1]]).float()


@final
class ToyAssembly(Assembly):
    """Saves weights as safetensors and writes the likeliest bytes."""

    takes = frozenset({WORDS, BLOB})
    gives = frozenset({WORDS, BLOB})

    def __init__(self, adapters: Adapters | None = None) -> None:
        self.preparer = ToyPreparer()
        self.adapters = adapters

    def save(self, model: Model, folder: Path, *, merge: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: value.detach().clone() for name, value in model.state_dict().items()}, folder / "toy.safetensors"
        )

    @torch.no_grad()
    def generate(
        self,
        model: Model,
        prompts: Sequence[Sequence[Message]],
        config: GenerationConfig,
        *,
        progress: Callable[[int], None] | None = None,
    ) -> list[Response]:
        found: list[Response] = []
        for prompt in prompts:
            written = ""
            while len(written) < config.max_new_tokens:
                options = [written + chr(code) for code in range(97, 123)]
                group = Comparison.group(prompt, [say(option) for option in options])
                logps = model(toy_batch([group], share=False), Draws()).logps
                written = options[int(logps.argmax())]
            found.append(say(written))
            if progress is not None:
                progress(1)
        return found


def toy_model(*, adapter: bool = False, head: bool = False, shares: bool = True, seed: int = 0) -> Model:
    """A model of two decoders, an encoder and, where asked, an adapter (then nothing else trains) and a reward head."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        backbone = ToyBackbone(shares=shares, adapter=adapter)
        model = Model(
            assembly=ToyAssembly(ToyAdapters(backbone) if adapter else None),
            backbone=backbone,
            decoders={WORDS: ToyTokenDecoder(), BLOB: ToyDrawDecoder()},
            encoders={BLOB: ToyEncoder()},
            heads={"reward": ToyHead()} if head else None,
        )
    if adapter:
        model.requires_grad_(False)
        for parameter in (*backbone.down.parameters(), *backbone.up.parameters(), *model.heads.parameters()):
            parameter.requires_grad_(True)
    return model


def say(*values: str | Tensor) -> Response:
    """A response of one assistant message: words and blobs, in order."""
    return Response(messages=(_message("assistant", *values),))


def ask(*values: str | Tensor) -> tuple[Message, ...]:
    """A prompt of one user message."""
    return (_message("user", *values),)


def _message(role: str, *values: str | Tensor) -> Message:
    parts = tuple(Part(modality=WORDS if isinstance(value, str) else BLOB, value=value) for value in values)
    return Message(role=role, parts=parts)


def toy_pairs(count: int = 8, *, blobs: bool = False) -> list[Comparison]:
    """Pairs whose chosen response repeats the prompt's letter and whose rejected one does not.

    blobs: every response also shows a blob, then says one word more: text, medium, text.
    """
    pairs: list[Comparison] = []
    for number in range(count):
        right, wrong = chr(97 + number % 26), chr(97 + (number + 7) % 26)
        prompt = ask(f"say {right * (1 + number % 3)}: ")
        good: list[str | Tensor] = [right * (2 + number % 2)]
        bad: list[str | Tensor] = [wrong * (2 + number % 3)]
        if blobs:
            made = torch.Generator().manual_seed(number)
            good += [torch.randn(CHANNELS, generator=made), "ok"]
            bad += [torch.randn(CHANNELS, generator=made), "ok"]
        pairs.append(replace(Comparison.pair(prompt, say(*good), say(*bad)), id=f"toy-{number}"))
    return pairs


def toy_batch(comparisons: Sequence[Comparison], *, share: bool = True) -> Batch:
    """A batch of whole comparisons, every response its own, prepared by `ToyPreparer`."""
    from modalign.assembler import Sample, assemble

    preparer = ToyPreparer()
    samples = [Sample(comparison=one, encoded=preparer.encode(one), own=len(one.responses)) for one in comparisons]
    return assemble(samples, share=share, pad=preparer.pad)
