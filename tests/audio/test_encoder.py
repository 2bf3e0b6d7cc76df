"""Audio towers: what they are given, how many embeddings come out, and that nothing of a checkpoint is lost."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoFeatureExtractor, WhisperModel

from modalign.errors import DataError, ModelError, ShapeError
from modalign.registry import registry
from modalign.roles import Content, Encoder
from modalign_audio.config import AudioSettings
from modalign_audio.encoder import AudioEncoder
from modalign_audio.modality import AudioModality
from modalign_audio.testing import FAMILIES, tiny_audio

ALL = list(FAMILIES)
#: Samples of each tower's window. AST's is 100 frames of 160 behind the first one's 400, less one for one frame more.
WINDOWS = {"whisper": 32000, "clap": 8000, "ast": 400 + 100 * 160 - 1}
#: Embeddings of half a second.
HALF = {
    "whisper": 25,  # 8000 / 160 / 2
    "clap": 16,  # half of the 32 of its window
    "ast": 6,  # 1 + (8000 - 400) / 160 = 48 frames, in patches of 8
    "wav2vec2": 100,  # (8000 - 10) / 5 + 1 = 1599, (1599 - 3) / 4 + 1 = 400, (400 - 2) / 4 + 1 = 100
    "hubert": 100,
    "wavlm": 100,
}


def change(file: Path, **settings: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("towers")
    return {family: tiny_audio(root / family, family) for family in ALL}


def load(folder: Path, **options: object) -> AudioEncoder:
    return AudioEncoder.load(str(folder), **options)  # pyright: ignore[reportArgumentType]


def noise(encoder: Encoder, seconds: float, seed: int = 0) -> Content:
    assert encoder.rate is not None
    made = torch.Generator().manual_seed(seed)
    samples = 0.1 * torch.randn(1, round(seconds * encoder.rate), generator=made)
    return Content(modality="audio", tensor=samples, rate=encoder.rate, seconds=seconds)


def test_the_plugin_registers_one_encoder_of_sounds() -> None:
    assert registry.encoder("audio") is AudioEncoder


@pytest.mark.parametrize("family", ALL)
def test_half_a_second_gives_the_embeddings_it_costs(folders: dict[str, Path], family: str) -> None:
    encoder = AudioEncoder.load(str(folders[family]))
    medium = encoder.prepare(noise(encoder, 0.5))
    (found,) = encoder([medium])
    assert medium.modality == "audio"
    assert medium.cost == HALF[family]
    assert found.shape == (HALF[family], encoder.width) == (HALF[family], 32)
    assert found.isfinite().all()
    assert found.std(0).min() > 1e-4  # moments differ
    assert encoder.rate == (8000.0 if family == "clap" else 16000.0)


@pytest.mark.parametrize("family", ALL)
def test_media_of_mixed_lengths_come_back_in_order_and_as_if_alone(folders: dict[str, Path], family: str) -> None:
    encoder = AudioEncoder.load(str(folders[family]))
    media = [
        encoder.prepare(noise(encoder, seconds, seed)) for seed, seconds in enumerate((0.5, 0.25, 0.5, 0.75, 0.25))
    ]
    together = encoder(media)
    assert [one.shape[0] for one in together] == [one.cost for one in media]
    for medium, found in zip(media, together, strict=True):
        torch.testing.assert_close(found, encoder([medium])[0], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], together[2])
    assert encoder([]) == []


@pytest.mark.parametrize("family", ALL)
def test_saving_and_loading_gives_the_same_numbers_bit_for_bit(
    folders: dict[str, Path], family: str, tmp_path: Path
) -> None:
    first = AudioEncoder.load(str(folders[family]))
    first.save(tmp_path / "new" / "folder")
    again = AudioEncoder.load(str(tmp_path / "new" / "folder"))
    one, other = first.state_dict(), again.state_dict()
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    medium = first.prepare(noise(first, 0.5))
    same = again.prepare(noise(again, 0.5))
    assert all(value.equal(same.tensors[name]) for name, value in medium.tensors.items())
    assert first([medium])[0].equal(again([same])[0])
    assert first.facts == again.facts


def test_only_the_encoder_of_whisper_is_kept_and_it_is_the_librarys(folders: dict[str, Path]) -> None:
    encoder = AudioEncoder.load(str(folders["whisper"]))
    whole = WhisperModel.from_pretrained(folders["whisper"]).eval()
    assert sum(one.numel() for one in encoder.parameters()) == sum(one.numel() for one in whole.encoder.parameters())
    assert not any("decoder" in name for name in encoder.state_dict())
    content = noise(encoder, 0.5)
    features = AutoFeatureExtractor.from_pretrained(folders["whisper"])(
        content.tensor[0].numpy(), sampling_rate=16000, return_tensors="pt"
    )["input_features"]
    wanted = whole.encoder(features).last_hidden_state[0, :25]
    torch.testing.assert_close(encoder([encoder.prepare(content)])[0], wanted, atol=1e-5, rtol=1e-4)


def test_only_the_audio_tower_of_clap_is_kept(folders: dict[str, Path]) -> None:
    stored = load_file(folders["clap"] / "model.safetensors")
    kept = AudioEncoder.load(str(folders["clap"])).state_dict()
    assert any(name.startswith("text_model") for name in stored)
    assert {name.removeprefix("tower.") for name in kept} == {
        name.removeprefix("audio_model.") for name in stored if name.startswith("audio_model.")
    }


def test_the_fused_spectrogram_equals_the_extractors(folders: dict[str, Path]) -> None:
    fused, own = (AudioEncoder.load(str(folders["whisper"]), features=name) for name in ("fused", "extractor"))
    for seconds in (0.01, 0.5, 1.999, 2.0):
        one, other = (encoder.prepare(noise(encoder, seconds)) for encoder in (fused, own))
        torch.testing.assert_close(one.tensors["input_features"], other.tensors["input_features"], atol=1e-6, rtol=0)
        assert one.cost == other.cost
    assert fused.facts == own.facts  # who computes it is no setting of what comes out


def test_an_extractor_that_dithers_is_used_itself(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(folders["whisper"], tmp_path / "dither")
    change(tmp_path / "dither" / "preprocessor_config.json", dither=0.1)
    encoder = AudioEncoder.load(str(tmp_path / "dither"))
    silence = Content(modality="audio", tensor=torch.zeros(1, 16000), rate=16000.0)
    assert encoder.prepare(silence).tensors["input_features"].std() > 0.01  # the noise it adds


@pytest.mark.parametrize("family", WINDOWS)
def test_a_sound_longer_than_the_window_is_refused_with_the_limit(folders: dict[str, Path], family: str) -> None:
    encoder = AudioEncoder.load(str(folders[family]))
    assert encoder.rate is not None
    most = WINDOWS[family]
    whole = encoder.prepare(noise(encoder, most / encoder.rate))
    assert encoder([whole])[0].shape[0] == whole.cost
    with pytest.raises(DataError, match=rf"field=audio.*too long.*at most {most / encoder.rate:g} seconds"):
        encoder.prepare(noise(encoder, (most + 1) / encoder.rate))


@pytest.mark.parametrize(("family", "least"), [("ast", 400), ("wav2vec2", 40)])
def test_a_sound_too_short_for_one_frame_is_refused(folders: dict[str, Path], family: str, least: int) -> None:
    encoder = AudioEncoder.load(str(folders[family]))
    assert encoder([encoder.prepare(noise(encoder, least / 16000))])[0].shape == (1, 32)
    with pytest.raises(DataError, match=f"too short.*at least {least} samples"):
        encoder.prepare(noise(encoder, (least - 1) / 16000))


@pytest.mark.parametrize("family", ["whisper", "clap", "ast"])
def test_the_cost_follows_the_length_and_never_the_window(folders: dict[str, Path], family: str) -> None:
    encoder = AudioEncoder.load(str(folders[family]))
    costs = [encoder.prepare(noise(encoder, seconds)).cost for seconds in (0.03, 0.1, 0.3, 0.6, 0.9)]
    assert costs == sorted(costs)
    assert costs[-1] >= 8 * costs[0] > 0


@pytest.mark.parametrize("family", ALL)
def test_pooling_averages_frames_and_the_last_one_what_is_left(folders: dict[str, Path], family: str) -> None:
    plain, pooled = AudioEncoder.load(str(folders[family])), AudioEncoder.load(str(folders[family]), pool=7)
    medium = pooled.prepare(noise(pooled, 0.5))
    (frames,), (found,) = plain([plain.prepare(noise(plain, 0.5))]), pooled([medium])
    wanted = torch.stack([one.mean(0) for one in frames.split(7)])
    assert medium.cost == found.shape[0] == -(-HALF[family] // 7)
    torch.testing.assert_close(found, wanted)
    assert plain.facts != pooled.facts


@pytest.mark.parametrize("family", ["whisper", "ast", "wav2vec2"])
def test_a_layer_is_counted_as_the_library_counts(folders: dict[str, Path], family: str) -> None:
    def embeddings(**options: object) -> Tensor:
        encoder = load(folders[family], **options)
        return encoder([encoder.prepare(noise(encoder, 0.5))])[0]

    assert embeddings(layer=-1).equal(embeddings(layer=2))
    assert embeddings(layer=-3).equal(embeddings(layer=0))
    assert not torch.allclose(embeddings(layer=1), embeddings(layer=2))
    assert embeddings(layer=1).shape == (HALF[family], 32)


def test_stereo_is_averaged(folders: dict[str, Path]) -> None:
    encoder = AudioEncoder.load(str(folders["whisper"]))
    samples = noise(encoder, 0.5).tensor
    both = Content(modality="audio", tensor=torch.cat([samples * 1.5, samples * 0.5]), rate=16000.0)
    torch.testing.assert_close(
        encoder.prepare(both).tensors["input_features"], encoder.prepare(noise(encoder, 0.5)).tensors["input_features"]
    )


@pytest.mark.parametrize("family", ALL)
def test_a_file_reaches_the_tower_at_its_rate(folders: dict[str, Path], family: str) -> None:
    encoder, modality = AudioEncoder.load(str(folders[family])), AudioModality()
    part = modality.read({"type": "audio", "audio": torch.rand(4000)}, root=None)  # one second at 4 kHz
    content = modality.decode(part, AudioSettings(), rate=encoder.rate)
    assert encoder([encoder.prepare(content)])[0].shape[1] == encoder.width


@pytest.mark.parametrize("family", ALL)
def test_gradients_reach_the_tower_where_it_trains(folders: dict[str, Path], family: str) -> None:
    encoder = AudioEncoder.load(str(folders[family]))
    assert not encoder.frozen
    encoder([encoder.prepare(noise(encoder, 0.5))])[0].square().sum().backward()
    assert all(one.grad is not None for name, one in encoder.named_parameters() if "layers.0" in name)
    assert not encoder.requires_grad_(False)([encoder.prepare(noise(encoder, 0.5))])[0].requires_grad
    assert encoder.frozen


@pytest.mark.parametrize("family", ALL)
def test_the_random_state_of_the_caller_is_untouched(folders: dict[str, Path], family: str, tmp_path: Path) -> None:
    def state() -> tuple[object, ...]:
        return torch.get_rng_state().tolist(), pickle.dumps(np.random.get_state()), random.getstate()

    before = state()
    tiny_audio(tmp_path / "again", family)
    encoder = AudioEncoder.load(str(tmp_path / "again"))
    encoder.prepare(noise(encoder, 0.5))
    assert state() == before
    one, other = (load_file(folder / "model.safetensors") for folder in (tmp_path / "again", folders[family]))
    assert all(one[name].equal(other[name]) for name in one)  # the same seed, the same weights


def test_weights_are_cast_where_that_is_asked_for(folders: dict[str, Path]) -> None:
    encoder = AudioEncoder.load(str(folders["whisper"]), dtype=torch.bfloat16)
    (found,) = encoder([encoder.prepare(noise(encoder, 0.5))])
    (exact,) = (plain := AudioEncoder.load(str(folders["whisper"])))([plain.prepare(noise(plain, 0.5))])
    assert found.dtype == torch.bfloat16
    assert (found.float() - exact).norm() < 0.05 * exact.norm()


def test_content_that_is_no_sound_at_its_rate_is_refused(folders: dict[str, Path]) -> None:
    encoder = AudioEncoder.load(str(folders["whisper"]))
    samples = torch.zeros(1, 8000)
    for content, error, says in (
        (Content(modality="picture", tensor=samples, rate=16000.0), ShapeError, "takes a sound"),
        (Content(modality="audio", tensor=samples[0], rate=16000.0), ShapeError, '"c n"'),
        (Content(modality="audio", tensor=samples.to(torch.int16), rate=16000.0), ShapeError, "floats"),
        (Content(modality="audio", tensor=samples, rate=8000.0), ModelError, "16000 samples per second; found: 8000"),
        (Content(modality="audio", tensor=samples), ModelError, "found: samples without a rate"),
    ):
        with pytest.raises(error, match=says):
            encoder.prepare(content)
