"""Rows of small files that would fill memory: refused with no more than the settings allow, in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from modalign_audio import samples as sounds
from modalign_audio.testing import tiny_audio
from modalign_image.samples import broken, encode, photo
from modalign_image.testing import tiny_vision
from modalign_text.testing import tiny_model
from modalign_video import samples as clips
from modalign_video.testing import numbered_clip, tiny_video

CAP = 16 << 20  #: bytes of what is decoded

BOMBS = """
import resource, sys
import modalign
from modalign.data import read
from modalign.data.prepared import prepare
from modalign.objectives import DPO

place, cap = sys.argv[1], int(sys.argv[2])
types = {"image": "vision", "audio": "audio", "video": "video"}
encoders = {name: {"path": f"{place}/{name}", "type": kind} for name, kind in types.items()}
media = {
    "image": {"max_pixels": cap // 3},
    "audio": {"max_decoded_bytes": cap},
    "video": {"max_decoded_bytes": cap, "frames": 4, "backend": "pyav"},
}
preparer = modalign.load(f"{place}/words", encoders=encoders, media=media).assembly.preparer

def bad(name):
    data = read(f"{place}/set/{name}", on_bad_row="skip", max_bad_fraction=1.0)
    return len(prepare(data, preparer, DPO.needs).bad_rows)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

warm = bad("good.jsonl")  # what the libraries themselves take
before = peak()
print(warm, bad("bombs.jsonl"), peak() - before)
"""


def row(kind: str, name: str) -> str:
    shown = [{"type": kind, kind: name}, {"type": "text", "text": "what is it?"}]
    answers = {
        side: [{"role": "assistant", "content": words}] for side, words in (("chosen", "a dog"), ("rejected", "no"))
    }
    return json.dumps({"prompt": [{"role": "user", "content": shown}], **answers}) + "\n"


def test_bombs_take_no_more_memory_than_they_may(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for folder in (root, tmp_path / "words"):
        folder.mkdir()
    tiny_model(tmp_path / "words")
    tiny_vision(tmp_path / "image")
    tiny_audio(tmp_path / "audio", "wav2vec2")
    tiny_video(tmp_path / "video")
    good = {
        "image": {f"good.{kind}": encode(photo(), kind) for kind in ("PNG", "GIF", "TIFF", "WEBP", "JPEG", "BMP")},
        "audio": {f"good.{kind}": sounds.encode(kind) for kind in ("WAV", "FLAC", "MP3")},
        "video": {"good.mp4": numbered_clip(12), "good.gif": numbered_clip(4, container="gif", codec="gif")},
    }
    flat, hour = Image.new("L", (7_000, 7_000)), np.zeros((3600 * 8000, 1), np.int16)
    bombs = {
        # 49 million pixels take 147 MB in colour, an hour at 8 kHz 115 MB, 4 frames of 3072 by 768 28 MB
        "image": {
            "flat.png": encode(flat, "PNG"),
            "flat.gif": encode(flat, "GIF"),
            "flat.tiff": encode(flat, "TIFF", compression="tiff_deflate"),
        },
        "audio": {"hour.flac": sounds.encode("FLAC", "PCM_16", hour, 8000)},
        "video": {"large.mp4": numbered_clip(8, times=48)},
    }
    for kind, files in (("image", broken()), ("audio", sounds.broken()), ("video", clips.broken())):
        forged = [name for name in files if re.search("bomb|huge|billion|2 GB|65535|hours", name)]
        assert forged
        bombs[kind] |= {name: files[name][0] for name in forged}
    for name, every in (("good", good), ("bombs", bombs)):
        for files in every.values():
            for file, data in files.items():
                (root / file).write_bytes(data)
                assert len(data) < 4 << 20
        lines = [row(kind, file) for kind, files in every.items() for file in files]
        (root / f"{name}.jsonl").write_text("".join([row("image", "good.PNG"), *lines]))
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, str(tmp_path), str(CAP)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    warm, refused, rise = map(int, done.stdout.split())
    assert (warm, refused) == (0, sum(map(len, bombs.values())))
    assert refused >= 15
    assert rise <= CAP + (64 << 20)
