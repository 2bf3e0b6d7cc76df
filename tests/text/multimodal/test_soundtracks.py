"""A clip whose sound is asked for is followed by it: a medium of its own for the models that hear."""

import math
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch

import modalign
from modalign.assembler import Sample, assemble
from modalign.comparison import Comparison
from modalign.content import Part
from modalign.draws import Draws
from modalign.errors import ConfigError
from modalign.model import Model
from modalign.roles import Encoded
from modalign_audio.testing import tiny_audio
from modalign_text.multimodal.cases import answer, loaded, message, whole_logps
from modalign_text.testing import tiny_model
from modalign_video.testing import numbered_clip, tiny_video

TONE = [math.sin(number / 3) / 2 for number in range(16_000)]  # 2 seconds at 8000 Hz
CLIP = Part(modality="video", value=numbered_clip(20, sound=TONE))
HEARD = {"video": {"frames": 4, "audio": True}}
OMNI = ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("heard")


def hearing(folder: Path, kind: str, **media: object) -> Model:
    """A model that takes sounds and clips."""
    if kind != "composed":
        return loaded(folder, kind, media={**HEARD, **media}).eval()
    if not (folder / "words").is_dir():
        tiny_model(folder / "words", scale=4.0)
        tiny_audio(folder / "audio")
        tiny_video(folder / "video")
    encoders = {name: {"path": str(folder / name), "type": name} for name in ("audio", "video")}
    return modalign.load(folder / "words", encoders=encoders, media={**HEARD, **media}).eval()


def pair(clip: Part, *more: Part) -> Comparison:
    return Comparison.pair([message("user", "see ", clip, *more, " what?")], answer("a dog"), answer("no"))


def shown(one: Encoded) -> list[str]:
    """The modalities of a row's media, in reading order."""
    order = dict.fromkeys(slot.digest for slot in sorted(one.slots, key=lambda slot: slot.start))
    return [one.media[digest].modality for digest in order]


def heard(one: Encoded) -> dict[str, torch.Tensor]:
    (medium,) = [medium for medium in one.media.values() if medium.modality == "audio"]
    return dict(medium.tensors)


@pytest.mark.parametrize("kind", [*OMNI, "composed"])
def test_a_clip_is_followed_by_its_sound(kind: str, folder: Path) -> None:
    model = hearing(folder, kind)
    encode = model.assembly.preparer.encode
    one, other = encode(pair(CLIP))
    assert shown(one) == shown(other) == ["video", "audio"]
    assert one.media.keys() == other.media.keys()
    # a row that shows the sound beside the silent clip says the same
    silent = hearing(folder, kind, video={"frames": 4})
    sound = Part(modality="audio", value=_samples(CLIP), facts={"sampling_rate": 8000.0})
    apart = silent.assembly.preparer.encode(pair(CLIP, sound))[0]
    assert one.tokens == apart.tokens
    for name, value in heard(one).items():
        torch.testing.assert_close(value, heard(apart)[name])


@pytest.mark.parametrize("kind", OMNI)
def test_the_sound_is_seen_by_the_model_as_transformers_has_it(kind: str, folder: Path) -> None:
    model = hearing(folder, kind)
    encoded = model.assembly.preparer.encode(pair(CLIP))
    batch = assemble([Sample(comparison=pair(CLIP), encoded=encoded, own=2)], share=True)
    expected = torch.cat([values for one in encoded for values in whole_logps(model, one)])
    with torch.no_grad():
        found = model(batch, Draws()).units["text"].values
    torch.testing.assert_close(found.double(), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("kind", [OMNI[0], "composed"])
def test_the_digest_of_a_sound_follows_from_its_clip(kind: str, folder: Path) -> None:
    encode = hearing(folder, kind).assembly.preparer.encode
    parts = (
        CLIP,
        CLIP,
        replace(CLIP, facts={"start": 1.0}),
        Part(modality="video", value=numbered_clip(8, sound=TONE)),
    )
    digests = [set(encode(pair(part))[0].media) for part in parts]
    assert all(len(each) == 2 for each in digests)
    assert digests[0] == digests[1]
    assert not digests[0] & digests[2]
    assert not digests[0] & digests[3]


def test_a_clip_shown_again_has_its_sound_again(folder: Path) -> None:
    model = hearing(folder, OMNI[0])
    prompt = [message("user", CLIP, "this"), message("assistant", "a dog"), message("user", "again ", CLIP)]
    one = model.assembly.preparer.encode(Comparison.pair(prompt, answer("yes"), answer("no", CLIP)))[1]
    starts = {name: [s.start for s in one.slots if one.media[s.digest].modality == name] for name in ("video", "audio")}
    assert len(one.media) == 2
    assert len(starts["video"]) == len(starts["audio"]) == 3
    in_turn = [at for both in zip(starts["video"], starts["audio"], strict=True) for at in both]
    assert in_turn == sorted(in_turn)


def test_clips_without_a_track_have_none(folder: Path) -> None:
    model = hearing(folder, OMNI[0])
    memory = Part(modality="video", value=torch.rand(4, 3, 40, 40), facts={"fps": 2.0})
    for clip in (Part(modality="video", value=numbered_clip(10)), memory):
        assert shown(model.assembly.preparer.encode(pair(clip))[0]) == ["video"]


@pytest.mark.parametrize("kind", [OMNI[1], "composed"])
def test_answers_are_written_of_what_is_heard(kind: str, folder: Path) -> None:
    prompt = pair(CLIP).prompt
    one = hearing(folder, kind).assembly.preparer.prompt(prompt)  # type: ignore[attr-defined]
    assert shown(one) == ["video", "audio"]
    assert len(hearing(folder, kind).generate([prompt], max_new_tokens=3)) == 1


def test_a_model_that_does_not_hear_refuses_the_setting(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"Qwen2_5_VLForConditionalGeneration takes no audio.*text, image, video"
    ) as at:
        loaded(folder, "qwen2_5_vl", media=HEARD)
    assert at.value.where == "model.media.video.audio"
    hearing(folder, "composed")
    encoders = {"video": {"path": str(folder / "video"), "type": "video"}}
    with pytest.raises(ConfigError, match="LlamaForCausalLM takes no audio"):
        modalign.load(folder / "words", encoders=encoders, media=HEARD)


def _samples(clip: Part) -> torch.Tensor:
    """The track of a clip as its plugin decodes it."""
    from modalign.registry import registry
    from modalign_video.config import VideoSettings

    content = registry.modality("video").decode(clip, VideoSettings(frames=1, audio=True))
    return cast(torch.Tensor, content.tracks["audio"].tensor)
