"""A tiny untrained vision tower that learns to see the oracle world's pictures within a minute."""

from __future__ import annotations

from pathlib import Path

import torch

from modalign.config import EncoderConfig
from modalign_image.world import SIZE

WIDTH, PATCH, LAYERS = 64, 16, 2  #: of a state; pixels of a patch's side: four patches; layers

_PATCHES, _PLACES = 0.3, 8.0  #: standard deviations at the start
_GREY = 0.5  #: share of the first filters that look at brightness alone, as most of those of trained towers do


def save_encoder(folder: str | Path, *, seed: int = 0) -> EncoderConfig:
    """Write the tower and its processor as transformers would; returns what `modalign.load(encoders=...)` takes.

    A small CLIP tower. It knows nothing, so it has to be trained with the model: `freeze=()`.

    seed: of its weights; the caller's random state is untouched.
    """
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    folder = Path(folder)
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        image_size=SIZE,
        patch_size=PATCH,
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        tower = CLIPVisionModel(config)
        _begin(tower)
    tower.eval().save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=square).save_pretrained(folder)
    return EncoderConfig(path=str(folder), type="vision", options={"layer": -1})


@torch.no_grad()
def _begin(tower: torch.nn.Module) -> None:
    """Start where so small a tower learns: at the library's 0.02 it sees neither shapes nor, for long, places."""
    weights = dict(tower.named_parameters())
    (patches,) = (weights[name] for name in weights if name.endswith("patch_embedding.weight"))  # d c h w
    (places,) = (weights[name] for name in weights if name.endswith("position_embedding.weight"))
    torch.nn.init.normal_(patches, std=_PATCHES)
    grey = int(_GREY * len(patches))
    patches[:grey] = patches[:grey].mean(1, keepdim=True) * patches.shape[1] ** 0.5
    # as large as what the filters give (0.3 times the root of 768): smaller, they are lost in the norm behind
    torch.nn.init.normal_(places, std=_PLACES)
