"""Media to embeddings: a linear layer over patches of a few steps.

t steps, m patches, p steps of a patch, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from einops import rearrange
from torch import Tensor, nn
from torch.nn.functional import pad

from modalign.batch import Medium
from modalign.errors import ModelError
from modalign.roles import Content, Encoder


@final
class SeriesEncoder(Encoder):
    """Patches of p steps, each an embedding. It is saved with what it was made with, each an attribute of that name.

    width: of the embeddings (d).
    steps: of a patch (p).
    """

    modality: str = "series"

    def __init__(self, width: int = 16, steps: int = 4) -> None:
        super().__init__()
        self.width, self.steps = width, steps
        self.project = nn.Linear(steps, width)

    def prepare(self, content: Content) -> Medium:
        if content.modality != self.modality or content.tensor.ndim != 1:
            raise ModelError("this encoder reads series", got=f"{content.modality} {tuple(content.tensor.shape)}")
        filled = pad(content.tensor, (0, -len(content.tensor) % self.steps))
        patches = rearrange(filled, "(m p) -> m p", p=self.steps)
        return Medium(modality=self.modality, tensors={"patches": patches}, cost=len(patches))

    def forward(self, media: Sequence[Medium]) -> list[Tensor]:
        self.ran(len(media))
        kind = self.project.weight.dtype
        return [self.project(medium.tensors["patches"].to(self.project.weight.device, kind)) for medium in media]
