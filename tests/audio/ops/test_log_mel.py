"""Whisper's spectrogram against its extractor and against itself: values, padding, gradients, kernel, refusals."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor

from modalign.errors import ConfigError, ModelError, ShapeError
from modalign_audio.ops.log_mel import _announce, log_mel, reference

SETTINGS: dict[str, dict[str, int]] = {
    "whisper": {},
    "large-v3": {"feature_size": 128, "chunk_length": 5},
    "tiny": {"feature_size": 16, "chunk_length": 2},
    "24 kHz": {"feature_size": 20, "sampling_rate": 24000, "n_fft": 512, "hop_length": 240, "chunk_length": 3},
    "odd window": {"feature_size": 40, "n_fft": 401, "hop_length": 100, "chunk_length": 2},
    "hop of no divisor": {"feature_size": 40, "n_fft": 512, "hop_length": 130, "chunk_length": 2},
}


@cache
def extractor(name: str) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(**SETTINGS[name])  # pyright: ignore[reportArgumentType]


def wave(kind: str, n: int, rate: int) -> np.ndarray:
    at, random = np.arange(n) / rate, np.random.default_rng(n)
    values = {
        "noise": 0.1 * random.standard_normal(n),
        "sine": 0.5 * np.sin(2 * np.pi * 440 * at),
        "sweep": np.sin(2 * np.pi * (100 + 500 * at) * at),
        "bursts": 0.3 * np.exp(-12 * (at % 0.25)) * np.sign(np.sin(754 * at)) + 1e-4 * random.standard_normal(n),
        "silence": np.zeros(n),
        "faint": 1e-6 * random.standard_normal(n),
        "loud": 1e4 * random.standard_normal(n),
    }
    return values[kind].astype(np.float32)


def ours(samples: np.ndarray, own: WhisperFeatureExtractor) -> Tensor:
    filters = torch.from_numpy(own.mel_filters)
    return log_mel(torch.from_numpy(samples)[None], filters, n_fft=own.n_fft, hop=own.hop_length, length=own.n_samples)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("kind", ["noise", "sine", "sweep", "bursts", "silence", "faint", "loud"])
def test_it_equals_the_extractor_at_every_length(name: str, kind: str) -> None:
    own = extractor(name)
    whole = own.n_samples
    # around the places where a frame begins, and where the reflection at the end comes in
    for n in (whole, whole - 1, whole - own.hop_length, whole - own.n_fft // 2, whole // 2, 3 * own.n_fft, 7, 1):
        samples = wave(kind, n, own.sampling_rate)
        wanted = own(samples, sampling_rate=own.sampling_rate, return_tensors="pt")["input_features"]
        found = ours(samples, own)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["whisper", "tiny", "odd window"])
def test_it_equals_the_extractors_numpy_path_as_far_as_the_extractor_does(name: str) -> None:
    own = extractor(name)
    for kind in ("noise", "bursts", "silence", "sine", "sweep"):
        samples = np.zeros((1, own.n_samples), dtype=np.float32)
        samples[0, : own.n_samples // 2] = wave(kind, own.n_samples // 2, own.sampling_rate)
        exact = torch.from_numpy(own._np_extract_fbank_features(samples, "cpu")).float()
        theirs = torch.from_numpy(own._torch_extract_fbank_features(samples))
        found = ours(samples[:, : own.n_samples // 2][0], own)
        # float32 loses the faintest bands of pure tones, 8 powers of ten below them, there and here alike
        allowed = (theirs - exact).abs().max().item() + 1e-6
        torch.testing.assert_close(found, exact, atol=max(2e-5, allowed), rtol=0)


def test_silence_is_minus_one_and_a_half() -> None:
    # (log10 1e-10 + 4) / 4 = -6 / 4
    assert ours(np.zeros(5, dtype=np.float32), extractor("tiny")).eq(-1.5).all()


def test_a_louder_waveform_is_raised_by_half_its_powers_of_ten() -> None:
    waveform, filters = torch.randn(1, 4000, generator=torch.Generator().manual_seed(0)), torch.ones(201, 1)
    quiet, loud = (log_mel(scale * waveform, filters) for scale in (1.0, 10.0))
    torch.testing.assert_close(loud - quiet, torch.full_like(quiet, 0.5))  # log10 10^2 / 4


def test_waveforms_of_a_batch_do_not_see_each_other() -> None:
    own = extractor("tiny")
    filters = torch.from_numpy(own.mel_filters)
    waves = torch.stack([torch.from_numpy(wave(kind, 9000, 16000)) for kind in ("noise", "sine", "silence", "loud")])
    together = log_mel(waves, filters, length=32000)
    assert together.shape == (4, 16, 200)
    for number in range(4):
        torch.testing.assert_close(
            together[number : number + 1], log_mel(waves[number : number + 1], filters, length=32000)
        )


def test_padding_that_is_computed_equals_padding_that_is_known() -> None:
    own = extractor("tiny")
    filters = torch.from_numpy(own.mel_filters)
    for kind in ("noise", "silence", "faint"):
        waveform = torch.from_numpy(wave(kind, 5000, 16000))[None]
        padded = torch.nn.functional.pad(waveform, (0, 27000))
        torch.testing.assert_close(log_mel(waveform, filters, length=32000), log_mel(padded, filters))


def test_the_twin_has_the_gradient_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    waveform = torch.randn(1, 64, generator=generator).requires_grad_()
    filters, upstream = torch.rand(9, 3, generator=generator), torch.randn(1, 3, 16, generator=generator)

    def total(value: Tensor) -> Tensor:
        return (reference(value, filters, n_fft=16, hop=4) * upstream).double().sum()

    (found,) = torch.autograd.grad(total(waveform), waveform)
    direction = torch.randn(1, 64, generator=generator)
    step = 1e-2 * direction
    with torch.no_grad():
        slope = (total(waveform + step) - total(waveform - step)) / 2e-2
    torch.testing.assert_close((found * direction).sum().double(), slope, rtol=1e-2, atol=1e-2)


_KERNEL = """
import torch
from modalign.errors import KernelUnavailable
from modalign_audio.ops.log_mel import log_mel
cases = ((1, 4000, 400, 160, None, 8), (2, 5000, 400, 160, 16000, 80), (3, 900, 256, 80, 1000, 33))
for b, n, n_fft, hop, length, m in cases:
    made = torch.Generator().manual_seed(n)
    waveform, filters = 0.1 * torch.randn(b, n, generator=made), torch.rand(n_fft // 2 + 1, m, generator=made)
    settings = {"n_fft": n_fft, "hop": hop, "length": length}
    for scale in (1.0, 1e-7, 0.0):
        found = log_mel(scale * waveform, filters, impl="kernel", **settings)
        wanted = log_mel(scale * waveform, filters, impl="reference", **settings)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=0)
