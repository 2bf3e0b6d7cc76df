"""Vision towers as encoders: CLIP, SigLIP, SigLIP2, DINOv2, and what else transformers has.

b media, n tokens of a tower, m embeddings of a medium, d width, c channels, h w pixels.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self, cast, final

import torch
from einops import rearrange
from pydantic import ValidationError
from torch import Tensor
from transformers import AutoModel, BaseImageProcessor, PreTrainedModel

from modalign.batch import Medium
from modalign.config import Config
from modalign.errors import ConfigError, ModelError
from modalign.roles import Content, Encoder
from modalign_image.pixel_values import CHANNELS, Pixels, fused_values
from modalign_image.tower import load_tower, tower_config

OPTIONS = "modalign_encoder.json"  #: the file that `save` puts beside transformers' own
_PIXELS, _MASK = "pixel_values", "pixel_attention_mask"
_TRIED = 64  #: pixels of the picture that a tower is tried on


@final
class VisionOptions(Config):
    """Which of a tower's states are the embeddings.

    One default for all families, the last state but one, as in LLaVA, https://arxiv.org/abs/2304.08485: the last
    layer serves what the tower was trained for. CLIP's reads only the class token of it, so that its patches there
    were never trained at all.
    """

    layer: int = -2
    """Which hidden state, as transformers counts them: 0 is before the first layer, -1 after the last."""

    select: Literal["patch", "cls", "all"] = "patch"
    """`patch` leaves class and register tokens out; `cls` is the class token alone; `all` keeps them all."""

    pixels: Pixels = "auto"
    """Who makes the tower's input: our op `patches` behind the processor's own resize, or the processor alone; `auto`
    takes the op where both give the same to 1e-5, tried on random pictures when it is loaded."""


@final
class VisionEncoder(Encoder):
    """A vision tower of transformers with its own processor; pictures of equal size run as one batch.

    tower, processor: of the library.
    options: which states are the embeddings.

    >>> from tempfile import TemporaryDirectory
    >>> from modalign_image.testing import tiny_vision
    >>> with TemporaryDirectory() as folder:
    ...     encoder = VisionEncoder.load(str(tiny_vision(folder, "siglip")))
    >>> content = Content(modality="image", tensor=torch.zeros(3, 40, 60, dtype=torch.uint8))
    >>> medium = encoder.prepare(content)
    >>> medium.cost, encoder([medium])[0].shape
    (16, torch.Size([16, 32]))
    """

    modality = "image"

    def __init__(
        self, tower: PreTrainedModel, processor: BaseImageProcessor, options: VisionOptions | None = None
    ) -> None:
        super().__init__()
        self.tower, self.processor, self.options = tower, processor, options or VisionOptions()
        with torch.device("meta"):
            # shapes without weights or work; in a tuple, so that it is no part of this module
            self._shapes = (AutoModel.from_config(tower.config),)
        self.facts = {
            "options": self.options.model_dump_json(exclude={"pixels"}),
            "processor": processor.to_json_string(),
        }
        self._known: dict[tuple[tuple[str, tuple[int, ...]], ...], tuple[int, int, int]] = {}
        tried = self._processed(torch.zeros(CHANNELS, _TRIED, _TRIED, dtype=torch.uint8))
        _, _, self.width = self._layout(tried)
        self._count(tried)
        self._fused = fused_values(self.options.pixels, processor, self._all_processed, name=_PIXELS, frames=1)

    @classmethod
    def load(
        cls, path: str, *, revision: str | None = None, dtype: torch.dtype | None = None, **options: object
    ) -> Self:
        """The tower in a folder or of an id.

        options: of `VisionOptions`; where the folder was saved by `save`, those given win over those saved.
        """
        chosen = _options({**_saved(Path(path)), **options})
        tower, processor = load_tower(path, revision=revision, dtype=dtype)
        return cls(tower, processor, chosen)

    @classmethod
    def measure(cls, path: str, *, revision: str | None = None, **options: object) -> int | None:
        _options({**_saved(Path(path)), **options})
        return getattr(tower_config(path, revision=revision), "hidden_size", None)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.tower.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        (folder / OPTIONS).write_text(self.options.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def prepare(self, content: Content) -> Medium:
        if content.modality != self.modality:
            raise ModelError("a vision tower takes pictures", got=content.modality)
        tensors = self._process(content.tensor)
        return Medium(modality=self.modality, tensors=tensors, cost=self._count(tensors))

    def forward(self, media: Sequence[Medium]) -> list[Tensor]:
        alike: dict[tuple[tuple[str, tuple[int, ...]], ...], list[int]] = defaultdict(list)
        for index, medium in enumerate(media):
            alike[_shapes_of(medium.tensors)].append(index)
        found: dict[int, Tensor] = {}
        for indices in alike.values():
            names = media[indices[0]].tensors
            batch = {name: torch.stack([media[index].tensors[name] for index in indices]) for name in names}
            states = self._states(self.tower, self._placed(batch))  # b n d
            for index, own in zip(indices, states, strict=True):
                found[index] = self._selected(own, media[index].tensors)
        self.ran(len(media))
        return [found[index] for index in range(len(media))]

    def _placed(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        weight = next(self.tower.parameters())
        return {
            name: value.to(weight.device, weight.dtype if value.is_floating_point() else None)
            for name, value in batch.items()
        }

    def _process(self, pixels: Tensor) -> dict[str, Tensor]:
        """What the tower reads of one picture."""
        if self._fused is None or (self.options.pixels == "auto" and not self._fused.takes(pixels)):
            return self._processed(pixels)
        return {_PIXELS: self._fused(rearrange(pixels, "c h w -> 1 c h w"))[0]}

    def _all_processed(self, pictures: Tensor) -> dict[str, Tensor]:
        each = [self._processed(one) for one in pictures]
        return {name: torch.stack([one[name] for one in each]) for name in each[0]}

    def _processed(self, pixels: Tensor) -> dict[str, Tensor]:
        """What the tower reads of one picture, by the library's own processor."""
        made = self.processor(images=pixels, return_tensors="pt", input_data_format="channels_first")
        return {name: cast(Tensor, value)[0] for name, value in made.items()}

    def _states(self, tower: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
        """Hidden states of the chosen layer, ``b n d``; a convolutional tower's grid in reading order."""
        states = tower(**batch, output_hidden_states=True).hidden_states
        self._check_layer(len(states))
        chosen: Tensor = states[self.options.layer]
        return rearrange(chosen, "b d h w -> b (h w) d") if chosen.ndim == 4 else chosen

    def _check_layer(self, states: int) -> None:
        if not -states <= self.options.layer < states:
            fix = f"give one from {-states} to {states - 1}"
            raise ConfigError("the tower has no such layer", where="layer", got=self.options.layer, fix=fix)

    def _layout(self, tensors: Mapping[str, Tensor]) -> tuple[int, int, int]:
        """Of one picture: tokens of the chosen layer, how many of them come before the patches, their width."""
        key = _shapes_of(tensors)
        if key not in self._known:
            if _MASK in tensors:  # a tower whose processor makes the patches has no other tokens
                self._check_layer(self.tower.config.num_hidden_layers + 1)
                self._known[key] = (tensors[_PIXELS].shape[0], 0, self.tower.config.hidden_size)
            else:
                kind = next(self._shapes[0].parameters()).dtype
                blank = {
                    name: torch.empty(
                        1, *value.shape, dtype=kind if value.is_floating_point() else value.dtype, device="meta"
                    )
                    for name, value in tensors.items()
                }
                try:
                    shape = self._states(self._shapes[0], blank).shape
                except ConfigError:
                    raise
                except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
                    raise ModelError(
                        "this tower does not read what its processor makes",
                        got=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
                        fix="use a tower that takes pixel_values alone",
                    ) from error
                self._known[key] = (shape[1], shape[1] - self._patches(tensors[_PIXELS], shape[1]), shape[2])
        return self._known[key]

    def _patches(self, pixels: Tensor, tokens: int) -> int:
        """How many of the tokens are patches of the picture ``c h w``."""
        size = getattr(self.tower.config, "patch_size", None)
        if not isinstance(size, int):
            return tokens
        grid = (pixels.shape[-2] // size) * (pixels.shape[-1] // size)
        return min(grid, tokens)  # fewer tokens than patches: the tower has merged them, and has no class token

    def _count(self, tensors: Mapping[str, Tensor]) -> int:
        """How many embeddings these tensors of one picture give."""
        tokens, before, _ = self._layout(tensors)
        if self.options.select == "cls":
            if not before:
                raise ConfigError(
                    "the tower has no class token",
                    where="select",
                    got=f"cls, of {self.tower.config.model_type}",
                    fix="select patch or all",
                )
            return 1
        if _MASK in tensors:
            return int(tensors[_MASK].sum())
        return tokens - before if self.options.select == "patch" else tokens

    def _selected(self, states: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """The embeddings among a picture's states ``n d``, ``m d``."""
        _, before, _ = self._layout(tensors)
        if _MASK in tensors:
            states = states[: int(tensors[_MASK].sum())]  # the processor pads at the end
        match self.options.select:
            case "cls":
                return states[:1]
            case "patch":
                return states[before:]
            case _:
                return states


def _shapes_of(tensors: Mapping[str, Tensor]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(value.shape)) for name, value in sorted(tensors.items()))


def _options(given: Mapping[str, object]) -> VisionOptions:
    try:
        return VisionOptions.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        fix = f"options of the vision encoder: {', '.join(VisionOptions.model_fields)}"
        raise ConfigError(first["msg"], where=where, got=repr(first["input"]), fix=fix) from error


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
