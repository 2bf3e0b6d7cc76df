"""Clips decoded: the frames that were asked for, in the order and at the times in which they are shown."""

from __future__ import annotations

import math
import re

import pytest
import torch
from pydantic import ValidationError

from modalign.content import Part
from modalign.errors import DataError, MissingExtra, ModelError
from modalign.roles import MediaSettings
from modalign.world import Concept
from modalign_video.config import VideoSettings
from modalign_video.modality import VideoModality
from modalign_video.sampling import exact_rate
from modalign_video.testing import numbered_clip, numbered_frames, numbers_in
from modalign_video.torchcodec_frames import broken
from modalign_video.world import VideoDepiction

MODALITY = VideoModality()
CLIP = numbered_clip(30)  # 10 frames per second, a keyframe at every eighth
MKV = {"container": "matroska", "codec": "mpeg4", "options": {"g": "1"}}  # every frame alone, decoded as it comes
TORCHCODEC = pytest.mark.skipif(broken() is not None, reason=f"torchcodec does not work here: {broken()}")


def decode(value, *, facts=None, rate=None, **settings):
    return MODALITY.decode(Part(modality="video", value=value, facts=facts or {}), VideoSettings(**settings), rate=rate)


def numbers(value, **settings):
    return numbers_in(decode(value, **settings).tensor)


def test_as_many_frames_as_a_clip_has_are_all_of_its_frames():
    content = decode(CLIP, frames=30)
    assert numbers_in(content.tensor) == list(range(30))
    assert content.tensor.dtype == torch.uint8
    assert content.times == pytest.approx([number / 10 for number in range(30)])
    assert (content.rate, content.seconds) == (10.0, 3.0)


def test_fewer_frames_lie_in_the_middle_of_equal_spans():
    # spans of 3 s / 4 = 0.75 s: middles at 0.375, 1.125, 1.875, 2.625 s, when frames 3, 11, 18, 26 are shown
    assert numbers(CLIP, frames=4) == [3, 11, 18, 26]
    assert decode(CLIP).tensor.shape == (8, 3, 16, 64)  # where nothing is said


def test_more_frames_than_a_clip_has_repeat_some():
    # 60 spans of 0.05 s: two for each frame of 0.1 s
    assert numbers(CLIP, frames=60) == [number // 2 for number in range(60)]


def test_a_rate_takes_the_frames_that_are_shown_at_its_ticks():
    # 4 per second: at 0, 0.25, 0.5 ... s, of 10 frames per second
    content = decode(CLIP, fps=4)
    assert numbers_in(content.tensor) == [0, 2, 5, 7, 10, 12, 15, 17, 20, 22, 25, 27]
    assert content.rate == 4.0


def test_the_rate_of_a_model_wins_over_the_settings():
    content = decode(CLIP, frames=3, rate=2.0)
    assert numbers_in(content.tensor) == [0, 5, 10, 15, 20, 25]
    assert content.rate == 2.0
    with pytest.raises(ModelError, match="above 0"):
        decode(CLIP, rate=0.0)


def test_times_take_the_frames_that_are_shown_then():
    content = decode(CLIP, times=(0.0, 0.09, 0.1, 2.999))
    assert numbers_in(content.tensor) == [0, 0, 1, 29]
    assert content.rate is None
    with pytest.raises(DataError, match=r"field=times: a time after the clip's end; found: 3 of 3 seconds"):
        decode(CLIP, times=(3.0,))


@pytest.mark.parametrize(
    "settings",
    [
        {"frames": 8, "fps": 2.0},
        {"fps": 2.0, "times": (1.0,)},
        {"times": (2.0, 1.0)},
        {"times": ()},
        {"times": (math.nan,)},
        {"fps": math.inf},
        {"fps": 0.0},
        {"frames": 0},
        {"longest_edge": 8, "shortest_edge": 8},
        {"formats": ("hls",)},
        {"backend": "opencv"},
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings):
    with pytest.raises(ValidationError):
        VideoSettings(**settings)


def test_settings_survive_being_written_down():
    for settings in (VideoSettings(), VideoSettings(fps=2.0), VideoSettings(times=(1.0,))):
        assert VideoSettings.model_validate(settings.model_dump()) == settings


def test_other_settings_are_refused():
    with pytest.raises(ModelError, match="VideoSettings"):
        MODALITY.decode(Part(modality="video", value=CLIP), MediaSettings())


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        *(("mp4", "libx264"), ("mov", "libx264"), ("matroska", "libx264"), ("avi", "libx264"), ("mpegts", "libx264")),
        *(("webm", "libvpx-vp9"), ("matroska", "ffv1"), ("avi", "mjpeg"), ("mpegts", "mpeg2video"), ("gif", "gif")),
    ],
)
def test_every_container_gives_every_frame_in_order(container, codec):
    rate = 25 if codec == "mpeg2video" else 10
    clip = numbered_clip(12, rate=rate, container=container, codec=codec)
    content = decode(clip, frames=12)
    assert numbers_in(content.tensor) == list(range(12))
    # a container's times are whole thousandths or hundredths of a second at worst
    assert content.times == pytest.approx([number / rate for number in range(12)], abs=0.006)