try:
    log_mel(waveform.requires_grad_(), filters, impl="kernel", **settings)
except KernelUnavailable as error:
    assert "gradient" in str(error)
else:
    raise AssertionError("a kernel without a derivative took a waveform that needs one")
print("equal")
"""


def test_the_kernel_equals_its_twin_in_tritons_interpreter() -> None:
    pytest.importorskip("triton")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    made = subprocess.run([sys.executable, "-c", _KERNEL], capture_output=True, text=True, env=environment, check=False)
    assert made.stdout == "equal\n", made.stderr


@pytest.mark.gpu
def test_the_kernel_equals_its_twin_on_a_gpu() -> None:
    own = extractor("whisper")
    filters = torch.from_numpy(own.mel_filters).cuda()
    waveform = torch.from_numpy(np.stack([wave(kind, 100_000, 16000) for kind in ("noise", "sine", "bursts")])).cuda()
    found = log_mel(waveform, filters, length=480_000, impl="kernel")
    torch.testing.assert_close(found, log_mel(waveform, filters, length=480_000, impl="reference"), atol=1e-5, rtol=0)


def test_a_kernel_that_cannot_run_raises_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for kind in (ModelError, RuntimeError):
        with pytest.raises(kind, match=r"waveform on cpu.*impl='reference'"):
            log_mel(torch.zeros(1, 400), torch.ones(201, 2), impl="kernel")


def test_auto_says_once_what_it_takes(caplog: pytest.LogCaptureFixture) -> None:
    _announce.cache_clear()
    with caplog.at_level(logging.INFO, logger="modalign_audio.ops.log_mel"):
        for _ in range(2):
            log_mel(torch.zeros(1, 400), torch.ones(201, 2))
    assert [record.getMessage() for record in caplog.records] == ["log_mel: impl='auto' takes 'reference'"]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"impl": "fast"}, ConfigError, "no implementation 'fast'"),
        ({"waveform": torch.zeros(400)}, ShapeError, 'floats "b n"'),
        ({"waveform": torch.zeros(1, 400, dtype=torch.int16)}, ShapeError, 'floats "b n"'),
        ({"waveform": torch.zeros(1, 0)}, ShapeError, 'floats "b n"'),
        ({"waveform": torch.zeros(1, 200)}, ShapeError, "more than 200 samples"),  # too short to be reflected
        ({"filters": torch.ones(200, 2)}, ShapeError, "k=201 for n_fft=400; found: \\(200, 2\\)"),
        ({"length": 399}, ConfigError, "399, below its 400 samples"),
        ({"hop": 0}, ConfigError, "hop at least 1"),
        ({"hop": 401}, ShapeError, "more than 400 samples"),
        ({"n_fft": 1}, ConfigError, "n_fft is at least 2"),
    ],
)
def test_a_wrong_argument_is_named(change: dict[str, object], error: type[Exception], says: str) -> None:
    arguments = {"waveform": torch.zeros(1, 400), "filters": torch.ones(201, 2)} | change
    with pytest.raises(error, match=says):
        log_mel(**arguments)  # pyright: ignore[reportArgumentType]


def test_a_full_scale_sine_has_the_power_of_its_window() -> None:
    # |X| at its bin is a/2 times the window's sum, n/2: of a = 1 and n = 400 the power is 100^2 = 10^4
    waveform = torch.sin(2 * math.pi * 50 / 400 * torch.arange(4000, dtype=torch.float64)).float()[None]
    filters = torch.zeros(201, 1)
    filters[50] = 1.0
    found = log_mel(waveform, filters)[..., 5:-5]
    torch.testing.assert_close(found, torch.full_like(found, (4 + 4) / 4), atol=1e-5, rtol=0)
