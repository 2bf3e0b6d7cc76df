"""Pictures that a language model reads as tokens of its own: codes of a frozen VQ model, embedded by its own table.

m embeddings of a medium, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast, final

from torch import Tensor, nn
from transformers import PreTrainedModel

from modalign.batch import Medium
from modalign.roles import Content, Encoder
from modalign_text.multimodal.native.pictures import InVocabulary
from modalign_text.multimodal.processing import ProcessorWriter


@final
class CodeEncoder(Encoder):
    """A picture's codes as the embeddings of the tokens that they are, ends of lines among them.

    pictures: how the checkpoint draws; this module's child.
    library: whose table embeds.
    """

    modality: str = "image"

    def __init__(self, library: PreTrainedModel, writer: ProcessorWriter, pictures: InVocabulary) -> None:
        super().__init__()
        self.pictures = pictures
        self.width = int(library.config.get_text_config().hidden_size)
        self.facts = writer.facts(self.modality)
        self._outside = (library,)  # in a tuple: its table is the backbone's, and no child of this module
        self._writer = writer

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [self.pictures.vq], []

    @property
    def frozen(self) -> bool:
        return False  # codes are remembered, not embeddings: those are a thousand times larger

    @property
    def unstored(self) -> str:
        return ""

    @property
    def table(self) -> nn.Embedding:
        """The decoder's embeddings of tokens."""
        return cast(nn.Embedding, self._outside[0].get_input_embeddings())

    def prepare(self, content: Content) -> Medium:
        return self._writer.prepare(content)

    def forward(self, media: Sequence[Medium]) -> list[Tensor]:
        known = self.pictures.codes({medium.digest: medium for medium in media if medium.digest}, self.memo)
        codes = [known[medium.digest] if medium.digest else self.pictures.run(medium) for medium in media]
        device = self.table.weight.device
        return [self.table(self.pictures.token_ids(one).to(device)) for one in codes]
