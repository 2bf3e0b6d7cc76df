"""A tiny untrained model that reads words and clips, for reward models that learn on a CPU in minutes.

    python -m modalign_video.judge FOLDER --size 32 --patch 4

writes a VideoMAE tower before a two-layer Llama as one composed model, about 0.2 M weights, ready for
`modalign train reward --model FOLDER` and `modalign train moderation --model FOLDER`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import torch

from modalign.config import EncoderConfig
from modalign.errors import ConfigError, ModalignError
from modalign.loading import load

_MEAN, _SPREAD = 0.0, 0.25  #: of pixels. Black is 0: what lies behind would else fill every embedding with a constant
_START = 0.1  #: standard deviation of the weights: at the usual 0.02 a model this narrow hardly begins to learn


@final
@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How large it is.

    size, patch: pixels of a side of the frames and of a patch.
    frames, tube: of a clip, and of an embedding.
    width: of the tower and of the language model.
    tower, layers: layers of each.
    words: `bytes` reads anything; `oracle` has one token for each word of the oracle world and knows no others.
    """

    size: int = 32
    patch: int = 4
    frames: int = 8
    tube: int = 2
    width: int = 64
    tower: int = 2
    layers: int = 2
    words: Literal["bytes", "oracle"] = "bytes"


def save_judge(folder: str | Path, sizes: Sizes | None = None, *, seed: int = 0) -> Path:
    """Write the model; returns the folder."""
    chosen = sizes or Sizes()
    if chosen.size % chosen.patch or chosen.frames % chosen.tube or chosen.width % 8:
        raise ConfigError(
            "patches divide frames, tubes divide clips, and a width is a multiple of 8",
            got=f"{chosen.size} by {chosen.patch}, {chosen.frames} by {chosen.tube}, {chosen.width}",
            fix="choose sizes that do",
        )
    with tempfile.TemporaryDirectory() as place:
        words, clips = Path(place) / "words", Path(place) / "clips"
        _save_words(words, chosen, seed)
        _save_clips(clips, chosen, seed)
        model = load(
            words,
            encoders={"video": EncoderConfig(path=str(clips), type="video")},
            media={"video": {"frames": chosen.frames}},
        )
        model.save(folder)
    return Path(folder)


def _save_words(folder: Path, sizes: Sizes, seed: int) -> None:
    if sizes.words == "oracle":
        from transformers import AutoConfig, AutoModelForCausalLM

        from modalign_text.student import save_student

        save_student(folder)  # for its words; the model is made anew, in these sizes
        config = AutoConfig.from_pretrained(folder)
        config.num_hidden_layers = sizes.layers
        config.hidden_size, config.intermediate_size = sizes.width, 2 * sizes.width
        config.head_dim = sizes.width // config.num_attention_heads
        with _seeded(seed):
            AutoModelForCausalLM.from_config(config).save_pretrained(folder)
        return
    from modalign_text.testing import tiny_model

    tiny_model(
        folder,
        seed=seed,
        hidden_size=sizes.width,
        intermediate_size=2 * sizes.width,
        head_dim=sizes.width // 4,
        num_key_value_heads=4,
        num_hidden_layers=sizes.layers,
        initializer_range=_START,
    )


def _save_clips(folder: Path, sizes: Sizes, seed: int) -> None:
    from transformers import VideoMAEConfig, VideoMAEModel, VideoMAEVideoProcessor

    config = VideoMAEConfig(
        image_size=sizes.size,
        patch_size=sizes.patch,
        num_frames=sizes.frames,
        tubelet_size=sizes.tube,
        hidden_size=sizes.width,
        intermediate_size=2 * sizes.width,
        num_hidden_layers=sizes.tower,
        num_attention_heads=4,
        use_mean_pooling=False,
        initializer_range=_START,
    )
    with _seeded(seed):
        tower = VideoMAEModel(config)
    tower.eval().save_pretrained(folder)
    square = {"height": sizes.size, "width": sizes.size}
    processor = VideoMAEVideoProcessor(
        size={"shortest_edge": sizes.size}, crop_size=square, image_mean=[_MEAN] * 3, image_std=[_SPREAD] * 3
    )
    processor.save_pretrained(folder)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Within it the CPU draws from this seed; the caller's random state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        yield


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m modalign_video.judge", description=about)
    parser.add_argument("folder", type=Path)
    usual = Sizes()
    for name, what in (
        ("size", "pixels of a side of the frames"),
        ("patch", "pixels of a side of a patch"),
        ("frames", "of a clip"),
        ("tube", "frames of an embedding"),
        ("width", "of the states"),
        ("tower", "layers of the tower"),
        ("layers", "of the language model"),
    ):
        parser.add_argument(f"--{name}", type=int, default=getattr(usual, name), help=what)
    parser.add_argument("--words", choices=("bytes", "oracle"), default=usual.words, help="what its tokens are")
    parser.add_argument("--seed", type=int, default=0)
    said = vars(parser.parse_args(arguments))
    folder, seed = said.pop("folder"), said.pop("seed")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError("nothing is overwritten", where=str(folder), got="files", fix="name a new folder")
        print(save_judge(folder, Sizes(**said), seed=seed))
    except ModalignError as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
