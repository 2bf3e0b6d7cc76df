"""Video towers as encoders: VideoMAE, and what else AutoModel knows that reads whole clips.

b media, n tokens of a tower, d width, t frames, c channels, h w pixels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self, cast, final

import torch
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoModel, PreTrainedModel
from transformers.video_processing_utils import BaseVideoProcessor

from modalign.batch import Medium
from modalign.config import Config
from modalign.errors import ConfigError, ModelError
from modalign.roles import Content, Encoder
from modalign_image.pixel_values import Pixels, fused_values
from modalign_video.tower import INPUTS, load_tower, tower_config

_PIXELS = "pixel_values"


@final
class VideoOptions(Config):
    """What an encoder of whole clips can be told beside its checkpoint."""

    pixels: Pixels = "auto"
    """Who makes the tower's input: our op `patches` behind the processor's own resize, or the processor alone; `auto`
    takes the op where both give the same to 1e-5, tried on random frames when it is loaded."""


@final
class VideoEncoder(Encoder):
    """A tower of transformers that reads whole clips, with its own processor; its last states are the embeddings.

    Clips of equal shape run as one batch.

    tower, processor: of the library.
    options: who makes the tower's input.

    >>> from tempfile import TemporaryDirectory
    >>> from modalign_video.testing import tiny_video
    >>> with TemporaryDirectory() as folder:
    ...     encoder = VideoEncoder.load(str(tiny_video(folder, "videomae")))
    >>> content = Content(modality="video", tensor=torch.zeros(4, 3, 40, 60, dtype=torch.uint8))
    >>> medium = encoder.prepare(content)
    >>> medium.cost, encoder([medium])[0].shape
    (32, torch.Size([32, 32]))
    """

    modality = "video"

    def __init__(
        self, tower: PreTrainedModel, processor: BaseVideoProcessor, options: VideoOptions | None = None
    ) -> None:
        super().__init__()
        self.tower, self.processor, self.options = tower, processor, options or VideoOptions()
        self.width = int(tower.config.hidden_size)
        self.facts = {"processor": processor.to_json_string()}
        with torch.device("meta"):
            # shapes without weights or work; in a tuple, so that it is no part of this module
            self._shapes = (AutoModel.from_config(tower.config),)
        self._costs: dict[tuple[int, ...], int] = {}
        self._fused = fused_values(self.options.pixels, processor, self._processed, name=_PIXELS, frames=2)

    @classmethod
    def load(
        cls, path: str, *, revision: str | None = None, dtype: torch.dtype | None = None, **options: object
    ) -> Self:
        """The tower in a folder or of an id.

        options: of `VideoOptions`.
        """
        chosen = _options(options)
        return cls(*load_tower(path, revision=revision, dtype=dtype), chosen)

    @classmethod
    def measure(cls, path: str, *, revision: str | None = None, **options: object) -> int | None:
        _options(options)
        return getattr(tower_config(path, revision=revision), "hidden_size", None)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tower.save_pretrained(folder)
        self.processor.save_pretrained(folder)

    def prepare(self, content: Content) -> Medium:
        if content.modality != self.modality:
            raise ModelError("a video tower takes clips", got=content.modality)
        self._check_frames(content.tensor.shape[0])
        if self._fused is None or (self.options.pixels == "auto" and not self._fused.takes(content.tensor)):
            pixels = self._processed(content.tensor)[_PIXELS]
        else:
            pixels = self._fused(content.tensor)
        return Medium(modality=self.modality, tensors={_PIXELS: pixels}, cost=self._cost(pixels))

    def forward(self, media: Sequence[Medium]) -> list[Tensor]:
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, medium in enumerate(media):
            alike[tuple(medium.tensors[_PIXELS].shape)].append(index)
        weight = next(self.tower.parameters())
        found: dict[int, Tensor] = {}
        for indices in alike.values():
            pixels = torch.stack([media[index].tensors[_PIXELS] for index in indices])  # b t c h w
            states = _states(self.tower, pixels.to(weight.device, weight.dtype))  # b n d
            found |= dict(zip(indices, states, strict=True))
        self.ran(len(media))
        return [found[index] for index in range(len(media))]

    def _processed(self, frames: Tensor) -> dict[str, Tensor]:
        """What the tower reads of a clip ``t c h w``, by the library's own processor."""
        made = self.processor(videos=[frames], return_tensors="pt", do_sample_frames=False)
        name = next((one for one in INPUTS if one in made), None)
        if name is None:
            raise ModelError("the processor makes nothing that a video tower reads", got=", ".join(made))
        return {_PIXELS: cast(Tensor, made[name])[0]}  # t c h w

    def _check_frames(self, count: int) -> None:
        needed = getattr(self.tower.config, "num_frames", None)
        if isinstance(needed, int) and count != needed:
            raise ModelError(
                f"this tower reads clips of exactly {needed} frames",
                got=f"{count} frames",
                fix=f"set media.video.frames to {needed}",
            )

    def _cost(self, pixels: Tensor) -> int:
        """How many embeddings a clip ``t c h w`` gives."""
        shape = tuple(pixels.shape)
        if shape not in self._costs:
            try:
                states = _states(self._shapes[0], torch.empty(1, *shape, device="meta"))
            except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
                raise ModelError(
                    "this tower does not read what its processor makes",
                    got=f"clips of {' '.join(map(str, shape))}: {' '.join(str(error).split())[:200]}",
                    fix="check the size in the processor's config, and media.video.frames",
                ) from error
            self._costs[shape] = states.shape[1]
        return self._costs[shape]


def _states(tower: PreTrainedModel, pixels: Tensor) -> Tensor:
    """The last states of clips, ``b t c h w`` to ``b n d``."""
    given: Mapping[str, Tensor] = {tower.main_input_name: pixels}
    return tower(**given).last_hidden_state


def _options(given: Mapping[str, object]) -> VideoOptions:
    try:
        return VideoOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            first["msg"],
            where=".".join(str(part) for part in first["loc"]),
            got=repr(first["input"]),
            fix="an encoder of whole clips has the option `pixels`; `pool`, `stride` and `spatial` are of the encoder "
            "`frames`",
        ) from error
