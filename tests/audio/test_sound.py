"""Decoded samples to content: mixing, resampling, limits."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor

from modalign.content import Part
from modalign.errors import DataError, MissingExtra, ModelError
from modalign.roles import MediaSettings
from modalign_audio.config import AudioSettings
from modalign_audio.modality import AudioModality
from modalign_audio.reading import sound

MONO, STEREO = AudioSettings(), AudioSettings(channels="stereo")


def sine(hertz: float, rate: int, seconds: float = 1.0) -> Tensor:
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * rate), dtype=torch.float64) / rate)[None]


def test_mono_is_the_mean_of_all_channels() -> None:
    samples = torch.tensor([[0.75, 0.0], [0.25, -0.5], [0.5, 0.5]])
    assert sound(samples, 8000, MONO).tensor.tolist() == [[0.5, 0.0]]  # 1.5 / 3 and 0 / 3


def test_stereo_of_one_channel_is_that_channel_twice() -> None:
    assert sound(torch.tensor([[0.5, -0.25]]), 8000, STEREO).tensor.tolist() == [[0.5, -0.25], [0.5, -0.25]]


def test_stereo_of_two_channels_is_left_and_right_as_they_are() -> None:
    samples = torch.tensor([[0.5, -0.25], [0.0, 1.0]])
    assert sound(samples, 8000, STEREO).tensor.equal(samples)


def test_stereo_of_more_channels_is_refused() -> None:
    with pytest.raises(DataError, match="no known left and right"):
        sound(torch.zeros(6, 100), 8000, STEREO)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 192000])
@pytest.mark.parametrize("wanted", [16000, 48000])
def test_resampling_keeps_a_sines_frequency_phase_and_amplitude(rate: int, wanted: int) -> None:
    found = sound(sine(440, rate), rate, MONO, wanted)
    assert found.rate == wanted
    assert found.seconds == 1.0
    assert found.tensor.shape == (1, wanted)
    middle = slice(wanted // 10, -wanted // 10)  # the ends see silence beyond them
    error = (found.tensor - sine(440, wanted))[:, middle].abs().max()
    assert error < 0.01 * 0.5  # 1 % of the amplitude: the default filter is 6 zero crossings wide


def test_what_the_lower_rate_cannot_say_is_taken_out() -> None:
    found = sound(sine(7000, 48000), 48000, MONO, 8000)  # above half of 8 kHz: kept, it would sound as 1 kHz
    assert found.tensor[:, 800:-800].abs().max() < 0.01 * 0.5


def test_the_models_rate_wins_over_the_settings_and_both_over_the_sounds_own() -> None:
    samples, settings = torch.zeros(1, 8000), AudioSettings(rate=12000)
    assert sound(samples, 8000, settings, 16000.0).rate == 16000.0
    assert sound(samples, 8000, settings).rate == 12000.0
    assert sound(samples, 8000, MONO).rate == 8000.0


@pytest.mark.parametrize("wanted", [None, 16000, 4000])
def test_one_sample_is_a_sound(wanted: int | None) -> None:
    found = sound(torch.tensor([[0.5]]), 8000, MONO, wanted)
    assert found.tensor.shape == (1, math.ceil((wanted or 8000) / 8000))
    assert found.seconds == 1 / 8000


def test_two_channels_are_resampled_each_by_itself() -> None:
    both = torch.cat([sine(440, 8000), sine(660, 8000)])
    found = sound(both, 8000, STEREO, 16000).tensor
    for number in range(2):
        torch.testing.assert_close(
            found[number : number + 1], sound(both[number : number + 1], 8000, MONO, 16000).tensor
        )


@pytest.mark.parametrize(
    ("samples", "rate", "settings", "says"),
    [
        (torch.zeros(1, 0), 8000, {}, "without samples"),
        (torch.zeros(0, 8), 8000, {}, "1 to 8 channels"),
        (torch.zeros(9, 8), 8000, {}, "1 to 8 channels"),
        (torch.zeros(3, 8), 8000, {"max_channels": 2}, "1 to 2 channels"),
        (torch.zeros(8), 8000, {}, '"c n" of floats'),
        (torch.zeros((1, 8), dtype=torch.int16), 8000, {}, '"c n" of floats'),
        (torch.full((1, 8), float("nan")), 8000, {}, "finite"),
        (torch.full((2, 8), 3e38), 8000, {}, "finite"),  # their sum is beyond the largest float
        (torch.full((1, 8), 1e300, dtype=torch.float64), 8000, {}, "finite"),
        (torch.zeros(1, 8), 0, {}, "between 1000 and 384000"),
        (torch.zeros(1, 8), 4e9, {}, "between 1000 and 384000"),
        (torch.zeros(1, 8), float("inf"), {}, "whole number"),
        (torch.zeros(1, 8001), 8000, {"max_seconds": 1.0}, "longer"),
        (torch.zeros(1, 26), 8000, {"max_decoded_bytes": 100}, "longer"),  # 26 samples of 4 bytes
        (torch.zeros(1, 13), 8000, {"max_decoded_bytes": 100, "channels": "stereo"}, "longer"),
    ],
)
def test_what_is_no_sound_or_too_much_of_one_is_refused(
    samples: Tensor, rate: float, settings: dict[str, object], says: str
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        sound(samples, rate, AudioSettings.model_validate(settings))
    assert caught.value.field == "audio"


def test_limits_hold_what_they_say() -> None:
    assert sound(torch.zeros(1, 8000), 8000, AudioSettings(max_seconds=1.0)).seconds == 1.0
    assert sound(torch.zeros(1, 25), 8000, AudioSettings(max_decoded_bytes=100)).tensor.shape == (1, 25)
    with pytest.raises(DataError, match="longer"):  # 20 samples become 40, of 160 bytes
        sound(torch.zeros(1, 20), 8000, AudioSettings(max_decoded_bytes=100), 16000)


def test_rates_without_a_common_divisor_are_refused_instead_of_a_filter_of_gigabytes() -> None:
    with pytest.raises(DataError, match="too little in common"):
        sound(torch.zeros(1, 100), 44101, MONO, 16000)


def test_a_model_that_asks_for_no_rate_is_told_so() -> None:
    for wanted in (0.0, 16000.5, -1.0, float("nan")):
        with pytest.raises(ModelError, match="whole number of samples"):
            sound(torch.zeros(1, 100), 8000, MONO, wanted)


class Refusing:
    """An import of torchaudio that fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.partition(".")[0] == "torchaudio":
            raise self.error


