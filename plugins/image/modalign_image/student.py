"""A tiny untrained vision tower that learns to see the oracle world's pictures within a minute."""

from __future__ import annotations

from pathlib import Path

import torch

from modalign.config import ConnectorConfig, EncoderConfig
from modalign_image.world import SIZE

W1, W2, D1, D2, STEM = 32, 64, 1, 1, 4
LS, STD, STEMSTD = 1.0, 0.1, 0.1


def save_encoder(folder: str | Path, *, seed: int = 0) -> EncoderConfig:
    from transformers import BitImageProcessor, ConvNextConfig, ConvNextModel

    folder = Path(folder)
    config = ConvNextConfig(
        patch_size=STEM, num_stages=2, hidden_sizes=[W1, W2], depths=[D1, D2],
        image_size=SIZE, layer_scale_init_value=LS, initializer_range=STD,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        tower = ConvNextModel(config)
    tower.eval().save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    BitImageProcessor(size={"shortest_edge": SIZE}, crop_size=square).save_pretrained(folder)
    return EncoderConfig(
        path=str(folder), type="vision", connector=ConnectorConfig(type="linear"), options={"layer": -1}
    )
