"""Preference pairs from clips of anyone's: short pieces as they are are preferred to the same pieces made worse.

    python -m modalign_video.distortion_pairs FOLDER --clips clips/ --held_out other.mp4 --held_out_kind coarse

writes `train.jsonl` of the clips, `test.jsonl` of the held-out clips with the same kinds of distortion, `unseen.jsonl`
of the held-out clips with the held-out kind, and the pieces as MP4 in `pieces/`. No clip is in two of them. With
`--versions BETTER WORSE`, two files of one clip, `versions.jsonl` has pieces of the same places and times of both.

t frames, h w pixels.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Final, final

from torch import Tensor
from torch.nn.functional import avg_pool2d

from modalign.content import Part
from modalign.errors import ConfigError, DataError, ModalignError
from modalign.files import File
from modalign.training.storage.durable import replace_file
from modalign_video.config import VideoSettings
from modalign_video.decoding import decode
from modalign_video.distortions import DISTORTIONS, distort, visible
from modalign_video.modality import VideoModality

PROMPT: Final = "Show me this clip as it was filmed."
SUFFIXES: Final = (".mp4", ".mov", ".mkv", ".webm", ".avi")

_LOG = logging.getLogger("modalign")
_TRIES: Final = 20  #: places that are looked at for each piece

Row = dict[str, object]


@final
@dataclass(frozen=True, kw_only=True)
class Cut:
    """How clips are cut into pieces. What is drawn from makes few clips many: near and far, slow and fast.

    frames, size: of a piece; its frames are square.
    fps: frames per second that are taken of the clip: one of these.
    edges: pixels of the clip's shorter edge, to which it is scaled first: one of these.
    moving: least `motion` of a piece: one that hardly moves says nothing about lost frames.
    """

    frames: int = 8
    size: int = 48
    fps: tuple[float, ...] = (6.0, 8.0, 12.5)
    edges: tuple[int, ...] = (96, 108, 144, 192, 256)
    moving: float = 0.5


@final
@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of a clip.

    name: of its files.
    frames: ``t 3 h w`` of uint8.
    fps: frames per second.
    """

    name: str
    frames: Tensor
    fps: float


def pieces(clip: Path, count: int, cut: Cut, *, seed: int = 0, name: str | None = None) -> Iterator[Piece]:
    """Pieces of a clip, at places, times, scales and speeds that the seed draws: at most ``count`` that move enough.

    name: what the places are drawn by and files are named by; the clip's own by default.
    """
    name = clip.stem if name is None else name
    takes = _takes(clip, cut)
    made = 0
    for number in range(_TRIES * count):
        random = Random(f"pieces/{seed}/{name}/{number}")
        fps, whole = random.choice(takes)
        length, _, height, width = whole.shape
        first = random.randint(0, length - cut.frames)
        down, right = random.randint(0, height - cut.size), random.randint(0, width - cut.size)
        frames = whole[first : first + cut.frames, :, down : down + cut.size, right : right + cut.size]
        if motion(frames) >= cut.moving:
            made += 1
            yield Piece(name=f"{name}-{number:04}", frames=frames, fps=fps)
        if made == count:
            return
    _LOG.warning("%s gives %d pieces of %d: elsewhere too little moves in it", clip.name, made, count)


def motion(frames: Tensor) -> float:
    """The share of places of 8 by 8 pixels, of frame after frame, whose mean brightness changes by a level of 255."""
    change = (frames[1:].float() - frames[:-1].float()).mean(1, keepdim=True)
    return float((avg_pool2d(change, 8).abs() >= 1).float().mean())


def _takes(clip: Path, cut: Cut) -> list[tuple[float, Tensor]]:
    """The clip at each speed and scale at which a piece fits into it, with its frames per second."""
    found: list[tuple[float, Tensor]] = []
    largest: Tensor | None = None
    for fps, edge in product(cut.fps, cut.edges):
        try:
            part = Part(modality="video", value=File(root=clip.parent.resolve(), name=clip.name))
            whole = decode(part, VideoSettings(fps=fps, shortest_edge=edge)).tensor
        except DataError as error:
            raise error.at(file=str(clip)) from error
        if len(whole) >= cut.frames and min(whole.shape[-2:]) >= cut.size:
            found.append((fps, whole))
        largest = whole if largest is None or whole.numel() > largest.numel() else largest
    if not found and largest is not None:
        raise ConfigError(
            f"a clip with at least {cut.frames} frames at one of {', '.join(f'{fps:g}' for fps in cut.fps)} per second,"
            f" of {cut.size} pixels",
            where=str(clip),
            got=f"at most {len(largest)} frames of {largest.shape[-2]} by {largest.shape[-1]}",
            fix="leave it out, or cut smaller pieces",
        )
    return found


