"""Broken and hostile files: each a clear error, none of them costly."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from random import Random

import numpy as np
import pytest
import soundfile

from modalign.errors import DataError
from modalign.roles import Content
from modalign_audio.config import AudioSettings
from modalign_audio.modality import AudioModality
from modalign_audio.samples import NOISE, encode, patch

MODALITY = AudioModality()
MIB = 1 << 20


def decode(block: dict[str, object], settings: AudioSettings, root: Path | None = None) -> Content:
    return MODALITY.decode(MODALITY.read(block, root=root), settings)


WAV, FLAC, VORBIS, OPUS, MP3, AIFF = (
    encode("WAV", "PCM_16"),
    encode("FLAC", "PCM_16"),
    encode("OGG", "VORBIS"),
    encode("OGG", "OPUS"),
    encode("MP3"),
    encode("AIFF", "PCM_16"),
)
FLOAT = encode("WAV", "FLOAT")
BROKEN = FLOAT.index(b"data") + 8  # its first sample

#: What is wrong, the file, facts of the row, settings, and the field that is named.
HOSTILE: dict[str, tuple[bytes, dict[str, object], dict[str, object], str]] = {
    "no bytes": (b"", {}, {}, "audio"),
    "text": (b"This is no sound. " * 100, {}, {}, "audio"),
    "text that begins as a wav": (b"RIFF\x00\x10\x00\x00WAVE" + b"text " * 100, {}, {}, "audio"),
    "zeros": (bytes(5000), {}, {}, "audio"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(500), {}, {}, "audio"),
    "a zip": (b"PK\x03\x04" + bytes(500), {}, {}, "audio"),
    "a kind that is not allowed: AU": (encode("AU", "PCM_16"), {}, {}, "audio"),
    "a kind that is not allowed: CAF": (encode("CAF", "PCM_16"), {}, {}, "audio"),
    "a kind that the settings leave out": (WAV, {}, {"formats": ("FLAC",)}, "audio"),
    "wav: its header only": (WAV[:20], {}, {}, "audio"),
    "wav: no samples": (encode("WAV", "PCM_16", NOISE[:0]), {}, {}, "audio"),
    "wav: cut off": (WAV[: len(WAV) * 2 // 3], {}, {}, "audio"),
    "wav: no channels": (patch(WAV, 22, struct.pack("<H", 0)), {}, {}, "audio"),
    "wav: 65535 channels": (patch(WAV, 22, struct.pack("<H", 65535)), {}, {}, "audio"),
    "wav: 500 channels": (patch(WAV, 22, struct.pack("<H", 500)), {}, {}, "audio"),
    "wav: more channels than the settings allow": (encode("WAV", None, np.zeros((80, 12))), {}, {}, "audio"),
    "wav: a rate of 0": (patch(WAV, 24, struct.pack("<I", 0)), {}, {}, "audio"),
    "wav: a rate of 4e9": (patch(WAV, 24, struct.pack("<I", 4_000_000_000)), {}, {}, "audio"),
    "wav: a rate of 2e9": (patch(WAV, 24, struct.pack("<I", 2_000_000_000)), {}, {}, "audio"),
    "wav: a rate of 1": (patch(WAV, 24, struct.pack("<I", 1)), {}, {}, "audio"),
    "wav: 2 GB of data": (patch(WAV, 40, struct.pack("<I", 0x7FFFFFF0)), {}, {}, "audio"),
    "wav: NaN": (patch(FLOAT, BROKEN, struct.pack("<f", float("nan"))), {}, {}, "audio"),
    "wav: infinity": (patch(FLOAT, BROKEN, struct.pack("<f", float("inf"))), {}, {}, "audio"),
    "wav: too long": (WAV, {}, {"max_seconds": 0.4}, "audio"),
    "wav: too many bytes": (WAV, {}, {"max_bytes": 30000}, "audio"),
    "wav: too much memory": (WAV, {}, {"max_decoded_bytes": 30000}, "audio"),
    "wav: another hash": (WAV, {"sha256": "0" * 64}, {}, "sha256"),
    "wav: another rate than the row says": (WAV, {"sampling_rate": 44100}, {}, "sampling_rate"),
    "wav: a start behind its end": (WAV, {"start": 0.6}, {}, "start"),
    "wav: a start behind the end": (WAV, {"start": 0.4, "end": 0.2}, {}, "end"),
    "aiff: cut off": (AIFF[: len(AIFF) // 2], {}, {}, "audio"),
    "flac: its header only": (FLAC[:42], {}, {}, "audio"),
    "flac: cut off": (FLAC[: len(FLAC) * 2 // 3], {}, {}, "audio"),
    "flac: a rate of 0": (patch(FLAC, 18, bytes([0, 0, FLAC[20] & 15])), {}, {}, "audio"),
    "flac: 68 billion samples": (patch(FLAC, 21, bytes([FLAC[21] | 15, *b"\xff" * 4])), {}, {}, "audio"),
    "flac: twice its samples": (patch(FLAC, 22, struct.pack(">I", 16000)), {}, {}, "audio"),
    "flac: an unknown number of samples": (patch(FLAC, 22, bytes(4)), {}, {}, "audio"),
    "flac: noise for frames": (FLAC[:200] + Random(0).randbytes(5000), {}, {}, "audio"),
    "ogg: its header only": (VORBIS[:100], {}, {}, "audio"),
    "ogg vorbis: cut off": (VORBIS[: len(VORBIS) * 2 // 3], {}, {}, "audio"),
    "ogg vorbis: one byte short": (VORBIS[:-1], {}, {}, "audio"),
    "ogg opus: cut off": (OPUS[: len(OPUS) * 2 // 3], {}, {}, "audio"),
    "ogg: no channels": (patch(VORBIS, VORBIS.index(b"vorbis") + 10, b"\0"), {}, {}, "audio"),
    "mp3: cut off": (MP3[: len(MP3) * 2 // 3], {}, {}, "audio"),
    "mp3: its first frame only": (MP3[:100], {}, {}, "audio"),
    "mp3: text behind a tag": (b"ID3\x03\x00\x00\x00\x00\x00\x00" + b"text " * 500, {}, {}, "audio"),
}


@pytest.mark.parametrize("memory", [True, False], ids=["bytes", "file"])
@pytest.mark.parametrize("name", HOSTILE)
def test_each_broken_file_is_an_error_that_names_the_field(name: str, memory: bool, tmp_path: Path) -> None:
    data, facts, settings, field = HOSTILE[name]
    (tmp_path / "a.wav").write_bytes(data)
    block = {"type": "audio", "audio": data if memory else "a.wav", **facts}
    with pytest.raises(DataError) as caught:
        decode(block, AudioSettings.model_validate(settings), tmp_path)
    assert caught.value.field == field
    assert " at 0x" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)
    if not memory and field not in ("end",):
        assert "a.wav" in str(caught.value)


def test_the_files_these_were_made_from_are_right() -> None:
    for data in (WAV, FLAC, VORBIS, OPUS, MP3, AIFF, FLOAT):
        part = MODALITY.read({"type": "audio", "bytes": data}, root=None)
        assert MODALITY.decode(part, AudioSettings()).tensor.shape == (1, 8000)


def test_a_wav_from_a_program_that_could_not_go_back_is_what_is_there() -> None:
    data = patch(patch(WAV, 4, b"\xff" * 4), 40, b"\xff" * 4)
    part = MODALITY.read({"type": "audio", "bytes": data}, root=None)
    assert MODALITY.decode(part, AudioSettings()).tensor.shape == (1, 8000)


@pytest.mark.parametrize("field", ["channels", "rate", "data"])
def test_a_forged_header_is_refused_when_the_row_is_read(field: str) -> None:
    at, value = {"channels": (22, b"\xff\xff"), "rate": (24, b"\xff" * 4), "data": (40, b"\xf0\xff\xff\x7f")}[field]
    with pytest.raises(DataError):
        MODALITY.read({"type": "audio", "bytes": patch(WAV, at, value)}, root=None)


_BOMB = """
import json, resource, sys, time
from modalign.errors import DataError
from modalign_audio.config import AudioSettings
from modalign_audio.modality import AudioModality

