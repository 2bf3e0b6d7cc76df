"""Public test doubles: clips whose frames show their number, and tiny random video towers, made offline in a moment.

t frames, c channels, h w pixels.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import torch
from einops import rearrange, reduce, repeat
from torch import Tensor
from transformers import AutoConfig, AutoModel, VideoMAEVideoProcessor

from modalign.testing.encoder_laws import EncoderProbe

if TYPE_CHECKING:
    from av.video.stream import VideoStream

FRAMES, SIZE, PATCH, WIDTH = 4, 32, 8, 32  #: frames; pixels of a side, of a patch's side; width of the states

_ROWS, _COLUMNS, _CELL = 2, 8, 8  #: a number's bits, as black and white squares of so many pixels
HEIGHT, BREADTH = _ROWS * _CELL, _COLUMNS * _CELL  #: pixels of a numbered frame

#: config of each family of whole clips; `frames-over-clip` is a CLIP tower for the encoder of frames
FAMILIES: Mapping[str, Mapping[str, object]] = MappingProxyType(
    {
        "videomae": {
            "num_frames": FRAMES,
            "tubelet_size": 2,
            "image_size": SIZE,
            "patch_size": PATCH,
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "use_mean_pooling": False,
        },
        "frames-over-clip": {},
    }
)


def numbered_frames(numbers: Sequence[int]) -> Tensor:
    """Frames that show these numbers, 0 to 65535, as black and white squares: uint8 ``t 3 16 64``.

    >>> numbers_in(numbered_frames([0, 7, 65535]))
    [0, 7, 65535]
    """
    bits = torch.tensor([[number >> bit & 1 for bit in range(_ROWS * _COLUMNS)] for number in numbers])
    grid = rearrange(bits, "t (i j) -> t i j", i=_ROWS)
    return repeat(grid * 255, "t i j -> t c (i down) (j right)", c=3, down=_CELL, right=_CELL).byte()


def numbers_in(frames: Tensor) -> list[int]:
    """The numbers that frames ``t 3 h w`` show, whatever codec or scaling by whole factors they went through."""
    cells = reduce(frames.float(), "t c (i down) (j right) -> t (i j)", "mean", i=_ROWS, j=_COLUMNS)
    return [sum(int(cell > 127) << bit for bit, cell in enumerate(row)) for row in cells]


def numbered_clip(
    count: int = 30,
    *,
    rate: int = 10,
    container: str = "mp4",
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    ticks: Sequence[int] | None = None,
    turned: int = 0,
    mirrored: bool = False,
    sound: Sequence[float] | None = None,
    times: int = 1,
) -> bytes:
    """An encoded clip of frames 0, 1, 2 ... that show their number.

    count, rate: of the frames.
    container, codec, options: FFmpeg's names, and the codec's settings.
    ticks: when each frame is said to be shown, in milliseconds, whatever sense it makes; by default evenly.
    turned, mirrored: how the container says that the clip was filmed, in degrees counterclockwise.
    sound: samples at 8000 Hz, -1 to 1, of a track beside it.
    times: whole factor that frames are enlarged by.
    """
    import av

    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        settings = dict(options or ({"g": "8"} if codec == "libx264" else {}))
        stream = cast("VideoStream", out.add_stream(codec, rate=rate, options=settings))
        stream.width, stream.height = BREADTH * times, HEIGHT * times
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        if turned or mirrored:
            stream.set_display_rotation(turned, hflip=mirrored)
        track = None if sound is None else out.add_stream("aac", rate=8000, layout="mono")
        packets = []
        for frame in rearrange(numbered_frames(range(count)), "t c h w -> t h w c"):
            large = repeat(frame, "h w c -> (h down) (w right) c", down=times, right=times)
            packets += stream.encode(av.VideoFrame.from_ndarray(large.contiguous().numpy(), format="rgb24"))
        packets += stream.encode(None)
        for number, packet in enumerate(packets):
            if ticks is not None:
                packet.time_base = Fraction(1, 1000)
                packet.pts, packet.dts, packet.duration = ticks[number], min([number, *ticks]), 0
            out.mux(packet)
        if track is not None and sound is not None:
            samples = torch.tensor(sound, dtype=torch.float32)
            for number, block in enumerate(samples.split(1024)):
                heard = av.AudioFrame.from_ndarray(block[None].numpy(), format="fltp", layout="mono")
                heard.sample_rate, heard.pts = 8000, 1024 * number
                out.mux(track.encode(heard))
            out.mux(track.encode(None))
    return file.getvalue()


def clips(folder: Path) -> EncoderProbe:
    """A tower of whole clips to try its encoder on."""
    return EncoderProbe(folder=tiny_video(folder, "videomae"), media={"frames": FRAMES})


def frames(folder: Path) -> EncoderProbe:
    """A tower of pictures to try the encoder of frames on, with two ways of pooling."""
    made = tiny_video(folder, "frames-over-clip")
    return EncoderProbe(folder=made, options=({}, {"pool": "mean", "spatial": 2, "layer": -1}), media={"frames": 3})


def tiny_video(folder: str | Path, family: str = "videomae", *, seed: int = 0, **settings: object) -> Path:
    """Save a random tower of one family and its processor; returns the folder.

    family: a key of `FAMILIES`: `videomae` for the encoder `video`, `frames-over-clip` for the encoder `frames`.
    seed: of its weights; the caller's random state is untouched.
    settings: of the family's config, beside or instead of the tiny ones.
    """
    folder = Path(folder)
    if family == "frames-over-clip":
        from modalign_image.testing import tiny_vision

        return tiny_vision(folder, "clip", seed=seed, **settings)
    config = AutoConfig.for_model(family, **(dict(FAMILIES[family]) | settings))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        model = AutoModel.from_config(config, dtype=torch.float32)
    model.eval().save_pretrained(folder)
    square = {"height": SIZE, "width": SIZE}
    VideoMAEVideoProcessor(size={"shortest_edge": SIZE}, crop_size=square).save_pretrained(folder)
    return folder
