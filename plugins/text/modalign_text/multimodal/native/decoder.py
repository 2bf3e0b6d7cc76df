"""Pictures that a checkpoint draws itself: exact log-probabilities of their codes, and the embeddings of these.

r rows, n tokens of a row or codes of a picture, d width, u units, v codes there are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast, final

import torch
from einops import rearrange
from torch import Tensor, nn
from transformers import PreTrainedModel

from modalign.batch import Batch, Medium
from modalign.draws import Draws
from modalign.errors import ModelError
from modalign.ops.linear_logprob import linear_logprob
from modalign.roles import GIVEN, Decoder
from modalign.scores import UnitKind, Units
from modalign_text.decoder import TextDecoder, called, plain
from modalign_text.multimodal.native.pictures import InVocabulary, JanusPictures, Pictures


class PictureDecoder(Decoder, ABC):
    """Exact log-probabilities of the codes of pictures, under the vocabulary that they are sampled from.

    That is the codes and nothing else: between the token that opens a picture and the one that closes it the format
    allows no other. Tokens that the format dictates (sizes, ends of lines and frames) have probability 1, and are no
    units. What opens a picture is said by the model, and scored as text.

    Segments give the numbers of codes in their picture; codes are found when they are scored, where the VQ model is.
    """

    modality: str = "image"
    kind: UnitKind = "token"
    anywhere = False
    pictures: Pictures

    @property
    def shape(self) -> str:
        rows, columns = self.pictures.drawn()
        return f"{rows * columns} codes of {self.pictures.size} -> {self.modality}"

    @property
    def places(self) -> tuple[bool, ...]:
        """For each token of a picture that is to be drawn, whether its code is the model's to say."""
        return tuple(one != GIVEN for one in self.pictures.places(self.pictures.drawn()))

    @abstractmethod
    def embedded(self, codes: Tensor) -> Tensor:
        """Embeddings of codes, one each."""

    @abstractmethod
    def logits(self, states: Tensor) -> Tensor:
        """Of the codes that may follow states ``r d``, ``r v``."""

    @abstractmethod
    def logprobs(self, hidden: Tensor, codes: Tensor) -> Tensor:
        """Of codes ``u`` behind states ``u d``."""

    def anchor(self) -> Tensor:
        """Zero, with a gradient to what a batch without pictures does not reach."""
        return torch.zeros(())

    def embed(self, medium: Medium) -> Tensor:
        return self.embedded(self.pictures.codes({medium.digest: medium}, self.memo)[medium.digest])

    def forward(self, states: Tensor | None, batch: Batch, draws: Draws) -> Units:
        if states is None:
            raise ModelError("codes are read from a backbone's states", got="a model without one", fix="give it one")
        found = batch.units.get(self.modality)
        if found is None:
            none = torch.zeros(0, dtype=torch.long, device=states.device)
            row, index, segment, codes = none, none, none, none
        else:
            row, index, segment = found.row, found.index, found.segment
            codes = self._codes(batch, found.token, segment)
        flat = rearrange(states, "r n d -> (r n) d")
        hidden = flat.index_select(0, row * states.shape[1] + index)  # u d
        values = self.logprobs(hidden, codes)
        return Units(kind=self.kind, values=values + self.anchor().to(values), segment=segment)

    def _codes(self, batch: Batch, numbers: Tensor, segment: Tensor) -> Tensor:
        """The codes ``u`` that units are, of the numbers that they have in the pictures of their segments."""
        used = dict.fromkeys(segment.tolist())
        digests = {at: cast(str, batch.segments[at].digest) for at in used}
        known = self.pictures.codes({digest: batch.media[digest] for digest in digests.values()}, self.memo)
        codes = torch.zeros_like(numbers)
        for at, digest in digests.items():
            mine = segment == at
            codes[mine] = known[digest].to(codes.device)[numbers[mine]]
        return codes


@final
class VocabularyDecoder(PictureDecoder):
    """Codes that are tokens of the language model, under its own head: the rows of it that are codes.

    text: the decoder of the model's words, whose head this is.
    library: whose table embeds.
    """

    def __init__(self, text: TextDecoder, pictures: InVocabulary, library: PreTrainedModel) -> None:
        super().__init__()
        self.text, self.pictures = text, pictures
        self._outside = (library,)
        ids = pictures.ids
        run = range(ids[0], ids[0] + len(ids))
        self._rows = slice(run.start, run.stop) if tuple(run) == ids else torch.tensor(ids)  # a slice copies nothing

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [], []  # its VQ model is the encoder's, its head the text decoder's

    def embedded(self, codes: Tensor) -> Tensor:
        table = cast(nn.Embedding, self._outside[0].get_input_embeddings())
        return table(cast(InVocabulary, self.pictures).token_ids(codes).to(table.weight.device))

    def logits(self, states: Tensor) -> Tensor:
        return self.text.shaped(self.text.head(states))[..., self._rows]

    def logprobs(self, hidden: Tensor, codes: Tensor) -> Tensor:
        head, text = self.text.head, self.text
        if plain(head):
            bias = None if head.bias is None else head.bias[self._rows] * text.scale
            weight = head.weight[self._rows]
            return linear_logprob(hidden, weight, codes, bias=bias, scale=text.scale, softcap=text.softcap)
        return called(self.logits, hidden, codes)


@final
class JanusDecoder(PictureDecoder):
    """Codes with a table, an aligner and a head of their own, which are the checkpoint's and train with it.

    table, aligner: embed codes.
    head: scores them.
    """

    def __init__(self, pictures: JanusPictures, library: PreTrainedModel) -> None:
        super().__init__()
        self.pictures = pictures
        inner = cast(Any, library).model
        self.table, self.aligner, self.head = (
            cast(nn.Module, one)
            for one in (inner.generation_embeddings, inner.generation_aligner, inner.generation_head)
        )

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.pictures.vq, self.head], [self.table, self.aligner]

    def embedded(self, codes: Tensor) -> Tensor:
        return self.aligner(self.table(codes))

    def logits(self, states: Tensor) -> Tensor:
        return self.head(states)

    def logprobs(self, hidden: Tensor, codes: Tensor) -> Tensor:
        return called(self.logits, hidden, codes)

    def anchor(self) -> Tensor:
        every = [value.reshape(-1)[0] * 0.0 for value in self.parameters() if value.requires_grad]
        return torch.stack(every).sum() if every else super().anchor()


def decoder_of(pictures: Pictures, library: PreTrainedModel, text: TextDecoder) -> PictureDecoder:
    """What scores the pictures of a checkpoint.

    text: the decoder of its words.
    """
    match pictures:
        case JanusPictures():
            return JanusDecoder(pictures, library)
        case InVocabulary():
            return VocabularyDecoder(text, pictures, library)
        case _:
            raise TypeError(type(pictures))
