"""Public test doubles: tiny random vision towers with their processors, made offline in a moment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    BaseImageProcessor,
    BitImageProcessor,
    CLIPImageProcessor,
    PreTrainedModel,
    Siglip2ImageProcessor,
    SiglipImageProcessor,
)

from modalign.testing.encoder_laws import EncoderProbe

SIZE, PATCH, WIDTH = 32, 8, 32  #: pixels of a side, of a patch's side; width of the states

_VISION: Mapping[str, object] = MappingProxyType(
    {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "image_size": SIZE,
        "patch_size": PATCH,
    }
)
_TEXT: Mapping[str, object] = MappingProxyType(
    {
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "vocab_size": 64,
        "max_position_embeddings": 16,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
)

_NAFLEX = {key: value for key, value in _VISION.items() if key != "image_size"} | {"num_patches": 16}

#: config of each family; the first three are checkpoints of two towers, as they are published
FAMILIES: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "clip": {"vision_config": dict(_VISION), "text_config": dict(_TEXT), "projection_dim": 16},
        "siglip": {"vision_config": dict(_VISION), "text_config": dict(_TEXT)},
        "siglip2": {"vision_config": _NAFLEX, "text_config": dict(_TEXT)},
        "dinov2": {**_VISION, "mlp_ratio": 2},
    }
)


def tiny_vision(folder: str | Path, family: str = "clip", *, seed: int = 0, **settings: object) -> Path:
    """Save a random vision checkpoint of one family and its processor; returns the folder.

    family: a key of `FAMILIES`.
    seed: of its weights; the caller's random state is untouched.
    settings: of the family's config, beside or instead of the tiny ones.
    """
    folder = Path(folder)
    config = AutoConfig.for_model(family, **(dict(FAMILIES[family]) | settings))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        model: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32)
    model.eval().save_pretrained(folder)
    _processor(family).save_pretrained(folder)
    return folder


def probe(folder: Path) -> EncoderProbe:
    """A tower to try the encoder on, with two choices of its states."""
    return EncoderProbe(folder=tiny_vision(folder), options=({}, {"layer": -1, "select": "all"}))


def _processor(family: str) -> BaseImageProcessor:
    square = {"height": SIZE, "width": SIZE}
    match family:
        case "clip":
            return CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=square)
        case "siglip":
            return SiglipImageProcessor(size=square)
        case "siglip2":
            return Siglip2ImageProcessor(patch_size=PATCH, max_num_patches=16)
        case _:
            return BitImageProcessor(size={"shortest_edge": SIZE}, crop_size=square)
