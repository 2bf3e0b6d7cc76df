"""When the frames of a clip are: what the families that read times are told, and what they make of it."""

import re
from pathlib import Path
from typing import cast

import pytest
import torch

from modalign.comparison import Comparison
from modalign.content import Part
from modalign.errors import DataError
from modalign.model import Model
from modalign.roles import Content, Encoded
from modalign_text.multimodal.assembly import MultimodalAssembly
from modalign_text.multimodal.cases import answer, loaded, message
from modalign_text.multimodal.given import given_of

#: the families that have one number for the times of a clip, and its name
PER_GRID = {
    "qwen2_5_vl": "second_per_grid_ts",
    "qwen2_5_omni_thinker": "video_second_per_grid",
    "qwen3_omni_moe_thinker": "video_second_per_grid",
}
#: 20 seconds, 5 frames each
CLIP = Part(
    modality="video",
    value=torch.rand(100, 3, 40, 40, generator=torch.Generator().manual_seed(0)),
    facts={"fps": 5.0},
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def told(folder: Path, family: str, **video: object) -> tuple[Model, Encoded]:
    """A model with settings of clips, and what it makes of a row with the clip."""
    model = loaded(folder, family, media={"video": video})
    pair = Comparison.pair([message("user", "look: ", CLIP, " what?")], answer("a dog"), answer("no"))
    return model, model.assembly.preparer.encode(pair)[0]


def written(model: Model) -> str:
    return cast(MultimodalAssembly, model.assembly).writer.expand("<video>", [CLIP]).text


@pytest.mark.parametrize(("family", "name"), PER_GRID.items())
def test_seconds_of_the_grid_and_positions_follow_the_rate(folder: Path, family: str, name: str) -> None:
    rows = {rate: told(folder, family, fps=rate)[1] for rate in (0.25, 0.5)}
    for rate, one in rows.items():
        (medium,) = one.media.values()
        # a grid is two frames
        torch.testing.assert_close(medium.tensors[name].double(), torch.tensor([2 / rate]).double())
    # 20 seconds at either rate, in 3 and 5 grids, of which the last begins after 16
    assert length(rows[0.25]) == pytest.approx(length(rows[0.5]), abs=1)
    again = told(folder, family, times=(0.0, 1.0, 2.0, 3.0))[1]
    (medium,), (other,) = rows[0.5].media.values(), again.media.values()
    assert medium.tensors[name] == 2 * other.tensors[name]  # a frame in two seconds, and one in each
    assert length(again) < length(rows[0.5]) / 4  # 2 grids, of which the last begins after 2


def length(one: Encoded) -> int:
    """From the first to the last position in time that a clip takes."""
    (slot,) = one.slots
    time = cast(torch.Tensor, one.positions)[1, slot.start : slot.stop]
    return int(time.max() - time.min())


@pytest.mark.parametrize(("family", "name"), PER_GRID.items())
@pytest.mark.parametrize("begin", [0.0, 6.5])
def test_even_times_are_a_rate(folder: Path, family: str, name: str, begin: float) -> None:
    # frames start every 0.2 s: those shown at these times are not evenly spaced, what was asked for is
    times = tuple(begin + 0.5 * number for number in range(6))
    one = told(folder, family, times=times)[1]
    even = told(folder, family, fps=2.0)[1]
    (medium,), (other,) = one.media.values(), even.media.values()
    torch.testing.assert_close(medium.tensors[name], other.tensors[name])


@pytest.mark.parametrize("family", PER_GRID)
def test_uneven_times_are_refused_where_a_family_has_one_rate(folder: Path, family: str) -> None:
    with pytest.raises(DataError, match="at even distances only") as found:
        told(folder, family, times=(0.0, 1.0, 5.0))
    assert "0, 1, 5" in str(found.value.got)
    assert "model.media.video.times" in str(found.value.fix)


def test_one_time_needs_no_rate(folder: Path) -> None:
    _, one = told(folder, "qwen2_5_vl", times=(7.0,))
    assert one.positions is not None


@pytest.mark.parametrize(
    ("video", "stamps"),
    [
        ({"times": (0.0, 1.0, 5.0, 13.0)}, ["00:00", "00:01", "00:05", "00:13"]),
        ({"times": (2.0, 4.0, 6.0)}, ["00:02", "00:04", "00:06"]),
        ({"fps": 0.25}, ["00:00", "00:04", "00:08", "00:12", "00:16"]),
        ({"frames": 2}, ["00:05", "00:15"]),  # the middle of each half
    ],
)
def test_a_family_that_writes_times_writes_those_of_the_frames(
    folder: Path, video: dict[str, object], stamps: list[str]
) -> None:
    model, _ = told(folder, "smolvlm", **video)
    text = written(model)
    assert re.findall(r"(\d\d:\d\d):", text) == stamps
    assert "0:00:20" in text  # the clip's length


def test_times_are_said_in_milliseconds() -> None:
    clip = Content(modality="video", tensor=torch.zeros(3, 3, 8, 8), rate=4.0, times=(0.1, 0.35, 0.6), seconds=0.75)
    _, settings = given_of(clip)
    said = cast("dict[str, object]", settings["videos_kwargs"])
    (metadata,) = cast("list[dict[str, object]]", said["video_metadata"])
    assert metadata["frames_indices"] == [100, 350, 600]
    assert metadata["fps"] == 1000
    assert metadata["total_num_frames"] == 750  # 3 frames of a quarter of a second
    assert (said["fps"], metadata["duration"]) == (4.0, 0.75)
