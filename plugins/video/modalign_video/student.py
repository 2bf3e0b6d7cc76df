"""A tiny untrained tower of whole clips that learns to see the oracle world's within a minute."""

from __future__ import annotations

from pathlib import Path

import torch

from modalign.config import EncoderConfig
from modalign_video.world import FRAMES, SIZE

WIDTH, LAYERS = 64, 2  #: of a state; layers

_PATCHES = 0.05  #: standard deviation at the start
_GREY = 0.5  #: share of the first filters that look at brightness alone, as most of those of trained towers do


def save_encoder(folder: str | Path, *, seed: int = 0) -> EncoderConfig:
    """Write the tower and its processor as transformers would; returns what `modalign.load(encoders=...)` takes.

    A small VideoMAE tower whose one tube is the whole clip. It knows nothing, so it has to be trained with the model:
    `freeze=()`.

    seed: of its weights; the caller's random state is untouched.
    """
    from transformers import VideoMAEConfig, VideoMAEModel, VideoMAEVideoProcessor

    folder = Path(folder)
    config = VideoMAEConfig(
        image_size=SIZE,
        patch_size=SIZE,
        num_frames=FRAMES,
        tubelet_size=FRAMES,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        use_mean_pooling=False,
        initializer_range=_PATCHES,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        tower = VideoMAEModel(config)
        _begin(tower)
    tower.eval().save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    VideoMAEVideoProcessor(size={"shortest_edge": SIZE}, crop_size=square).save_pretrained(folder)
    return EncoderConfig(path=str(folder), type="video")


@torch.no_grad()
def _begin(tower: torch.nn.Module) -> None:
    """Let some of the first filters see motion whatever the colour of what moves."""
    weights = dict(tower.named_parameters())
    (tubes,) = (weights[name] for name in weights if name.endswith("patch_embeddings.projection.weight"))  # d c t h w
    grey = int(_GREY * len(tubes))
    tubes[:grey] = tubes[:grey].mean(1, keepdim=True) * tubes.shape[1] ** 0.5
