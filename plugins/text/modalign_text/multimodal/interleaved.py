"""Responses of words and media: words until a medium is opened, the medium, what it looks like, and on with words.

r responses, n tokens of the longest, d width, k queries.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast, final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from modalign.assembler import Sample, assemble
from modalign.batch import Batch, Medium
from modalign.comparison import Comparison
from modalign.config import GenerationConfig
from modalign.content import RAW, Message, Part, Response
from modalign.frozen import empty
from modalign.model import Model
from modalign.roles import Encoded, EncodedSegment, EncodedSlot
from modalign.streaming import Made, Opened, tell
from modalign.training.reference import evaluating
from modalign_text.backbone import CausalLMBackbone
from modalign_text.generation import apart, generate
from modalign_text.multimodal.drawing import Drawing
from modalign_text.multimodal.makers import Generator, Maker, Speller
from modalign_text.multimodal.native.drawn import Native
from modalign_text.multimodal.spelling import spell
from modalign_text.preparer import ChatPreparer


@final
@dataclass(kw_only=True)
class _Line:
    """One response as it grows.

    number: of its prompt.
    role: of its message.
    tokens, slots, media: of the prompt and what is written, as the backbone reads it.
    left: tokens that may still be written.
    run: words since the last medium, as tokens.
    parts: what is written before them.
    made: media by modality.
    """

    number: int
    role: str
    tokens: list[int]
    slots: list[EncodedSlot]
    media: dict[str, Medium]
    left: int
    run: list[int] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    ended: bool = False

    def encoded(self, segments: Sequence[EncodedSegment] = (), media: Mapping[str, Medium] = empty()) -> Encoded:
        """What is there so far, and what is asked of it."""
        return Encoded(
            tokens=tuple(self.tokens),
            prompt=len(self.tokens),
            segments=tuple(segments),
            slots=tuple(self.slots),
            media={**self.media, **media},
        )


def _source(seed: int, number: int, modality: str, occurrence: int) -> torch.Generator:
    """Noise of one medium of one response, whatever else is written."""
    key = hashlib.sha256(f"{seed}/{number}/{modality}/{occurrence}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:7]))


@final
class Writer:
    """Writes responses with one model.

    library: the language model as transformers knows it.
    stops: token ids that end a turn.
    stands: a token for the queries of generators.
    """

    def __init__(
        self,
        model: Model,
        *,
        library: PreTrainedModel,
        chat: ChatPreparer,
        markers: Drawing,
        makers: Mapping[str, Maker | Native],
        stops: frozenset[int],
        stands: int = 0,
    ) -> None:
        self.model, self.library, self.chat, self.markers, self.makers = model, library, chat, markers, makers
        self.stops, self.stands = stops, stands
        self.openers = {token: name for token, name in markers.openers.items() if name in makers}

    def __call__(
        self,
        prompts: Sequence[Sequence[Message]],
        config: GenerationConfig,
        progress: Callable[[int], None] | None = None,
    ) -> list[Response]:
        """A response to each prompt."""
        found: list[Response] = []
        with torch.no_grad(), evaluating(self.model):
            for first in range(0, len(prompts), config.batch_size):
                lines = [
                    self._line(number, prompt, config)
                    for number, prompt in enumerate(prompts[first : first + config.batch_size], first)
                ]
                self._write(lines, config)
                found += [Response(messages=(Message(role=one.role, parts=tuple(one.parts)),)) for one in lines]
                if progress is not None:
                    progress(len(lines))
        return found

    def _line(self, number: int, prompt: Sequence[Message], config: GenerationConfig) -> _Line:
        one = self.chat.prompt(prompt)
        role = RAW if prompt[0].role == RAW else "assistant"
        tokens, slots, media = list(one.tokens), list(one.slots), dict(one.media)
        return _Line(number=number, role=role, tokens=tokens, slots=slots, media=media, left=config.max_new_tokens)

    def _write(self, lines: Sequence[_Line], config: GenerationConfig) -> None:
        """Go on with every response until it has ended: all of them write words, then all make what they opened."""
        turn = 0
        while going := [one for one in lines if not one.ended]:
            self._speak(going, apart(config, number=lines[0].number, turn=turn))
            for modality in self.makers:
                opened = [one for one in going if one.run and self.openers.get(one.run[-1]) == modality]
                full = [one for one in opened if one.made.total() >= config.max_media]
                for one in full:
                    one.run.pop()
                    self._end(one)
                if painting := [one for one in opened if one not in full]:
                    self._paint(modality, painting, config)
            turn += 1

    def _speak(self, lines: Sequence[_Line], config: GenerationConfig) -> None:
        """Words up to the end of the turn, or up to the token that opens a medium."""
        most = max(one.left for one in lines)
        opens = self.openers if config.max_media else {}  # else words alone
        written = generate(
            self.library,
            [one.tokens for one in lines],
            config.model_copy(update={"max_new_tokens": most, "batch_size": len(lines)}),
            stops=self.stops | opens.keys(),
            pad=self.chat.pad,
            media=self._embedded(lines),
            keep=True,
            never=sorted(self.markers.never | (self.openers.keys() - opens.keys())),  # given, never said
            words=self.chat.words,
        )
        for one, ids in zip(lines, written, strict=True):
            said = ids[: one.left]
            one.left -= len(said)
            ended = not said or said[-1] in self.stops or (one.left == 0 and said[-1] not in self.openers)
            one.run += said[:-1] if said and said[-1] in self.stops else said
            one.tokens += said
            if ended:
                self._end(one)

    def _end(self, line: _Line) -> None:
        self._say(line)
        if not line.parts:
            line.parts.append(Part(modality="text", value=""))
        line.ended = True

    def _say(self, line: _Line) -> None:
        """Make a part of the words since the last medium."""
        if words := self.chat.words(line.run):
            line.parts.append(Part(modality="text", value=words))
        line.run.clear()

    def _paint(self, modality: str, lines: Sequence[_Line], config: GenerationConfig) -> None:
        """The medium that each of these has opened, and what the model sees of it."""
        tell(Opened(modality))
        sources = [_source(config.seed, one.number, modality, one.made[modality]) for one in lines]
        for one in lines:
            one.tokens += self.markers.ahead(modality)
        match self.makers[modality]:
            case Generator() as maker:
                parts = self._generate(maker, lines, sources, config)
            case Speller(decoder=decoder):
                codes = spell(self.library, decoder, self._whole(lines), sources, config)
                parts = [decoder.codec.decode(one) for one in codes.cpu()]
            case Native() as maker:
                parts = maker.draw(self.library, [one.tokens for one in lines], self._whole(lines), sources, config)
            case maker:
                raise TypeError(type(maker))
        for line, part in zip(lines, parts, strict=True):
            line.run.pop()
            self._say(line)
            line.parts.append(part)
            tell(Made(part))
            line.made[modality] += 1
            self._show(line, part)
            if line.left == 0:
                self._end(line)

    def _generate(
        self, maker: Generator, lines: Sequence[_Line], sources: Sequence[torch.Generator], config: GenerationConfig
    ) -> list[Part]:
        """Media conditioned by states of what is there so far, or at query positions behind it."""
        segment, media = maker.asked(self.stands)
        batch = self._batch([one.encoded([replace(segment, after=len(one.tokens))], media) for one in lines])
        states = cast(CausalLMBackbone, self.model.backbone)(batch, self.model.embed(batch))  # r n d
        condition = maker.joint(maker.decoder.given(states, batch.segments, batch.layout))
        return maker.decoder.denoiser.paint(condition, maker.joint.nothing(), sources, config)

    def _show(self, line: _Line, part: Part) -> None:
        """Let a medium be seen by what follows it, as it would be in a row."""
        seen = self.markers.seen(part)
        if seen.medium is not None:
            start = len(line.tokens)
            line.tokens += seen.tokens
            line.slots.append(EncodedSlot(start=start, stop=len(line.tokens), digest=seen.key))
            line.media[seen.key] = seen.medium
        line.tokens += seen.behind

    def _embedded(self, lines: Sequence[_Line]) -> Mapping[str, object]:
        """Embeddings ``r n d`` padded on the left, where any of these has media before it."""
        return {"inputs_embeds": self._whole(lines)[0]} if any(one.slots for one in lines) else {}

    def _whole(self, lines: Sequence[_Line]) -> tuple[Tensor, Tensor]:
        """Embeddings ``r n d`` of all that is there, padded on the left, and their mask ``r n``."""
        batch = self._batch([one.encoded() for one in lines])
        backbone = cast(CausalLMBackbone, self.model.backbone)
        whole = backbone.embedded(batch, self.model.embed(batch))
        turned = torch.zeros_like(whole)
        mask = torch.zeros(whole.shape[:2], dtype=torch.long, device=whole.device)
        for row, one in enumerate(lines):
            first = whole.shape[1] - len(one.tokens)
            turned[row, first:] = whole[row, : len(one.tokens)]
            mask[row, first:] = 1
        return turned, mask

    def _batch(self, encoded: Sequence[Encoded]) -> Batch:
        lone = Comparison.unpaired((), Response(messages=()))
        samples = [Sample(comparison=lone, encoded=(one,), own=1) for one in encoded]
        return assemble(samples, share=False, pad=self.chat.pad).to(next(self.library.parameters()).device)
