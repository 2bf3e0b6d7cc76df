"""Actions that a model reads: in a prompt's history, or for a reward model in what was done.

t steps, a dimensions, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, final

import torch
from pydantic import PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modalign.batch import Medium
from modalign.connectors.options import ConnectorOptions, checked, seeded
from modalign.errors import CheckpointError, ConfigError, ModelError
from modalign.roles import Content, Encoder
from modalign_action.space import ActionSpace
from modalign_action.waves import waves

WEIGHTS: Final = "encoder.safetensors"
_WAVES: Final = 16  #: numbers that say which step it is
_STEPS: Final = "steps"


@final
class EncoderOptions(ConnectorOptions):
    """What an encoder of actions can be told."""

    width: PositiveInt = 128
    """Of the embeddings, where the folder holds no weights."""


@final
class ActionEncoder(Encoder):
    """An embedding of each step, by an MLP over its dimensions and its place in the chunk.

    In a folder without weights it is new. It is small, knows nothing at first and is what connects actions to a model,
    so it trains with the connectors, and `freeze: [connectors.action]` keeps it as it is.

    space: of the actions; chunks may be of any number of steps.
    width: of the embeddings (d).
    """

    modality: str = "action"

    def __init__(self, space: ActionSpace, *, width: int = 128, seed: int = 0) -> None:
        super().__init__()
        self.space, self.width, self.rate = space, width, space.rate
        self.facts = {"space": space.model_dump_json()}
        with seeded(seed):
            self.read = nn.Sequential(
                nn.Linear(space.dimensions + _WAVES, width), nn.GELU(), nn.Linear(width, width), nn.RMSNorm(width)
            )

    @classmethod
    def load(
        cls, path: str, *, revision: str | None = None, dtype: torch.dtype | None = None, **options: object
    ) -> ActionEncoder:
        chosen = checked(EncoderOptions, options)
        space, file = ActionSpace.load(path), Path(path).expanduser() / WEIGHTS
        if not file.is_file():
            return cls(space, width=chosen.width, seed=chosen.seed).to(dtype or torch.float32)
        try:
            state = load_file(file)
            made = cls(space, width=len(state["read.0.bias"]))
            made.load_state_dict(state)
        except (OSError, KeyError, RuntimeError, SafetensorError) as error:
            what = "the encoder of actions cannot be read"
            raise CheckpointError(what, where=str(file), got=str(error)[:200], fix="save it again") from error
        if options.get("width", made.width) != made.width:
            raise ConfigError("this encoder has another width", where="width", got=made.width, fix="leave it out")
        return made.to(dtype or torch.float32)

    def save(self, folder: Path) -> None:
        self.space.save(folder)
        state = {name: value.detach().cpu().clone().contiguous() for name, value in self.state_dict().items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})

    def parts(self) -> tuple[list[nn.Module], list[nn.Module]]:
        return [], [self]

    def prepare(self, content: Content) -> Medium:
        if content.modality != self.modality or content.tensor.ndim != 2:
            raise ModelError("this encoder reads actions", got=f"{content.modality} {tuple(content.tensor.shape)}")
        unit = self.space.unit(self.space.check(content.tensor, steps=False))
        return Medium(modality=self.modality, tensors={_STEPS: unit}, cost=len(unit))

    def forward(self, media: Sequence[Medium]) -> list[Tensor]:
        self.ran(len(media))
        like = next(self.parameters())
        found: list[Tensor] = []
        for medium in media:
            steps = medium.tensors[_STEPS].to(like)  # t a
            places = waves(torch.arange(len(steps), device=like.device), _WAVES).to(like)
            found.append(self.read(torch.cat([steps, places], -1)))
        return found