@TORCHCODEC
@pytest.mark.parametrize("settings", [{"frames": 30}, {"fps": 3.0}, {"frames": 5, "longest_edge": 32}])
@pytest.mark.parametrize("made", [{}, {"turned": 90}, {"container": "matroska"}, {"codec": "libvpx-vp9"}])
def test_both_backends_give_the_same_bits(made, settings):
    clip = numbered_clip(30, **made)
    one, other = (decode(clip, backend=backend, **settings) for backend in ("pyav", "torchcodec"))
    assert one.tensor.equal(other.tensor)
    assert (one.times, one.rate, one.seconds) == (other.times, other.rate, other.seconds)


@TORCHCODEC
def test_torchcodec_asked_for_by_name_says_what_it_cannot_decode():
    with pytest.raises(ModelError, match="mirrored"):
        decode(numbered_clip(4, mirrored=True), backend="torchcodec")
    assert decode(numbered_clip(4, mirrored=True), backend="auto").tensor.shape[0] == 8


def test_a_backend_that_was_asked_for_and_does_not_work_is_an_error(monkeypatch):
    monkeypatch.setattr("modalign_video.torchcodec_frames.broken", lambda: "no FFmpeg")
    with pytest.raises(MissingExtra, match=r"torchcodec was asked for.*no FFmpeg.*pyav"):
        decode(CLIP, backend="torchcodec")
    assert numbers(CLIP, frames=2) == [7, 22]  # 0.75 and 2.25 s


def test_leaps_to_keyframes_give_what_reading_through_gives():
    clip = numbered_clip(400, options={"g": "8", "bf": "3"})
    for number in (0, 7, 8, 9, 199, 392, 399):
        assert numbers(clip, backend="pyav", times=(number / 10 + 0.05,)) == [number]
    # 40 seconds: reading through would decode them all, and these limits would not let it
    assert numbers(clip, backend="pyav", max_frames=40, times=(1.05, 38.05)) == [10, 380]
    with pytest.raises(DataError, match="more than 40 to decode"):
        decode(clip, backend="pyav", max_frames=40, frames=400)


def test_frames_of_a_varying_rate_are_taken_by_time():
    clip = numbered_clip(6, ticks=[0, 40, 50, 300, 1000, 1040], **MKV)
    assert numbers(clip, times=(0.039, 0.045, 0.29, 0.3, 0.999, 1.02, 1.05)) == [0, 1, 2, 3, 3, 4, 5]
    assert numbers(clip, fps=4) == [0, 2, 3, 3, 4]  # at 0, 0.25, 0.5, 0.75, 1 s


def test_rounded_times_do_not_take_the_frame_before():
    # 30 per second in thousandths: frame 2 at 0.067 s, later than 2/30 = 0.0667 s
    assert numbers(numbered_clip(30, rate=30, container="matroska"), fps=30) == list(range(30))
    assert exact_rate(23.976023976) * 1001 == 24000


@pytest.mark.parametrize(("turned", "turns"), [(90, 1), (180, 2), (270, 3)])
def test_a_turned_clip_is_turned_back(turned, turns):
    found = decode(numbered_clip(2, turned=turned), frames=2).tensor
    assert numbers_in(found.rot90(-turns, (2, 3))) == [0, 1]


def test_a_mirrored_clip_is_mirrored_back():
    found = decode(numbered_clip(2, mirrored=True), frames=2).tensor
    assert numbers_in(found.flip(3)) == [0, 1]
    assert numbers_in(found) != [0, 1]


# --- times that are broken -------------------------------------------------------------------------


def test_frames_out_of_order_are_sorted_by_time_or_refused():
    clip = numbered_clip(6, ticks=[100, 50, 200, 150, 300, 250], **MKV)
    # frame 1 comes first, at 0.05 s; then 0, 3, 2, 5, 4
    assert numbers(clip, times=(0, 0.05, 0.1, 0.15, 0.2, 0.25)) == [1, 0, 3, 2, 5, 4]
    with pytest.raises(
        DataError, match="field=video: a clip whose frames have broken times; found: a frame at tick 50"
    ):
        decode(clip, timestamps="error")