def run(name, settings):
    part = AudioModality().read({"type": "audio", "audio": name}, root=sys.argv[1])
    try:
        return AudioModality().decode(part, settings).tensor.shape[1]
    except DataError as error:
        return error.what

run("warm.flac", AudioSettings())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = run(sys.argv[2], AudioSettings.model_validate_json(sys.argv[3]))
print(json.dumps([found, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024]))
"""


@pytest.fixture(scope="module")
def bombs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An hour of silence at 96 kHz, 1.4 GB decoded, and the same with a header that says 10 minutes."""
    folder = tmp_path_factory.mktemp("bombs")
    silence, rate = np.zeros((96000, 1), dtype=np.int16), 96000
    with soundfile.SoundFile(folder / "hour.flac", "w", rate, 1, "PCM_16", format="FLAC") as file:
        for _ in range(3600):
            file.write(silence)
    data = (folder / "hour.flac").read_bytes()
    (folder / "forged.flac").write_bytes(patch(data, 22, struct.pack(">I", 600 * rate)))
    (folder / "warm.flac").write_bytes(encode("FLAC"))
    return folder


@pytest.mark.parametrize(
    ("name", "cap", "wanted"),
    [
        ("hour.flac", 32, "a sound is longer than the settings allow"),
        ("forged.flac", 32, "a sound is longer than the settings allow"),
        ("forged.flac", 256, 600 * 96000),  # 230 MB: within the cap, and no more than the header says is decoded
    ],
)
def test_a_bomb_costs_no_more_memory_than_its_cap(bombs: Path, name: str, cap: int, wanted: object) -> None:
    assert (bombs / name).stat().st_size < 4 * MIB
    settings = json.dumps({"max_decoded_bytes": cap * MIB})
    command = [sys.executable, "-c", _BOMB, str(bombs), name, settings]
    made = subprocess.run(command, check=True, capture_output=True, text=True, env={"OMP_NUM_THREADS": "1"})
    found, rise = json.loads(made.stdout)
    assert found == wanted
    assert rise <= (cap + 64) * MIB


