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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final, final

from torch import Tensor

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

Row = dict[str, object]


@final
@dataclass(frozen=True, kw_only=True)
class Cut:
    """How clips are cut into pieces.

    frames, size: of a piece; its frames are square.
    fps: frames per second that are taken of the clip.
    edge: pixels of the clip's shorter edge, to which it is scaled first: detail then is of about the same size.
    """

    frames: int = 8
    size: int = 48
    fps: float = 12.5
    edge: int = 144


@final
@dataclass(frozen=True, kw_only=True)
class Piece:
    """A piece of a clip.

    name: of its files.
    frames: ``t 3 h w`` of uint8.
    """

    name: str
    frames: Tensor


def pieces(clip: Path, count: int, cut: Cut, *, seed: int = 0, name: str | None = None) -> Iterator[Piece]:
    """Pieces of a clip, at places and times that the seed draws.

    name: what the places are drawn by and files are named by; the clip's own by default.
    """
    name = clip.stem if name is None else name
    try:
        whole = decode(
            Part(modality="video", value=File(root=clip.parent.resolve(), name=clip.name)),
            VideoSettings(fps=cut.fps, shortest_edge=cut.edge),
        ).tensor
    except DataError as error:
        raise error.at(file=str(clip)) from error
    length, _, height, width = whole.shape
    if length < cut.frames or min(height, width) < cut.size:
        raise ConfigError(
            f"a clip with at least {cut.frames} frames at {cut.fps:g} per second, of {cut.size} pixels",
            where=str(clip),
            got=f"{length} frames of {height} by {width}",
            fix="leave it out, or cut smaller pieces",
        )
    for number in range(count):
        random = Random(f"pieces/{seed}/{name}/{number}")
        first = random.randint(0, length - cut.frames)
        down, right = random.randint(0, height - cut.size), random.randint(0, width - cut.size)
        frames = whole[first : first + cut.frames, :, down : down + cut.size, right : right + cut.size]
        yield Piece(name=f"{name}-{number:04}", frames=frames)


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
                    rows.append(_pair(folder, piece, Piece(name=f"{piece.name}-{kind}", frames=worse), kind, cut))
    return _finish(folder, split, rows)


def write_versions(folder: Path, better: Path, worse: Path, count: int, *, cut: Cut, seed: int = 0) -> Path:
    """Write pairs of the same pieces of two files of one clip; returns `versions.jsonl`."""
    both = (pieces(clip, count, cut, seed=seed, name=better.stem) for clip in (better, worse))
    rows = [
        _pair(folder, first, Piece(name=f"{second.name}-version", frames=second.frames), "version", cut)
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


def _pair(folder: Path, piece: Piece, worse: Piece, kind: str, cut: Cut) -> Row:
    said = {name: _message(folder, one, cut) for name, one in (("chosen", piece), ("rejected", worse))}
    prompt = [{"role": "user", "content": PROMPT}]
    return {"id": worse.name, "prompt": prompt, **said, "metadata": {"kind": kind}}


def _message(folder: Path, piece: Piece, cut: Cut) -> list[Row]:
    place = folder / "pieces" / piece.name
    place.parent.mkdir(parents=True, exist_ok=True)
    file = place.with_name(f"{piece.name}.mp4")
    if not file.exists():  # of one piece there are as many pairs as kinds
        VideoModality().save(Part(modality="video", value=piece.frames, facts={"fps": cut.fps}), place)
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
