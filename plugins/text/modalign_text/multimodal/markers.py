"""Media in the texts of a language model that knows none: a marker of ours for each, as often as it has embeddings."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast, final

from tokenizers import AddedToken
from transformers import PreTrainedTokenizerBase

from modalign.batch import Medium
from modalign.content import Part
from modalign.decoders.codes import CodeDecoder
from modalign.errors import DataError
from modalign.frozen import empty
from modalign.roles import Connector, Content, EncodedSegment, Encoder, MediaSettings
from modalign_text.media import Expansion, Span
from modalign_text.multimodal.drawing import Drawing, Seen
from modalign_text.multimodal.keeping import Kept
from modalign_text.multimodal.makers import Generator, Maker, Speller, closes, opens
from modalign_text.multimodal.tracks import TRACKS, behind, decoded


@final
class MarkerWriter(Drawing):
    """Media as special tokens that the tokenizer is lent, and that never reach the backbone's table.

    tokenizer: of the language model; a copy of it learns the markers, so that what is saved is what was loaded.
    encoders, connectors: by modality; they say how many embeddings a medium becomes. A decoder of codes is both.
    settings: how media are decoded.
    makers: what makes media, by modality. Such a medium stands between the tokens that open and close it, in prompts
        too; one that no encoder reads is nothing but these.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoders: Mapping[str, Encoder | CodeDecoder],
        connectors: Mapping[str, Connector],
        settings: Mapping[str, MediaSettings],
        makers: Mapping[str, Maker] = empty(),
    ) -> None:
        self.takes, self.makes = frozenset(encoders), frozenset(makers)
        self.settings = settings
        self.tokenizer = copy.deepcopy(tokenizer)
        names = dict.fromkeys((*encoders, *makers))
        markers = [AddedToken(_marker(name), special=True, normalized=False) for name in names]
        self.tokenizer.add_tokens(cast("list[str]", markers))  # its own AddedToken is the same class by another path
        ids = {name: cast(int, self.tokenizer.convert_tokens_to_ids(_marker(name))) for name in names}
        self.openers = {cast(int, self.tokenizer.convert_tokens_to_ids(opens(name))): name for name in makers}
        self._held = frozenset(ids.values())
        stands = next((one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if isinstance(one, int)), 0)
        self.stands = stands  # what the backbone's table is asked for before the embedding is replaced
        self._encoders, self._connectors, self._makers = dict(encoders), dict(connectors), dict(makers)
        self._marked = re.compile("|".join(re.escape(_marker(name)) for name in names) or "(?!)")
        self._media: Kept[Medium] = Kept()
        self._drawn: Kept[tuple[EncodedSegment, dict[str, Medium]]] = Kept()

    def said(self, part: Part) -> str:
        return self.plain(part)

    def plain(self, part: Part) -> str:
        return (opens(part.modality) if part.modality in self.makes else "") + _marker(part.modality)

    def drawn(self, part: Part) -> tuple[EncodedSegment, Mapping[str, Medium]]:
        match self._makers[part.modality]:
            case Generator() as maker:
                segment, media = self._drawn(part.digest, lambda: maker.drawn(part, self.stands))
                return replace(segment, spans=part.spans), media
            case Speller() as maker:
                return maker.spelt(self.medium(part), part.spans), {}
            case maker:
                raise TypeError(type(maker))

    def compare(self, parts: Sequence[Part]) -> None:
        self._makers[parts[0].modality].compare(parts)

    @property
    def never(self) -> frozenset[int]:
        return frozenset(map(self._closer, self.makes))

    def seen(self, part: Part) -> Seen:
        medium = self.medium(part) if part.modality in self.takes else None
        tokens = (self.stands,) * self.cost(part)
        return Seen(tokens=tokens, key=part.digest, medium=medium, behind=(self._closer(part.modality),))

    def _closer(self, modality: str) -> int:
        """The token behind a medium that the model has made."""
        return cast(int, self.tokenizer.convert_tokens_to_ids(closes(modality)))

    def cost(self, part: Part) -> int:
        """How many embeddings stand for a medium."""
        return self.medium(part).cost if part.modality in self.takes else 0

    def holds(self, token: int) -> bool:
        return token in self._held

    def token(self, token: int) -> int:
        return self.stands if token in self._held else token

    def medium(self, part: Part) -> Medium:
        return self._media(part.digest, lambda: self._prepare(part))

    def behind(self, part: Part) -> tuple[Part, ...]:
        return behind(part, self.medium(part))

    def expand(self, text: str, parts: Sequence[Part]) -> Expansion:
        found = [match.span() for match in self._marked.finditer(text)]
        written = [match[0] for match in self._marked.finditer(text)]
        if written != [_marker(part.modality) for part in parts]:
            raise DataError(
                f"the chat template writes {len(written)} medium(s) where the messages have {len(parts)}",
                field="prompt",
                got=f"{', '.join(written) or 'none'} for {', '.join(part.modality for part in parts) or 'none'}",
                fix="use a chat template that writes the content of every message as it is",
            )
        pieces: list[str] = []
        spans: list[Span] = []
        last = length = 0
        for (start, stop), part in zip(found, parts, strict=True):
            whole = _marker(part.modality) * self.cost(part)
            whole += closes(part.modality) if part.modality in self.makes else ""
            pieces += [text[last:start], whole]
            begin = length + start - last
            length = begin + len(whole)
            spans.append(Span(part=part, old=(start, stop), start=begin, stop=length))
            last = stop
        return Expansion(text="".join([*pieces, text[last:]]), spans=tuple(spans))

    def _prepare(self, part: Part) -> Medium:
        found = decoded(part, self.settings, lambda name: self._encoders[name].rate)
        made = {one: self._prepared(content) for one, content in found.items()}
        for one, medium in made.items():
            self._media.keep(one.digest, medium)
        return made[part]

    def _prepared(self, content: Content) -> Medium:
        medium = self._encoders[content.modality].prepare(content)
        connector = self._connectors.get(content.modality)
        cost = medium.cost if connector is None else connector.length(medium.cost)
        return replace(medium, cost=cost, extra={**medium.extra, TRACKS: tuple(content.tracks)})


def _marker(modality: str) -> str:
    return f"<|modalign {modality}|>"
