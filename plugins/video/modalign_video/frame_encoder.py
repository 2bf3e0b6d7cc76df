"""Towers of pictures over the frames of a clip, and what their embeddings are pooled to.

b media, t frames, n embeddings of a frame, d width, i j rows and columns of patches, s spatial factor.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self, cast, final

import torch
from einops import rearrange, reduce
from pydantic import Field, PositiveInt, ValidationError
from torch import Tensor

from modalign.batch import Medium
from modalign.config import Config
from modalign.errors import ConfigError, ModelError, ShapeError
from modalign.registry import registry
from modalign.roles import Content, Encoder

OPTIONS = "modalign_frames.json"  #: the file that `save` puts beside the picture tower's own
_GRID = "spatial_shapes"  #: what processors of pictures of any shape call rows and columns


@final
class FrameOptions(Config):
    """How frames are encoded, and how their embeddings are pooled."""

    encoder: str = "vision"
    """Registered name of the encoder of pictures."""

    stride: PositiveInt = 1
    """Encode the first of so many frames each; the others are dropped before the tower."""

    pool: Literal["none", "mean"] = "none"
    """Over time: keep the embeddings of all frames one after the other, or take their mean, place by place."""

    spatial: PositiveInt = Field(default=1)
    """Average squares of so many by so many patches within each frame; 1 keeps them all."""


@final
class FrameEncoder(Encoder):
    """An encoder of pictures applied to each frame of a clip; all frames of all clips go through it at once.

    inner: the encoder of pictures.
    options: which frames are taken, and how embeddings are pooled.
    """

    modality = "video"

    def __init__(self, inner: Encoder, options: FrameOptions | None = None) -> None:
        super().__init__()
        if inner.modality != "image":
            raise ModelError(
                "frames are encoded by an encoder of pictures", got=f"an encoder of {inner.modality}", fix="take one"
            )
        self.inner, self.options = inner, options or FrameOptions()
        self.width = inner.width
        self.facts = {**inner.facts, **self.options.model_dump()}

    @classmethod
    def load(
        cls, path: str, *, revision: str | None = None, dtype: torch.dtype | None = None, **options: object
    ) -> Self:
        """The picture tower in a folder or of an id, for frames.

        options: of `FrameOptions`, which win over those that `save` stored; all others are the picture encoder's.
        """
        own = {name: value for name, value in options.items() if name in FrameOptions.model_fields}
        chosen = _options({**_saved(Path(path)), **own})
        others = {name: value for name, value in options.items() if name not in own}
        inner = registry.encoder(chosen.encoder).load(path, revision=revision, dtype=dtype, **others)
        return cls(inner, chosen)

    @classmethod
    def measure(cls, path: str, *, revision: str | None = None, **options: object) -> int | None:
        own = {name: value for name, value in options.items() if name in FrameOptions.model_fields}
        chosen = _options({**_saved(Path(path)), **own})
        others = {name: value for name, value in options.items() if name not in own}
        return registry.encoder(chosen.encoder).measure(path, revision=revision, **others)

    def save(self, folder: Path) -> None:
        self.inner.save(folder)
        (folder / OPTIONS).write_text(self.options.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def prepare(self, content: Content) -> Medium:
        if content.modality != self.modality:
            raise ModelError("an encoder of frames takes clips", got=content.modality)
        frames = [
            self.inner.prepare(Content(modality="image", tensor=frame))
            for frame in content.tensor[:: self.options.stride]
        ]
        names, each = frames[0].tensors, frames[0].cost  # all frames have one size, so one cost
        for name in names:
            shapes = {tuple(frame.tensors[name].shape) for frame in frames}
            if len(shapes) > 1:
                raise ShapeError("frames of one clip must be prepared alike", got=f"{name} of shapes {sorted(shapes)}")
        grid = self._grid(frames[0])
        kept = each if grid is None else math.prod(self._cells(one) for one in grid)
        return Medium(
            modality=self.modality,
            tensors={name: torch.stack([frame.tensors[name] for frame in frames]) for name in names},
            cost=kept if self.options.pool == "mean" else kept * len(frames),
            extra={"cost": each, **frames[0].extra},
        )

    def forward(self, media: Sequence[Medium]) -> list[Tensor]:
        frames = [one for medium in media for one in _frames(medium)]
        given = iter(self.inner(frames))
        found: list[Tensor] = []
        for medium in media:
            each = _frames(medium)
            states = torch.stack([next(given) for _ in each])  # t n d
            found.append(self._pooled(states, self._grid(each[0])))
        self.ran(len(media))
        return found

    def _pooled(self, states: Tensor, grid: tuple[int, int] | None) -> Tensor:
        """Embeddings of a clip, ``t n d`` to ``m d``."""
        if grid is not None:
            rows, columns = grid
            maps = rearrange(states[:, : rows * columns], "t (i j) d -> t d i j", i=rows)
            # cells at the edges are averages of what there is
            small = torch.nn.functional.avg_pool2d(maps, self.options.spatial, ceil_mode=True)
            states = rearrange(small, "t d i j -> t (i j) d")
        if self.options.pool == "mean":
            return reduce(states, "t n d -> n d", "mean")
        return rearrange(states, "t n d -> (t n) d")

    def _grid(self, frame: Medium) -> tuple[int, int] | None:
        """Rows and columns of a frame's patches; None where they are not pooled."""
        if self.options.spatial == 1:
            return None
        if _GRID in frame.tensors:
            rows, columns = (int(one) for one in frame.tensors[_GRID].flatten()[-2:])
        else:
            rows = columns = math.isqrt(frame.cost)
        if rows * columns != frame.cost or frame.cost < 2:
            raise ModelError(
                "only a grid of patches can be pooled in space",
                got=f"{frame.cost} embeddings of a frame, which are no square",
                fix="set spatial to 1, or select the patches alone",
            )
        return rows, columns

    def _cells(self, count: int) -> int:
        return math.ceil(count / self.options.spatial)


def _frames(medium: Medium) -> list[Medium]:
    """The media of pictures that a clip's medium was stacked from."""
    count = next(iter(medium.tensors.values())).shape[0]
    cost = cast(int, medium.extra["cost"])
    extra = {name: value for name, value in medium.extra.items() if name != "cost"}
    return [
        Medium(
            modality="image",
            tensors={name: value[number] for name, value in medium.tensors.items()},
            cost=cost,
            extra=extra,
        )
        for number in range(count)
    ]


def _options(given: Mapping[str, object]) -> FrameOptions:
    try:
        return FrameOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            first["msg"],
            where=".".join(str(part) for part in first["loc"]),
            got=repr(first["input"]),
            fix=f"options of the encoder of frames: {', '.join(FrameOptions.model_fields)}",
        ) from error


def _saved(folder: Path) -> dict[str, object]:
    file = folder / OPTIONS
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("the encoder's options cannot be read", where=str(file), got=error, fix="remove it") from error
    if not isinstance(found, dict):
        raise ModelError("the encoder's options must be an object", where=str(file), got=type(found).__name__)
    return found