def without_torchaudio(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    for name in [one for one in sys.modules if one.partition(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Refusing(error), *sys.meta_path])


def test_without_torchaudio_a_resampling_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without_torchaudio(monkeypatch, ModuleNotFoundError("No module named 'torchaudio'", name="torchaudio"))
    with pytest.raises(MissingExtra, match=r"pip install .*torchaudio"):
        sound(torch.zeros(1, 100), 8000, MONO, 16000)
    assert sound(torch.zeros(1, 100), 8000, MONO).rate == 8000.0  # what needs none works


@pytest.mark.parametrize("kind", [OSError, RuntimeError, ImportError])
def test_a_broken_torchaudio_is_an_error_that_names_the_mend(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    without_torchaudio(monkeypatch, kind("libtorchaudio.so: undefined symbol"))
    with pytest.raises(ModelError, match=r"installed and broken.*undefined symbol.*pip install"):
        sound(torch.zeros(1, 100), 8000, MONO, 16000)


def test_without_soundfile_a_file_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    part = Part(modality="audio", value=b"RIFF")
    with pytest.raises(MissingExtra, match=r"modalign\[audio\]"):
        AudioModality().decode(part, MONO)


def test_settings_of_another_modality_are_refused() -> None:
    with pytest.raises(ModelError, match="AudioSettings"):
        AudioModality().decode(Part(modality="audio", value=torch.zeros(1, 5)), MediaSettings())
