"""Sounds in every form a row can hold: read exactly, written back, saved, shown, and cut where the row says."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from modalign.content import Part
from modalign.errors import DataError
from modalign.files import File
from modalign_audio.config import AudioSettings
from modalign_audio.modality import AudioModality

MODALITY = AudioModality()
#: Values that every number of bits from 8 on can say, and one sample that none of them rounds to zero.
EXACT = [0.0, 0.5, -0.5, 0.25, -1.0, 0.125, -0.0078125, 0.9921875]
LOSSLESS = [
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_16"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAVEX", "PCM_24"),
    ("AIFF", "PCM_16"),
    ("AIFF", "PCM_24"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
]


def encode(samples: object, rate: int = 16000, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.asarray(samples, dtype=np.float64), rate, format=kind, subtype=subtype)
    return file.getvalue()


def read(value: object, root: Path | None = None, **facts: object) -> Part:
    return MODALITY.read({"type": "audio", "audio": value, **facts}, root=root)


def heard(part: Part, rate: float | None = None, **settings: object) -> Tensor:
    return MODALITY.decode(part, AudioSettings.model_validate(settings), rate=rate).tensor


def tone(seconds: float = 1.0, rate: int = 16000, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("kind", "subtype"), LOSSLESS)
@pytest.mark.parametrize("rate", [8000, 44100, 192000])
def test_every_sample_format_gives_the_values_that_were_written(kind: str, subtype: str, rate: int) -> None:
    found = MODALITY.decode(read(encode(EXACT, rate, kind, subtype)), AudioSettings())
    assert found.tensor.dtype == torch.float32
    assert found.tensor.tolist() == [EXACT]
    assert (found.rate, found.seconds) == (rate, len(EXACT) / rate)


@pytest.mark.parametrize("bits", [8, 16, 24])
def test_a_step_of_each_depth_is_two_to_the_power_of_its_bits(bits: int) -> None:
    step = 2.0 ** (1 - bits)
    part = read(encode([step, -step, 1 - step], kind="WAV", subtype={8: "PCM_U8"}.get(bits, f"PCM_{bits}")))
    assert heard(part).tolist() == [[step, -step, 1 - step]]


@pytest.mark.parametrize(("kind", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", None)])
def test_lossy_kinds_keep_the_length_and_sound_alike(kind: str, subtype: str | None) -> None:
    wanted = tone()
    found = heard(read(encode(wanted, kind=kind, subtype=subtype)))[0]
    assert found.shape == (16000,)
    middle = slice(2000, 14000)
    error = (found - torch.from_numpy(wanted))[middle].square().mean().sqrt()
    assert error < 0.05 * 0.5 / 2**0.5  # 5 % of a sine's root mean square


def test_a_file_bytes_and_a_data_sets_object_hold_the_same_sound(tmp_path: Path) -> None:
    data = encode(tone())
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.wav").write_bytes(data)
    wanted = heard(read(data))
    for value in (
        "sub/a.wav",
        bytearray(data),
        {"bytes": data, "path": "/home/someone/a.wav"},
        {"bytes": None, "path": "sub/a.wav"},
        {"bytes": data, "path": None, "sampling_rate": 16000},
    ):
        assert heard(read(value, tmp_path)).equal(wanted)
    for key, value in (("path", "sub/a.wav"), ("bytes", data)):
        assert heard(MODALITY.read({"type": "audio", key: value}, root=tmp_path)).equal(wanted)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_arrays_and_tensors_keep_their_values_and_rate(dtype: type[np.floating]) -> None:
    array = np.asarray(EXACT, dtype=dtype)
    array.flags.writeable = False
    for part in (
        read(array, sampling_rate=8000),
        read({"array": array, "sampling_rate": 8000, "path": None}),
        read(torch.tensor(EXACT), sampling_rate=8000.0),
        read(torch.tensor([EXACT], dtype=torch.float64), sampling_rate=8000),
    ):
        found = MODALITY.decode(part, AudioSettings())
        assert (found.tensor.tolist(), found.rate) == ([EXACT], 8000.0)
        assert part.facts == {"sampling_rate": 8000}


def test_an_array_is_copied_so_that_the_part_stays_what_it_was() -> None:
    array = np.zeros(100, dtype=np.float32)
    part = read(array, sampling_rate=8000)
    array[:] = 1
    assert not heard(part).any()


def test_a_tensor_without_a_rate_is_of_the_oracle_world() -> None:
    assert MODALITY.decode(read(torch.zeros(1, 4000)), AudioSettings()).seconds == 1.0  # 4 kHz


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "AIFF", "OGG"])
def test_start_and_end_say_which_part_is_meant(kind: str) -> None:
    data = encode(np.linspace(-0.5, 0.5, 64000) * np.sin(np.arange(64000) / 9), kind=kind)
    whole = heard(read(data))
    for start, end in ((1.0, 2.5), (3.9, None), (None, 0.01), (0.0, 4.005)):
        part = read(data, start=start, end=end)
        found = MODALITY.decode(part, AudioSettings())
        begin, stop = round((start or 0.0) * 16000), round((end or 4.0) * 16000)
        assert found.tensor.equal(whole[:, begin:stop])
        assert found.seconds == found.tensor.shape[1] / 16000
        assert part != read(data)  # another digest: another sound


def test_start_and_end_cut_samples_in_memory() -> None:
    part = read(torch.arange(8.0)[None] / 8000, sampling_rate=1000, start=0.002, end=0.005)
    assert heard(part).mul(8000).round().tolist() == [[2.0, 3.0, 4.0]]


@pytest.mark.parametrize("kind", ["WAV", "OGG"])
def test_a_part_of_a_sound_that_is_too_long_as_a_whole(kind: str) -> None:
    data = encode(tone(3.0), kind=kind)
    with pytest.raises(DataError, match="longer than the settings allow"):
        heard(read(data), max_seconds=1.0)
    assert heard(read(data, end=0.5), max_seconds=1.0).shape == (1, 8000)
    late = read(data, start=2.5)
    if kind == "WAV":
        assert heard(late, max_seconds=1.0).shape == (1, 8000)
    else:  # what comes before it must be decoded, and counts
        with pytest.raises(DataError, match="longer than the settings allow"):
            heard(late, max_seconds=1.0)


def test_the_right_hash_is_accepted_in_either_case(tmp_path: Path) -> None:
    data = encode(tone())
    (tmp_path / "a.wav").write_bytes(data)
    sha = hashlib.sha256(data).hexdigest()
    for value, said in ((data, sha), ("a.wav", sha.upper())):
        part = read(value, tmp_path, sha256=said)
        assert part.facts["sha256"] == sha
        assert heard(part).shape == (1, 16000)


def test_an_object_says_its_own_sha256(tmp_path: Path) -> None:
    data = encode(tone())
    (tmp_path / "a.wav").write_bytes(data)
    sha = hashlib.sha256(data).hexdigest()
    for item in ({"path": "a.wav"}, {"bytes": data, "path": "gone.wav"}):
        part = read(item | {"sha256": sha.upper()}, tmp_path)
        assert part.facts == {"sha256": sha}
        assert part == read(item, tmp_path, sha256=sha) == read(item | {"sha256": sha}, tmp_path, sha256=sha)
        assert heard(part).shape == (1, 16000)
        assert read(item | {"sha256": None}, tmp_path).facts == {}
        with pytest.raises(DataError, match=rf"field=sha256: .* not the one that the row means.*{sha}"):
            heard(read(item | {"sha256": "0" * 64}, tmp_path))


def test_a_block_is_read_back_as_the_same_part(tmp_path: Path) -> None:
    data = encode(tone())
    (tmp_path / "a.wav").write_bytes(data)
    sha = hashlib.sha256(data).hexdigest()
    for part in (
        read(data, start=0.25, end=0.5, sha256=sha),
        read("a.wav", tmp_path, end=0.5),
        read(tone(), sampling_rate=16000, start=0.5),
        read(torch.zeros(2, 100)),
    ):
        block = MODALITY.block(part)
        assert MODALITY.read(block, root=tmp_path) == part
        if isinstance(part.value, File):
            assert block == {"type": "audio", "audio": "a.wav", "end": 0.5}  # JSON


def parts(folder: Path) -> dict[str, Part]:
    stereo = np.stack([tone(), -tone() / 2], axis=1)
    (folder / "a.flac").write_bytes(encode(stereo, kind="FLAC"))
    return {
        "file": read("a.flac", folder),
        "bytes": read(encode(stereo, kind="AIFF")),
        "clip": read(encode(stereo), start=0.0, end=1.0),
        "array": read(stereo.T, sampling_rate=16000),
    }


def test_saving_keeps_rate_channels_and_16_bits_of_every_kind_of_value(tmp_path: Path) -> None:
    for name, part in parts(tmp_path).items():
        file = MODALITY.save(part, tmp_path / name)
        assert file == tmp_path / f"{name}.wav"
        info = soundfile.info(file)
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (16000, 2, 16000, "PCM_16")
        wanted = np.stack([tone(), -tone() / 2], axis=1)
        assert np.abs(soundfile.read(file)[0] - wanted).max() <= 2 / 32768


def test_saving_clips_what_16_bits_cannot_say(tmp_path: Path) -> None:
    file = MODALITY.save(read(torch.tensor([2.0, -2.0, 0.5])), tmp_path / "loud")
    assert soundfile.read(file, dtype="int16")[0].tolist() == [32767, -32768, 16384]


def test_showing_embeds_web_formats_as_they_are_and_the_rest_as_wav(tmp_path: Path) -> None:
    made = parts(tmp_path)
    shown = {name: MODALITY.show(part) for name, part in made.items()}
    flac = base64.b64encode((tmp_path / "a.flac").read_bytes()).decode()
    assert f'src="data:audio/flac;base64,{flac}"' in shown["file"]
    for name in ("bytes", "clip", "array"):  # AIFF is played by few browsers; a clip is not the whole of its file
        data = shown[name].split("base64,")[1].split('"')[0]
        assert soundfile.info(io.BytesIO(base64.b64decode(data))).frames == 16000
        assert "data:audio/wav;" in shown[name]


@pytest.mark.parametrize(
    ("block", "field"),
    [
        ({}, "audio"),
        ({"audio": torch.zeros(5), "path": "a.wav"}, "audio"),
        ({"audio": "a.wav"}, "audio"),  # no root
        ({"path": "a.wav"}, "path"),
        ({"path": b"RIFF"}, "path"),
        ({"bytes": "a.wav"}, "bytes"),
        ({"audio": 3}, "audio"),
        ({"audio": Path("a.wav")}, "audio"),
        ({"audio": [0.0, 0.5]}, "audio"),
        ({"audio": {}}, "audio"),
        ({"audio": {"bytes": None, "path": None}}, "audio"),
        ({"audio": {"bytes": b"x", "name": "a"}}, "audio"),
        ({"audio": {"bytes": b"x", "array": np.zeros(5), "sampling_rate": 8000}}, "audio"),
        ({"audio": {"array": [0.0], "sampling_rate": 8000}}, "audio.array"),
        ({"audio": {"array": np.zeros(5)}}, "sampling_rate"),
        ({"audio": {"array": np.zeros(5), "sampling_rate": 8000}, "sampling_rate": 16000}, "sampling_rate"),
        ({"bytes": {"bytes": b"x"}}, "bytes"),
        ({"audio": np.zeros(5)}, "sampling_rate"),
        ({"audio": np.zeros(5, dtype=np.int16), "sampling_rate": 8000}, "audio"),
        ({"audio": np.zeros((1, 1, 5)), "sampling_rate": 8000}, "audio"),
        ({"audio": np.full(5, 1e300), "sampling_rate": 8000}, "audio"),
        ({"audio": torch.zeros(5000, 2), "sampling_rate": 8000}, "audio"),  # samples before channels
        ({"audio": torch.zeros((), dtype=torch.float32)}, "audio"),
        ({"audio": torch.zeros(0)}, "audio"),
        ({"audio": torch.zeros(0, 5)}, "audio"),
        ({"audio": torch.zeros(5, dtype=torch.uint8)}, "audio"),
        ({"audio": torch.full((5,), float("nan"))}, "audio"),
        ({"audio": torch.full((5,), float("inf"))}, "audio"),
        ({"audio": torch.zeros(5), "caption": "x"}, "caption"),
        ({"audio": torch.zeros(5), "sampling_rate": 0}, "sampling_rate"),
        ({"audio": torch.zeros(5), "sampling_rate": 4e9}, "sampling_rate"),
        ({"audio": torch.zeros(5), "sampling_rate": -8000}, "sampling_rate"),
        ({"audio": torch.zeros(5), "sampling_rate": 8000.5}, "sampling_rate"),
        ({"audio": torch.zeros(5), "sampling_rate": "8000"}, "sampling_rate"),
        ({"audio": torch.zeros(5), "sampling_rate": True}, "sampling_rate"),
        ({"audio": torch.zeros(5), "sampling_rate": float("nan")}, "sampling_rate"),
        ({"audio": torch.zeros(5), "start": -1.0}, "start"),
        ({"audio": torch.zeros(5), "start": float("nan")}, "start"),
        ({"audio": torch.zeros(5), "start": 2.0, "end": 1.0}, "end"),
        ({"audio": torch.zeros(5), "start": 2.0, "end": 2.0}, "end"),
        ({"audio": torch.zeros(5), "end": "1"}, "end"),
        ({"audio": torch.zeros(5), "sha256": "0" * 64}, "sha256"),
        ({"bytes": encode([0.0]), "sha256": "0" * 63}, "sha256"),
        ({"bytes": encode([0.0]), "sha256": 5}, "sha256"),
        ({"audio": {"bytes": encode([0.0]), "sha256": "0" * 63}}, "sha256"),
        ({"audio": {"bytes": encode([0.0]), "sha256": "0" * 64}, "sha256": "1" * 64}, "sha256"),
        ({"audio": {"array": torch.zeros(5), "sampling_rate": 8000, "sha256": "0" * 64}}, "sha256"),
        ({"audio": {"sha256": "0" * 64}}, "path"),
    ],
)
def test_a_block_that_says_no_sound_names_the_field(block: dict[str, object], field: str) -> None:
    with pytest.raises(DataError) as caught:
        MODALITY.read({"type": "audio", **block}, root=None)
    assert caught.value.field == field
    assert " at 0x" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../a.wav", "/etc/passwd", "missing.wav", "https://example.org/a.wav", "link.wav", "."]
)
def test_a_file_outside_the_root_is_refused_when_it_is_read(name: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "a.wav").write_bytes(encode(tone()))
    os.symlink(tmp_path / "a.wav", root / "link.wav")
    with pytest.raises(DataError, match="field=audio"):
        read(name, root)


@pytest.mark.parametrize(("value", "rate"), [(encode(tone()), None), (torch.zeros(16000), 16000)])
def test_a_clip_behind_the_end_is_refused_by_its_field(value: object, rate: int | None) -> None:
    for field, start, end in (("start", 1.0, None), ("start", 1e300, None), ("end", None, 1.02), ("end", 0.5, 9.0)):
        with pytest.raises(DataError, match=f"field={field}: the {field} lies behind the end"):
            heard(read(value, sampling_rate=rate, start=start, end=end))
    with pytest.raises(DataError, match="field=end: a part of a sound without samples"):
        heard(read(value, sampling_rate=rate, start=0.5, end=0.50001))
