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
from modalign.errors import DataError
from modalign.roles import Connector, Content, Encoder, MediaSettings
from modalign_text.media import Expansion, MediaWriter, Span
from modalign_text.multimodal.keeping import Kept
from modalign_text.multimodal.tracks import TRACKS, behind, decoded


@final
class MarkerWriter(MediaWriter):
    """Media as special tokens that the tokenizer is lent, and that never reach the backbone's table.

    tokenizer: of the language model; a copy of it learns the markers, so that what is saved is what was loaded.
    encoders, connectors: by modality; they say how many embeddings a medium becomes.
    settings: how media are decoded.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        encoders: Mapping[str, Encoder],
        connectors: Mapping[str, Connector],
        settings: Mapping[str, MediaSettings],
    ) -> None:
        self.takes = frozenset(encoders)
        self.settings = settings
        self.tokenizer = copy.deepcopy(tokenizer)
        markers = [AddedToken(_marker(name), special=True, normalized=False) for name in encoders]
        self.tokenizer.add_tokens(cast("list[str]", markers))  # its own AddedToken is the same class by another path
        ids = {name: cast(int, self.tokenizer.convert_tokens_to_ids(_marker(name))) for name in encoders}
        self._held = frozenset(ids.values())
        stands = next((one for one in (tokenizer.pad_token_id, tokenizer.eos_token_id) if isinstance(one, int)), 0)
        self._stands = stands  # what the backbone's table is asked for before the embedding is replaced
        self._encoders, self._connectors = dict(encoders), dict(connectors)
        self._marked = re.compile("|".join(re.escape(_marker(name)) for name in encoders) or "(?!)")
        self._media: Kept[Medium] = Kept()

    def said(self, part: Part) -> str:
        return _marker(part.modality)

    def plain(self, part: Part) -> str:
        return _marker(part.modality)

    def holds(self, token: int) -> bool:
        return token in self._held

    def token(self, token: int) -> int:
        return self._stands if token in self._held else token

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
            whole = _marker(part.modality) * self.medium(part).cost
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