def test_of_frames_at_one_time_the_first_is_taken_or_they_are_refused():
    clip = numbered_clip(6, ticks=[10, 10, 20, 20, 30, 40], **MKV)
    assert numbers(clip, times=(0, 0.01, 0.02, 0.03)) == [0, 2, 4, 5]
    with pytest.raises(DataError, match="with the time of another: 2"):
        decode(clip, timestamps="error")


def test_frames_without_times_are_evenly_spaced_or_refused():
    clip = without_times(numbered_clip(12, container="mpegts"))
    content = decode(clip, frames=12)
    assert numbers_in(content.tensor) == list(range(12))
    assert content.times == pytest.approx([number / 10 for number in range(12)])
    with pytest.raises(DataError, match="without a time: 12"):
        decode(clip, timestamps="error")


def without_times(clip):
    """A transport stream whose packets say that they have no times (ISO/IEC 13818-1, 2.4.3.6: PTS_DTS_flags)."""
    edited = bytearray(clip)
    for found in re.finditer(rb"\x00\x00\x01[\xe0-\xef]..[\x80-\x8f]", clip, re.DOTALL):
        edited[found.end()] &= 0x3F
    return bytes(edited)


def test_the_same_clip_is_sampled_the_same_way_every_time():
    clip = numbered_clip(6, ticks=[100, 50, 200, 150, 300, 250], **MKV)
    assert decode(clip).tensor.equal(decode(clip).tensor)


# --- stretches, sizes, sounds -----------------------------------------------------------------------


def test_a_stretch_is_sampled_as_if_it_were_the_clip():
    content = decode(CLIP, facts={"start": 1.0, "end": 2.0}, frames=5)
    assert numbers_in(content.tensor) == [11, 13, 15, 17, 19]  # middles of spans of 0.2 s from 1 s on
    assert (content.rate, content.seconds) == (5.0, 3.0)
    assert numbers(CLIP, facts={"start": 2.5}, fps=10) == [25, 26, 27, 28, 29]


def test_a_stretch_behind_the_end_is_refused():
    for facts, field in (({"start": 3.0}, "start"), ({"end": 3.2}, "end")):
        with pytest.raises(DataError, match=f"field={field}"):
            decode(CLIP, facts=facts)
    assert decode(CLIP, facts={"end": 3.05}, fps=10).tensor.shape[0] == 30  # annotations are rounded


def test_frames_are_resized_as_they_are_decoded():
    assert decode(CLIP, frames=2, longest_edge=32).tensor.shape == (2, 3, 8, 32)
    assert decode(CLIP, frames=2, shortest_edge=32).tensor.shape == (2, 3, 32, 128)
    assert decode(numbered_frames([1, 2]), frames=2, longest_edge=32).tensor.shape == (2, 3, 8, 32)


def test_sound_keeps_to_its_frames():
    tone = [math.sin(number / 3) / 2 for number in range(16000)]
    silence = [0.0] * 8000
    clip = numbered_clip(30, sound=[*silence, *tone])  # silent in its first second
    heard = decode(clip, frames=3, audio=True).tracks["audio"]
    assert (heard.modality, heard.rate, heard.tensor.shape) == ("audio", 8000.0, (1, 24000))
    assert heard.tensor[0, :7500].abs().max() < 0.02
    assert heard.tensor[0, 8500:].square().mean().sqrt().item() == pytest.approx(0.5 / math.sqrt(2), rel=0.05)
    cut = decode(clip, facts={"start": 0.5, "end": 1.5}, frames=3, audio=True).tracks["audio"]
    assert cut.tensor.equal(heard.tensor[:, 4000:12000])


def test_a_clip_without_sound_gives_none():
    assert decode(CLIP, audio=True).tracks == {}
    assert decode(numbered_clip(3, sound=[0.0] * 4000)).tracks == {}  # where it is not asked for


def test_frames_in_memory_are_sampled_by_their_rate():
    clip = numbered_frames(range(16))
    assert numbers(clip, frames=4) == [2, 6, 10, 14]
    assert decode(clip).seconds == 2.0  # at the oracle world's 8 frames per second
    content = decode(clip, facts={"fps": 4.0, "start": 1.0}, fps=2.0)
    assert numbers_in(content.tensor) == [4, 6, 8, 10, 12, 14]
    assert content.times == (1.0, 1.5, 2.0, 2.5, 3.0, 3.5)


def test_a_clip_of_the_oracle_world_is_decoded_whole():
    part = VideoDepiction().depict(Concept(colour="red", motion="left"))
    assert isinstance(part.value, torch.Tensor)
    content = MODALITY.decode(part, VideoSettings())
    assert content.tensor.equal((part.value * 255).round().byte())
    assert content.rate == 8.0
