"""Encoders of clips: towers of whole clips, and towers of pictures over frames."""

from __future__ import annotations

import json
from typing import cast

import pytest
import torch
from einops import reduce

from modalign.caching.memo import Memo
from modalign.errors import CheckpointError, ConfigError, ModelError
from modalign.registry import registry
from modalign.roles import Content
from modalign_image.testing import tiny_vision
from modalign_video.encoder import VideoEncoder
from modalign_video.frame_encoder import FrameEncoder, FrameOptions
from modalign_video.testing import tiny_video

KINDS = {"video": "videomae", "frames": "frames-over-clip"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: str(tiny_video(tmp_path_factory.mktemp(kind), family)) for kind, family in KINDS.items()}


def clip(*, seed=0, frames=4, height=40, width=60):
    made = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (frames, 3, height, width), generator=made, dtype=torch.uint8)
    return Content(modality="video", tensor=pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_gives_as_many_embeddings_as_it_says(folders, kind):
    encoder = registry.encoder(kind).load(folders[kind])
    medium = encoder.prepare(clip())
    assert medium.modality == encoder.modality == "video"
    # VideoMAE: 4 / 2 tubelets of 4 by 4 patches; CLIP: 4 frames of 4 by 4 patches
    assert medium.cost == {"video": 2 * 16, "frames": 4 * 16}[kind]
    assert encoder([medium])[0].shape == (medium.cost, encoder.width)


@pytest.mark.parametrize("kind", KINDS)
def test_clips_do_not_change_each_other(folders, kind):
    encoder = registry.encoder(kind).load(folders[kind])
    media = [encoder.prepare(clip(seed=seed, height=height)) for seed, height in ((0, 40), (1, 32), (2, 40))]
    together = encoder(media)
    for medium, embeddings in zip(media, together, strict=True):
        torch.testing.assert_close(embeddings, encoder([medium])[0], rtol=1e-5, atol=1e-5)
    assert not together[0].allclose(together[1])
    for one, other in zip(together, reversed(encoder(media[::-1])), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_saving_and_loading_changes_no_bit(folders, kind, tmp_path):
    options = {"frames": {"pool": "mean", "stride": 2, "spatial": 2, "layer": -1}, "video": {}}[kind]
    encoder = registry.encoder(kind).load(folders[kind], **options)
    encoder.save(tmp_path / "saved")
    again = registry.encoder(kind).load(str(tmp_path / "saved"))
    assert again.facts == encoder.facts
    assert again([again.prepare(clip())])[0].equal(encoder([encoder.prepare(clip())])[0])
    assert not list((tmp_path / "saved").glob("*.bin"))


@pytest.mark.parametrize("kind", KINDS)
def test_passes_are_counted_and_freezing_is_told(folders, kind):
    encoder = registry.encoder(kind).load(folders[kind])
    encoder.memo = Memo()
    medium = encoder.prepare(clip())
    encoder([medium, medium])
    assert encoder.memo.passes == {"video": 2}
    assert not encoder.frozen
    encoder([medium])[0].sum().backward()
    assert any(one.grad is not None and one.grad.abs().max() > 0 for one in encoder.parameters())
    assert encoder.requires_grad_(False).frozen


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoder_of_clips_takes_no_pictures(folders, kind):
    encoder = registry.encoder(kind).load(folders[kind])
    with pytest.raises(ModelError, match="clips; found: image"):
        encoder.prepare(Content(modality="image", tensor=torch.zeros(3, 32, 32, dtype=torch.uint8)))


def test_a_wrong_number_of_frames_names_both_numbers(folders):
    with pytest.raises(ModelError, match=r"exactly 4 frames; found: 7 frames; to mend: set media\.video\.frames to 4"):
        VideoEncoder.load(folders["video"]).prepare(clip(frames=7))


def test_the_library_itself_gives_the_same_embeddings(folders):
    from transformers import VideoMAEModel, VideoMAEVideoProcessor

    encoder = VideoEncoder.load(folders["video"])
    processor = cast(VideoMAEVideoProcessor, VideoMAEVideoProcessor.from_pretrained(folders["video"]))
    pixels = processor([frame.permute(1, 2, 0).numpy() for frame in clip().tensor], return_tensors="pt")
    wanted = VideoMAEModel.from_pretrained(folders["video"])(**pixels).last_hidden_state[0]
    torch.testing.assert_close(encoder([encoder.prepare(clip())])[0], wanted)


def test_frames_are_encoded_as_pictures_are(folders):
    encoder = FrameEncoder.load(folders["frames"])
    pictures = registry.encoder("vision").load(folders["frames"])
    media = [pictures.prepare(Content(modality="image", tensor=frame)) for frame in clip().tensor]
    torch.testing.assert_close(encoder([encoder.prepare(clip())])[0], torch.cat(pictures(media)))


def test_pooling_takes_means_over_time_and_space(folders):
    every = FrameEncoder.load(folders["frames"])
    whole = every([every.prepare(clip())])[0]  # (t i j) d
    cases: tuple[tuple[dict[str, object], str], ...] = (
        ({"pool": "mean"}, "(t i j) d -> (i j) d"),
        ({"spatial": 2}, "(t i down j right) d -> (t i j) d"),
        ({"pool": "mean", "spatial": 2}, "(t i down j right) d -> (i j) d"),
        ({"spatial": 4}, "(t i down j right) d -> (t i j) d"),
    )
    for options, pattern in cases:
        encoder = FrameEncoder(every.inner, FrameOptions.model_validate(options))
        medium = encoder.prepare(clip())
        found = encoder([medium])[0]
        down = encoder.options.spatial
        axes = {"t": 4, "i": 4 // down} | ({"down": down, "right": down, "j": 4 // down} if "down" in pattern else {})
        torch.testing.assert_close(found, reduce(whole, pattern, "mean", **axes))
        assert medium.cost == found.shape[0]


def test_a_factor_that_does_not_divide_averages_what_there_is(folders):
    encoder = FrameEncoder.load(folders["frames"], spatial=3)  # 4 by 4 patches: cells of 3 and 1
    medium = encoder.prepare(clip(frames=1))
    assert medium.cost == 4
    every = FrameEncoder.load(folders["frames"])
    whole = every([every.prepare(clip(frames=1))])[0]
    torch.testing.assert_close(encoder([medium])[0][3], whole[15])  # the last cell is the last patch alone


def test_a_stride_drops_frames_before_the_tower(folders):
    encoder = FrameEncoder.load(folders["frames"], stride=3)
    every = FrameEncoder.load(folders["frames"])
    medium = encoder.prepare(clip(frames=7))
    assert medium.cost == 3 * 16
    kept = Content(modality="video", tensor=clip(frames=7).tensor[[0, 3, 6]])
    assert encoder([medium])[0].equal(every([every.prepare(kept)])[0])


def test_a_class_token_cannot_be_pooled_in_space(folders):
    with pytest.raises(ModelError, match=r"found: 1 embeddings.*spatial to 1"):
        FrameEncoder.load(folders["frames"], spatial=2, select="cls").prepare(clip())
    encoder = FrameEncoder.load(folders["frames"], select="cls")
    assert encoder.prepare(clip()).cost == 4


def test_frames_of_any_shape_are_pooled_by_their_own_grid(tmp_path):
    encoder = FrameEncoder.load(str(tiny_vision(tmp_path, "siglip2")), spatial=2)
    medium = encoder.prepare(clip(height=16, width=64))
    assert medium.cost == encoder([medium])[0].shape[0]
    assert medium.cost < 4 * 16 / 2


@pytest.mark.parametrize(
    ("options", "says"),
    [({"pool": "max"}, "pool"), ({"stride": 0}, "stride"), ({"spatial": -1}, "spatial"), ({"size": 3}, "size")],
)
def test_a_setting_that_frames_do_not_have_is_refused(folders, options, says):
    with pytest.raises(ConfigError, match=says):
        FrameEncoder.load(folders["frames"], **options)


def test_a_setting_that_whole_clips_do_not_have_is_refused(folders):
    with pytest.raises(ConfigError, match="stride"):
        VideoEncoder.load(folders["video"], stride=2)


def test_only_encoders_of_pictures_encode_frames(folders):
    with pytest.raises(ModelError, match="an encoder of video"):
        FrameEncoder(VideoEncoder.load(folders["video"]))


def test_what_is_no_tower_of_clips_is_refused_in_words(folders, tmp_path):
    with pytest.raises(ModelError, match=r"no such folder"):
        VideoEncoder.load(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="encoder `frames`"):
        VideoEncoder.load(folders["frames"])
    with pytest.raises(ModelError, match="complete"):
        VideoEncoder.load(str(tmp_path))


def test_weights_that_are_missing_or_no_safetensors_are_refused(folders, tmp_path):
    folder = tiny_video(tmp_path / "one")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        VideoEncoder.load(str(folder))
    folder = tiny_video(tmp_path / "two")
    (folder / "model.safetensors").write_bytes(b"\x80\x04pickle" * 20)
    with pytest.raises(CheckpointError, match="no safetensors"):
        VideoEncoder.load(str(folder))
    folder = tiny_video(tmp_path / "three")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match="lacks weights"):
        VideoEncoder.load(str(folder))


def test_making_a_tower_leaves_the_random_state_alone(tmp_path):
    before = torch.get_rng_state()
    for number, family in enumerate(KINDS.values()):
        tiny_video(tmp_path / str(number), family)
    assert torch.get_rng_state().equal(before)
