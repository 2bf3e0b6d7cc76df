"""Media to embeddings: a linear layer over patches of a few steps.

t steps, m patches, p steps of a patch, d width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from einops import rearrange
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import pad

from modalign.batch import Medium
from modalign.errors import ConfigError, ModelError
from modalign.roles import Content, Encoder


@final
class SeriesEncoder(Encoder):
    """Patches of p steps, each an embedding.

    width: of the embeddings (d).
    steps: of a patch (p).
    """

    modality: str = "series"

    def __init__(self, width: int = 16, steps: int = 4) -> None:
        super().__init__()
        self.width, self.steps = width, steps
        self.project = nn.Linear(steps, width)

    @classmethod
    def load(
        cls, path: str, *, revision: str | None = None, dtype: torch.dtype | None = None, **options: object
    ) -> SeriesEncoder:
        if options:
            raise ConfigError("this encoder has no options", got=", ".join(options), fix="remove them")
        made = cls(**json.loads((Path(path) / "config.json").read_text()))
        made.load_state_dict(load_file(Path(path) / "model.safetensors"))
        return made.to(dtype or torch.float32)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"width": self.width, "steps": self.steps}))
        state = {name: value.detach().cpu().clone().contiguous() for name, value in self.state_dict().items()}
        save_file(state, folder / "model.safetensors")

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
