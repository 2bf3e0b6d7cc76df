"""Clips are taken at the model's own rate and length, and those that do not fit are refused in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from modalign.comparison import Comparison
from modalign.config import AdapterConfig, GenerationConfig
from modalign.content import Message, Part, Response
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.decoders.generating import FITTED
from modalign.draws import Draws
from modalign.errors import ConfigError, DataError, ModelError
from modalign.integrations.diffusers.denoiser import PipelineDenoiser
from modalign.loading import load
from modalign.objectives import DPO
from modalign.roles import Content
from modalign.world.source import words_modality
from modalign_video.config import VideoSettings
from modalign_video.generators import testing
from modalign_video.generators.base import ClipFit, VideoFamily
from modalign_video.generators.cases import CASES, laws
from modalign_video.modality import VideoModality
from modalign_video.testing import BREADTH, HEIGHT, numbered_clip, numbered_frames, numbers_in

# Schedulers of diffusers 0.42.1 make an array of a tensor, which torch 2.14 answers as numpy before 2.0 asked it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

FIT = ClipFit(height=HEIGHT, width=BREADTH, frames=5, fps=8, step=4)


def in_memory(frames: int, *, fps: float = 8) -> Part:
    """A clip whose frames show their number."""
    return Part(modality="video", value=numbered_frames(range(frames)), facts={"fps": fps})


def decoded(part: Part, *, rate: float = 8) -> Content:
    return VideoModality().decode(part, VideoSettings(), rate=rate)


def blank(frames: int, height: int = HEIGHT, width: int = BREADTH) -> Content:
    return Content(modality="video", tensor=torch.zeros(frames, 3, height, width, dtype=torch.uint8), rate=8)


def pair(chosen: Part, rejected: Part) -> Comparison:
    answers = [Response(messages=(Message(role="assistant", parts=(one,)),)) for one in (chosen, rejected)]
    return Comparison.pair([Message(role="user", parts=(Part(modality=words_modality(), value="numbers"),))], *answers)


def family_of(folder: Path, options: Mapping[str, object] | None = None) -> VideoFamily:
    decoder = cast(DenoisingDecoder, load(str(folder), options=dict(options or {})).decoders["video"])
    return cast(VideoFamily, cast(PipelineDenoiser, decoder.denoiser).family)


@pytest.fixture(scope="module")
def wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return testing.wan(tmp_path_factory.mktemp("wan"))


@pytest.fixture(scope="module")
def cogvideox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return testing.cogvideox(tmp_path_factory.mktemp("cogvideox"))


# --- which frames are taken -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "numbers"),
    [
        (8, [0, 1, 2, 3, 4]),
        (24, [0, 3, 6, 9, 12]),
        (12, [0, 1, 3, 4, 6]),  # at 0, 1.5, 3, 4.5 and 6 frames
        (4, [0, 0, 1, 1, 2]),  # each is shown for two of the model's
    ],
)
def test_the_first_frames_are_taken_at_the_models_rate(fps: float, numbers: list[int]) -> None:
    fitted = FIT(decoded(in_memory(30, fps=fps)))
    assert fitted.dtype == torch.uint8
    assert fitted.shape == (5, 3, HEIGHT, BREADTH)
    assert numbers_in(fitted) == numbers


def test_encoded_clips_are_taken_at_the_models_rate() -> None:
    content = decoded(Part(modality="video", value=numbered_clip(30, rate=16)))
    assert numbers_in(FIT(content)) == [0, 2, 4, 6, 8]


def test_a_stretch_of_a_clip_is_taken_from_its_start() -> None:
    part = Part(modality="video", value=numbered_frames(range(30)), facts={"fps": 8.0, "start": 1.0, "end": 2.0})
    assert numbers_in(FIT(decoded(part))) == [8, 9, 10, 11, 12]


def test_preparers_decode_at_the_models_rate(wan: Path) -> None:
    options = {"height": HEIGHT, "width": BREADTH, "num_frames": 5, "fps": 2}
    rows = pair(in_memory(20, fps=8), in_memory(10, fps=4))
    found = load(str(wan), options=options).assembly.preparer.encode(rows)
    taken = [medium.tensors[FITTED] for one in found for medium in one.media.values() if FITTED in medium.tensors]
    assert [numbers_in(one) for one in taken] == [[0, 4, 8, 12, 16], [0, 2, 4, 6, 8]]


def test_another_rate_is_no_fault_of_the_data() -> None:
    with pytest.raises(ModelError, match="takes clips of 8 frames per second; found: one decoded at 16"):
        FIT(decoded(in_memory(30), rate=16))


# --- how frames are resized -----------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(16, 64), (32, 64), (8, 80), (100, 20)])
def test_every_clip_comes_out_of_the_size_that_is_made(height: int, width: int) -> None:
    assert FIT(blank(6, height, width)).shape == (5, 3, HEIGHT, BREADTH)


def test_frames_are_resized_by_the_shorter_edge_and_the_middle_kept() -> None:
    large = blank(5, 2 * HEIGHT, 4 * BREADTH)
    large.tensor[..., BREADTH : 3 * BREADTH] = 255
    fitted = FIT(large)
    # of the resized 16 by 128 the columns 32 to 95 are white, and 32 to 95 are kept
    assert fitted[..., 2:-2].eq(255).all()


# --- what is refused ------------------------------------------------------------------------------


def test_a_clip_that_is_too_short_is_refused_with_what_would_fit() -> None:
    fit = ClipFit(height=HEIGHT, width=BREADTH, frames=17, fps=8, step=4)
    with pytest.raises(DataError, match="shorter than the 17 frames that are asked for; found: 15 at 8 frames") as why:
        fit(decoded(in_memory(15)))
    assert "num_frames=13" in str(why.value)  # 3 * 4 + 1 of 15


def test_a_clip_shorter_than_one_latent_is_refused() -> None:
    with pytest.raises(DataError, match=r"shorter than the 5 frames .* found: 4 at 8 .* one latent of each 4") as why:
        FIT(decoded(in_memory(4)))
    assert "num_frames" not in str(why.value)


def test_a_clip_that_is_slow_enough_is_not_too_short() -> None:
    assert numbers_in(FIT(decoded(in_memory(3, fps=4)))) == [0, 0, 1, 1, 2]


def test_a_row_with_a_short_clip_is_named_by_field(wan: Path) -> None:
    preparer = load(str(wan), options={"height": HEIGHT, "width": BREADTH, "num_frames": 9, "fps": 8}).assembly.preparer
    with pytest.raises(DataError, match="9 frames that are asked for") as why:
        preparer.encode(pair(in_memory(9), in_memory(8)))
    assert why.value.field == "rejected"


def test_clips_of_about_the_same_length_and_shape_may_be_compared() -> None:
    FIT.check([blank(8), blank(10)])
    FIT.check([blank(8, 16, 64), blank(8, 20, 64)])
    FIT.check([])


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("other", "says"),
    [
        (blank(11), r"differ in length; found: 1.00 to 1.38 seconds; .* first 0.62 seconds"),
        (blank(8, 21, 64), r"differ in shape; found: aspect ratios from 3.05 to 4.00; .* cropped to 64 by 16"),
    ],
)
def test_clips_of_other_lengths_or_shapes_are_refused(other: Content, says: str, swapped: bool) -> None:
    contents = [other, blank(8)] if swapped else [blank(8), other]
    with pytest.raises(DataError, match=says) as why:
        FIT.check(contents)
    assert why.value.field == "rejected"


def test_tolerances_are_settings(wan: Path) -> None:
    options = {"height": 16, "width": 16, "num_frames": 5, "fps": 8}
    rows = pair(in_memory(8), in_memory(20))
    with pytest.raises(DataError, match="differ in length"):
        load(str(wan), options=options).assembly.preparer.encode(rows)
    load(str(wan), options={**options, "length_tolerance": 2.0}).assembly.preparer.encode(rows)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"num_frames": 6}, r"num_frames: .*no clip of that length; found: 6 frames; .*multiple of 4: 5 or 9"),
        ({"num_frames": 0}, "num_frames"),
        ({"fps": 0}, "fps"),
        ({"height": 24}, r"height: .* found: 24 pixels; .*multiple of 16"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, object], says: str, wan: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        load(str(wan), options=options)


def test_an_even_number_of_latents_is_no_clip_of_cogvideox(cogvideox: Path) -> None:
    with pytest.raises(ConfigError, match="multiple of 8: 1 or 9"):
        load(str(cogvideox), options={"num_frames": 5})


def test_a_network_of_fixed_places_reads_prompts_of_one_length(cogvideox: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_sequence_length: .*one length only; found: 8; .*32"):
        load(str(cogvideox), options={"max_sequence_length": 8})


@pytest.mark.parametrize("name", ["frames", "fps", "times"])
def test_frames_are_not_sampled_twice(name: str, wan: Path) -> None:
    asked = {"times": [0.0]}.get(name, 8)
    with pytest.raises(ConfigError, match=rf"model.media.video.{name}: .*own rate"):
        load(str(wan), media={"video": {name: asked}})
    load(str(wan), media={"video": {"backend": "pyav"}})


def test_two_networks_are_not_trained_as_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two networks"):
        load(str(testing.wan(tmp_path, networks=2)))


# --- what models are made for, and write ----------------------------------------------------------


def test_sizes_are_by_default_what_the_network_was_made_for(tmp_path: Path, wan: Path, cogvideox: Path) -> None:
    def of(folder: Path) -> tuple[tuple[int, int], int, float]:
        found = family_of(folder)
        return found.size, found.frames, found.fps

    assert of(wan) == ((480, 832), 81, 16)
    assert of(testing.wan(tmp_path / "5b", expand=True))[2] == 24
    assert of(testing.ltx(tmp_path / "ltx")) == ((512, 704), 161, 25)
    assert of(cogvideox) == ((16, 16), 9, 8)
    assert of(testing.cogvideox(tmp_path / "1.5", rotary=True, deep=2)) == ((16, 16), 9, 16)


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_is_read_as_it_was_asked_for(name: str, tmp_path: Path) -> None:
    case = laws(name, tmp_path)
    family = family_of(case.folder, case.options)
    with torch.no_grad():
        (part,) = family.write(["a red disc"], GenerationConfig(num_inference_steps=2, guidance_scale=3.0), 0)
    clip = cast(Tensor, part.value)
    assert clip.shape == (family.frames, 3, *family.size)
    assert part.facts == {"fps": family.fps}
    assert 0 <= clip.min() < clip.max() <= 1
    back = family.fit(VideoModality().decode(part, VideoSettings(), rate=family.rate))
    assert back.equal((clip * 255).round().byte())


@pytest.mark.parametrize("name", ["wan", "ltx", "cogvideox"])
def test_the_prompt_that_asks_for_nothing_is_what_the_pipeline_guides_away_from(name: str, tmp_path: Path) -> None:
    case = laws(name, tmp_path)
    family = family_of(case.folder, case.options)
    calls: list[Mapping[str, Tensor]] = []
    family.denoise.register_forward_pre_hook(lambda _, args, given: calls.append(given), with_kwargs=True)
    family.write(["a red disc"], GenerationConfig(num_inference_steps=2, guidance_scale=3.0), 0)
    # both in one call, nothing first; or in two, nothing last
    states = [call["encoder_hidden_states"] for call in calls]
    compared = states[0][:1] if states[0].shape[0] == 2 else states[1]
    with torch.no_grad():
        nothing = family.condition([""])
    torch.testing.assert_close(nothing["states"], compared)


@pytest.mark.parametrize("name", ["wan", "ltx", "cogvideox-rotary"])
def test_adapters_in_float32_leave_a_network_in_half_precision(name: str, tmp_path: Path) -> None:
    case = laws(name, tmp_path)
    model = load(str(case.folder), options=case.options, dtype="bfloat16", adapter=AdapterConfig(r=2))
    scores = model(case.batch(model, DPO()), Draws(seed=1))
    scores.logps.sum().backward()
    assert scores.logps.isfinite().all()
    assert {value.dtype for value in model.trainable().values()} == {torch.float32}
