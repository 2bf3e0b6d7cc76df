"""Sounds are fitted to what a generator makes; rows that fitting would spoil and lengths it cannot make are refused."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank, spectrogram

from modalign.comparison import Comparison
from modalign.config import GenerationConfig
from modalign.content import Message, Response
from modalign.decoders.generating import GeneratorPreparer, prompt_medium
from modalign.draws import Draws
from modalign.errors import ConfigError, DataError, MissingExtra, ModelError
from modalign.integrations.diffusers.denoiser import PipelineDenoiser
from modalign.integrations.diffusers.laws import FamilyLaws
from modalign.integrations.diffusers.process import Scheduler
from modalign.loading import load
from modalign.model import Model
from modalign.objectives import DPO
from modalign.roles import Content
from modalign_audio.config import AudioSettings
from modalign_audio.generators import testing
from modalign_audio.generators.base import AudioFamily, SoundFit
from modalign_audio.generators.cases import rows
from modalign_audio.generators.mel import log_mel

pytestmark = [
    # Both of diffusers 0.42.1, as in test_families.py.
    pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Should have t[ab][<>]=t[01]:UserWarning"),
]

_MAKERS: Mapping[str, Callable[[Path], Path]] = {
    "stable-audio": testing.stable_audio,
    "audioldm2": testing.audioldm2,
    "ace-step": testing.ace_step,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in _MAKERS.items()}


def heard(samples: Tensor, rate: float = 1000.0) -> Content:
    return Content(modality="audio", tensor=samples, rate=rate, seconds=samples.shape[-1] / rate)


def family(model: Model) -> AudioFamily:
    return cast(AudioFamily, denoiser(model).family)


def denoiser(model: Model) -> PipelineDenoiser:
    return cast(PipelineDenoiser, model.decoders["audio"].denoiser)


# --- fitting -------------------------------------------------------------------------------------


def test_the_beginning_is_kept_and_silence_follows() -> None:
    fit = SoundFit(channels=1, samples=3, window=5)
    assert fit(heard(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))).tolist() == [[1.0, 2.0, 3.0, 0.0, 0.0]]
    assert fit(heard(torch.tensor([[1.0]]))).tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]]


def test_channels_are_mixed_or_repeated() -> None:
    left, right = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 3.0])
    both = heard(torch.stack([left, right]))
    assert SoundFit(channels=1, samples=2, window=2)(both).tolist() == [[0.5, 1.5]]
    assert SoundFit(channels=2, samples=2, window=2)(both).tolist() == [[1.0, 0.0], [0.0, 3.0]]
    assert SoundFit(channels=2, samples=2, window=2)(heard(left[None])).tolist() == [[1.0, 0.0]] * 2


def test_fitted_sounds_are_float32_whatever_they_were() -> None:
    found = SoundFit(channels=1, samples=2, window=2)(heard(torch.ones(1, 2, dtype=torch.float64)))
    assert found.dtype == torch.float32


def test_a_sound_without_samples_is_refused() -> None:
    with pytest.raises(DataError, match="a sound without samples; found: a length of 0; to mend: remove the row"):
        SoundFit(channels=1, samples=2, window=2)(heard(torch.zeros(1, 0)))


def test_lengths_that_differ_too_much_are_refused() -> None:
    fit = SoundFit(channels=1, samples=10, window=10, tolerance=0.25)
    fit.check([])
    fit.check([heard(torch.zeros(1, 100)), heard(torch.zeros(1, 125))])  # 125 / 100 = 1 + 0.25
    with pytest.raises(DataError, match=r"differ in length; found: from 0\.1 to 0\.126 s; to mend: .*tolerance"):
        fit.check([heard(torch.zeros(1, 126)), heard(torch.zeros(1, 100))])


# --- rows ----------------------------------------------------------------------------------------


def longer(row: Comparison) -> Comparison:
    """The row with a rejected sound of twice the length."""
    chosen, rejected = row.responses
    (part,) = rejected.parts()
    value = torch.cat([cast(Tensor, part.value)] * 2, dim=-1)
    message = Message(role="assistant", parts=(replace(part, value=value),))
    return replace(row, responses=(chosen, Response(messages=(message,))))


def test_a_pair_of_different_lengths_is_refused_where_it_is_read(folders: Mapping[str, Path]) -> None:
    row = longer(rows()[0])
    model = load(str(folders["stable-audio"]))
    with pytest.raises(DataError, match=r"rejected: .*differ in length; found: from 1 to 2 s"):
        model.assembly.preparer.encode(row)
    patient = load(str(folders["stable-audio"]), options={"tolerance": 1.0})
    assert len(patient.assembly.preparer.encode(row)) == 2


def test_sounds_are_resampled_to_the_rate_of_the_model(folders: Mapping[str, Path]) -> None:
    model = load(str(folders["audioldm2"]), options={"seconds": 0.32})
    (fitted,) = [
        one.tensors["fitted"] for one in model.assembly.preparer.encode(rows()[0])[0].media.values() if one.tensors
    ]
    assert fitted.shape == (1, 5120)  # 0.32 s at 16 kHz, of a second at 4 kHz


def test_channels_are_decoded_as_the_model_has_them(folders: Mapping[str, Path]) -> None:
    def channels(name: str, **said: object) -> str:
        preparer = cast(GeneratorPreparer, load(str(folders[name]), media={"audio": said}).assembly.preparer)
        return cast(AudioSettings, preparer.settings).channels

    assert channels("stable-audio") == "stereo"
    assert channels("stable-audio", channels="mono") == "mono"
    assert channels("audioldm2") == "mono"


# --- lengths -------------------------------------------------------------------------------------


def test_lengths_are_those_of_the_network_where_nothing_is_said(folders: Mapping[str, Path]) -> None:
    # 64 frames of 32 samples at 4 kHz; 16 frames of 2 * 160 samples at 16 kHz; the pipeline's own default
    for name, seconds in (("stable-audio", 0.512), ("audioldm2", 0.32), ("ace-step", 60.0)):
        assert family(load(str(folders[name]))).seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("name", "seconds", "bounds"),
    [
        ("stable-audio", 0.6, r"at least 0\.008 s and at most 0\.512 s"),
        ("stable-audio", 0.001, r"at least 0\.008 s and at most 0\.512 s"),
        ("audioldm2", 0.05, r"at least 0\.064 s"),
        ("ace-step", 0.01, r"at least 0\.04 s"),
    ],
)
def test_lengths_that_a_model_cannot_make_are_refused(
    folders: Mapping[str, Path], name: str, seconds: float, bounds: str
) -> None:
    with pytest.raises(ConfigError, match=rf"model\.options\.seconds: .*found: {seconds} s; to mend: {bounds}"):
        load(str(folders[name]), options={"seconds": seconds})


@pytest.mark.parametrize("name", _MAKERS)
def test_written_sounds_have_the_length_and_the_rate(folders: Mapping[str, Path], name: str) -> None:
    model = load(str(folders[name]), options={"seconds": 0.2})
    made = family(model)
    (part,) = made.write(["a tone"], GenerationConfig(num_inference_steps=2), 0)
    fit = cast(SoundFit, made.fit)
    assert cast(Tensor, part.value).shape == (made.channels, fit.samples)
    assert dict(part.facts) == {"sampling_rate": made.rate}


# --- conditions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stable-audio", "ace-step"])
def test_a_dropped_prompt_is_what_guidance_compares_with(folders: Mapping[str, Path], name: str) -> None:
    model = load(str(folders[name]), options={"seconds": 0.2})
    made, calls = family(model), list[Mapping[str, object]]()

    def note(_: nn.Module, args: tuple[object, ...], kwargs: Mapping[str, object]) -> None:
        calls.append(kwargs)

    handle = made.denoise.register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        made.write(["a tone"], GenerationConfig(num_inference_steps=2, guidance_scale=2.0), 0)
    handle.remove()
    (nothing,) = denoiser(model).conditions([denoiser(model).nothing()])
    (something,) = denoiser(model).conditions([prompt_medium("a tone", denoiser(model).words)])
    guided = cast(Tensor, calls[0]["encoder_hidden_states"])
    with_nothing, with_words = guided if name == "stable-audio" else guided.flip(0)
    torch.testing.assert_close(something["states"], with_words, rtol=1e-5, atol=1e-6)
    assert bool((nothing["states"][:1] == with_nothing).all())  # the same at every token, of which it has fewer
    assert bool((nothing["states"] == with_nothing[:1]).all())


@pytest.mark.parametrize("name", _MAKERS)
def test_families_work_in_bfloat16(folders: Mapping[str, Path], name: str) -> None:
    options = {"seconds": 0.2}
    laws = FamilyLaws(folders[name], rows(), options)
    model, exact = load(str(folders[name]), options=options, dtype="bfloat16").eval(), laws.model()
    with torch.no_grad():
        found, expected = (one(laws.batch(one, DPO()), Draws(seed=1)).logps for one in (model, exact))
        (part,) = family(model).write(["a tone"], GenerationConfig(num_inference_steps=2), 0)
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0.0)
    assert cast(Tensor, part.value).dtype == torch.float32


# --- spectrograms --------------------------------------------------------------------------------


def test_spectrograms_are_those_of_an_independent_library() -> None:
    sound = torch.randn(1, 3200, generator=torch.Generator().manual_seed(0))
    found = log_mel(sound, 16000, bands=64, size=1024, hop=160)[0]
    filters = mel_filter_bank(513, 64, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    mirrored = nn.functional.pad(sound, (432, 432), mode="reflect")[0].numpy()
    window = torch.hann_window(1024, dtype=torch.float64).numpy()
    expected = spectrogram(
        mirrored, window, 1024, 160, power=1.0, center=False, mel_filters=filters, mel_floor=1e-5, log_mel="log"
    )
    assert found.shape == (20, 64)  # a frame for each hop
    torch.testing.assert_close(found.double(), torch.from_numpy(expected).double().T, rtol=1e-4, atol=1e-4)


def test_a_louder_sound_moves_its_spectrogram_by_the_logarithm() -> None:
    sound = torch.randn(1, 3200, generator=torch.Generator().manual_seed(0))
    one, ten = (log_mel(sound * loud, 16000, bands=8, size=1024, hop=160) for loud in (1.0, 10.0))
    torch.testing.assert_close(ten - one, torch.full_like(one, math.log(10)), rtol=1e-3, atol=1e-3)


# --- what cannot be trained ----------------------------------------------------------------------


def test_stable_audio_says_that_its_sampler_needs_torchsde(
    folders: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "torchsde" else find(name, package)

    monkeypatch.setattr("modalign_audio.generators.loader.find_spec", without)
    with pytest.raises(MissingExtra, match=r"StableAudioPipeline samples with .* to mend: pip install torchsde"):
        load(str(folders["stable-audio"]))
    load(str(folders["audioldm2"]))


def test_stable_audio_with_another_scheduler_is_refused(folders: Mapping[str, Path]) -> None:
    from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler

    made = family(load(str(folders["stable-audio"])))
    made.pipe.scheduler = cast("Callable[..., Scheduler]", EDMDPMSolverMultistepScheduler)(sigma_data=1.0)
    with pytest.raises(ModelError, match="other times than it was trained with; found: EDMDPM"):
        type(made)(made.pipe, made.settings)