def mutations(data: bytes, count: int, seed: int) -> list[bytes]:
    """Damaged copies: bytes changed (half of them within the header), pieces cut out, doubled or cut off."""
    random, made = Random(seed), []
    for _ in range(count):
        copy = bytearray(data)
        for _ in range(random.choice((1, 2, 8, 64))):
            at = random.randrange(min(len(copy), random.choice((64, len(copy)))))
            match random.randrange(5):
                case 0:
                    copy[at] ^= 1 << random.randrange(8)
                case 1:
                    copy[at] = random.choice((0, 0x7F, 0x80, 0xFF))
                case 2:
                    copy[at : at + 4] = random.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
                case 3:
                    del copy[at : at + random.randrange(1, 40)]
                case _:
                    copy[at:at] = copy[at : at + random.randrange(1, 40)]
            if len(copy) < 8:
                break
        made.append(bytes(copy[: random.randrange(1, len(copy))] if random.random() < 0.1 else copy))
    return made


@pytest.mark.parametrize("kind", ["wav", "float", "aiff", "flac", "vorbis", "opus", "mp3"])
def test_a_damaged_file_is_a_sound_or_a_clear_error(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    files = {"wav": WAV, "float": FLOAT, "aiff": AIFF, "flac": FLAC, "vorbis": VORBIS, "opus": OPUS, "mp3": MP3}
    settings, refused = AudioSettings(max_decoded_bytes=8 * MIB, rate=16000), 0
    for data in mutations(files[kind], 45, seed=len(kind)):  # 315 files in all
        error = None
        try:
            found = decode({"type": "audio", "bytes": data}, settings)
        except DataError as caught:
            error, refused = caught, refused + 1
        else:
            assert found.tensor.isfinite().all()
            assert found.tensor.shape[0] == 1
        assert error is None or (error.field and " at 0x" not in str(error))
    assert refused > 5
    assert "Traceback" not in capfd.readouterr().err  # of a callback that raised inside the library