def write(
    folder: Path, split: str, clips: Sequence[Path], kinds: Sequence[str], count: int, *, cut: Cut, seed: int = 0
) -> Path:
    """Write pairs of pieces and the same pieces distorted; returns `SPLIT.jsonl`.

    A piece that a distortion leaves as it was (freezing what stands still) makes no pair.

    count: pieces of each clip.
    """
    rows: list[Row] = []
    for clip in clips:
        for piece in pieces(clip, count, cut, seed=seed):
            for kind in kinds:
                worse = distort(kind, piece.frames, seed=Random(f"{seed}/{piece.name}").getrandbits(31))
                if visible(piece.frames, worse):
                    bad = Piece(name=f"{piece.name}-{kind}", frames=worse, fps=piece.fps)
                    rows.append(_pair(folder, piece, bad, kind))
    return _finish(folder, split, rows)


def write_versions(folder: Path, better: Path, worse: Path, count: int, *, cut: Cut, seed: int = 0) -> Path:
    """Write pairs of the same pieces of two files of one clip, moving or not; returns `versions.jsonl`."""
    cut = replace(cut, moving=0.0)  # measured of two files, it would choose two sets of places
    both = (pieces(clip, count, cut, seed=seed, name=better.stem) for clip in (better, worse))
    rows = [
        _pair(folder, first, Piece(name=f"{second.name}-version", frames=second.frames, fps=second.fps), "version")
        for first, second in zip(*both, strict=True)
        if first.frames.shape == second.frames.shape and visible(first.frames, second.frames)
    ]
    return _finish(folder, "versions", rows)


def found(places: Sequence[Path]) -> list[Path]:
    """The clips that files and folders name, by name."""
    clips: list[Path] = []
    for place in places:
        inside = sorted(one for one in place.iterdir() if one.suffix in SUFFIXES) if place.is_dir() else [place]
        if not inside or not all(one.is_file() for one in inside):
            raise ConfigError("no clip there", where=str(place), got="nothing", fix=f"files of {', '.join(SUFFIXES)}")
        clips += inside
    stems = [one.stem for one in clips]
    if twice := sorted({stem for stem in stems if stems.count(stem) > 1}):
        raise ConfigError("clips need names of their own", got=f"{twice[0]} twice", fix="rename one")
    return clips


def _pair(folder: Path, piece: Piece, worse: Piece, kind: str) -> Row:
    said = {name: _message(folder, one) for name, one in (("chosen", piece), ("rejected", worse))}
    prompt = [{"role": "user", "content": PROMPT}]
    return {"id": worse.name, "prompt": prompt, **said, "metadata": {"kind": kind}}


def _message(folder: Path, piece: Piece) -> list[Row]:
    place = folder / "pieces" / piece.name
    place.parent.mkdir(parents=True, exist_ok=True)
    file = place.with_name(f"{piece.name}.mp4")
    if not file.exists():  # of one piece there are as many pairs as kinds
        VideoModality().save(Part(modality="video", value=piece.frames, facts={"fps": piece.fps}), place)
    block: Row = {"type": "video", "video": file.relative_to(folder).as_posix()}
    return [{"role": "assistant", "content": [block]}]


def _finish(folder: Path, split: str, rows: Sequence[Row]) -> Path:
    file = folder / f"{split}.jsonl"
    if not rows:
        raise ConfigError("no piece is changed by its distortion", where=split, fix="take clips in which things move")
    replace_file(file, "".join(f"{json.dumps(row)}\n" for row in rows).encode())
    return file


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m modalign_video.distortion_pairs", description=about)
    parser.add_argument("folder", type=Path, help="new")
    parser.add_argument("--clips", type=Path, nargs="+", required=True, help="to train on: files, or folders of them")
    parser.add_argument("--held_out", type=Path, nargs="+", required=True, help="whole clips, to test on")
    parser.add_argument("--held_out_kind", choices=tuple(DISTORTIONS), default="coarse", help="seen in no training")
    parser.add_argument("--versions", type=Path, nargs=2, metavar=("BETTER", "WORSE"), help="two files of one clip")
    parser.add_argument("--pieces", type=int, default=80, help="of each clip to train on")
    parser.add_argument("--test_pieces", type=int, default=40, help="of each held-out clip")
    parser.add_argument("--size", type=int, default=Cut.size, help="pixels of a piece's side")
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args(arguments)
    cut = Cut(size=said.size)
    seen = [kind for kind in DISTORTIONS if kind != said.held_out_kind]
    try:
        if said.folder.exists() and any(said.folder.iterdir()):
            raise ConfigError("nothing is overwritten", where=str(said.folder), got="files", fix="name a new folder")
        clips, held_out = found(said.clips), found(said.held_out)
        found([*said.clips, *said.held_out])  # no clip is in both
        print(write(said.folder, "train", clips, seen, said.pieces, cut=cut, seed=said.seed), flush=True)
        for split, kinds in (("test", seen), ("unseen", [said.held_out_kind])):
            print(write(said.folder, split, held_out, kinds, said.test_pieces, cut=cut, seed=said.seed), flush=True)
        if said.versions:
            pristine, distorted = said.versions
            print(
                write_versions(said.folder, pristine, distorted, said.test_pieces, cut=cut, seed=said.seed), flush=True
            )
    except ModalignError as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
