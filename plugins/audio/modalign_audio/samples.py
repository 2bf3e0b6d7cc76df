"""Public test doubles: encoded sounds, and what breaks them."""

from __future__ import annotations

import io
import struct
from random import Random
from typing import Final

import numpy as np

#: half a second of two channels at 16 kHz
NOISE: Final = (0.1 * np.random.default_rng(0).standard_normal((8000, 2))).astype(np.float32)


def encode(kind: str, subtype: str | None = None, samples: np.ndarray = NOISE, rate: int = 16000) -> bytes:
    """A sound in a file format, by libsndfile's names."""
    import soundfile

    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def patch(data: bytes, at: int, value: bytes) -> bytes:
    """The content with other bytes from a place on."""
    return data[:at] + value + data[at + len(value) :]


def broken() -> dict[str, tuple[bytes, str]]:
    """Files that are no sounds, by what is wrong with each, and words of the error that says so."""
    wav, flac, vorbis = encode("WAV", "PCM_16"), encode("FLAC", "PCM_16"), encode("OGG", "VORBIS")
    opus, mp3, floats = encode("OGG", "OPUS"), encode("MP3"), encode("WAV", "FLOAT")
    first = floats.index(b"data") + 8  # sample

    def half(data: bytes) -> bytes:
        return data[: len(data) // 2]

    return {
        "no bytes": (b"", "an empty file is no sound"),
        "words": (b"This is no sound. " * 100, "no sound of a kind"),
        "a header only": (wav[:20], "Malformed"),
        "no samples": (encode("WAV", "PCM_16", NOISE[:0]), "without samples"),
        "no channels": (patch(wav, 22, struct.pack("<H", 0)), "Channel count is zero"),
        "65535 channels": (patch(wav, 22, struct.pack("<H", 65_535)), "Too many channels"),
        "a rate of 0": (patch(wav, 24, struct.pack("<I", 0)), "cannot be decoded"),
        "a rate of 4e9": (patch(wav, 24, struct.pack("<I", 4_000_000_000)), "cannot be decoded"),
        "a header of 2 GB": (patch(wav, 40, struct.pack("<I", 0x7FFFFFF0)), "its header is wrong"),
        "68 billion samples": (
            patch(flac, 21, bytes([flac[21] | 15, *b"\xff" * 4])),
            "longer than the settings allow",
        ),
        "NaN": (patch(floats, first, struct.pack("<f", float("nan"))), "finite numbers"),
        "infinity": (patch(floats, first, struct.pack("<f", float("inf"))), "finite numbers"),
        "a wav cut off": (half(wav), "cut off"),
        "a flac cut off": (half(flac), "cannot be decoded"),
        "vorbis cut off": (half(vorbis), "last page is not whole"),
        "opus cut off": (half(opus), "last page is not whole"),
        "an mp3 cut off": (half(mp3), "ends before its header says"),
        "noise for frames": (flac[:200] + Random(0).randbytes(5000), "cannot be decoded"),
        "a kind that is not allowed": (encode("AU", "PCM_16"), "no sound of a kind that is decoded"),
    }
