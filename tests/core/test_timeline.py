"""Spans of time: which latents they are, what is counted of them, and rows that say them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import final

import pytest
import torch
from torch import Tensor, nn

from modalign.assembler import encode
from modalign.batch import Batch, Medium, Segment, Targets
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.data import convert, read
from modalign.decoders.denoiser import Denoiser, DenoisingDecoder
from modalign.decoders.readers import Condition
from modalign.denoising import Process
from modalign.draws import DrawKey, Draws
from modalign.errors import DataError
from modalign.layout import Layout
from modalign.objectives import DPO
from modalign.scores import Units
from modalign.testing import ask, toy_model
from modalign.timeline import Spans, Timeline

# --- when latents are ----------------------------------------------------------------------------------------------


def test_a_latent_counts_by_the_share_of_its_seconds() -> None:
    line = Timeline(axis=0, each=0.5, first=0.25)
    assert line.times(3) == [(0.0, 0.25), (0.25, 0.75), (0.75, 1.25)]
    assert line.shares(((0.0, 0.5),), 3).tolist() == [1.0, 0.5, 0.0]
    assert line.shares(((0.125, 0.375), (1.0, 9.0)), 3).tolist() == [0.5, 0.25, 0.5]


def test_a_first_latent_that_stands_there_again_is_of_the_same_time() -> None:
    line = Timeline(axis=0, each=0.5, first=0.25, again=1)
    assert line.times(4) == [(0.0, 0.25), (0.0, 0.25), (0.25, 0.75), (0.75, 1.25)]
    assert line.shares(((0.0, 0.25),), 4).tolist() == [1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize("cuts", [(0.3,), (0.1, 0.2, 0.77), (1 / 3, 2 / 3)])
def test_spans_that_complement_one_another_add_up_to_the_whole(cuts: tuple[float, ...]) -> None:
    line, edges = Timeline(axis=0, each=0.2, first=0.1), [0.0, *cuts, 1.1]
    pieces = list(pairwise(edges))
    total = sum(line.shares((piece,), 6) for piece in pieces)
    torch.testing.assert_close(total, torch.ones(6, dtype=torch.float64), rtol=1e-12, atol=0)
    some, others = line.shares(tuple(pieces[::2]), 6), line.shares(tuple(pieces[1::2]), 6)
    torch.testing.assert_close(some + others, torch.ones(6, dtype=torch.float64), rtol=1e-12, atol=0)


def test_what_overlaps_counts_once() -> None:
    line = Timeline(axis=0, each=1.0)
    assert line.shares(((0.0, 1.5), (0.5, 1.0), (1.25, 2.0)), 3).tolist() == [1.0, 1.0, 0.0]


def test_where_nothing_is_scored_an_error_says_how_long_it_is() -> None:
    with pytest.raises(DataError, match=r"no second .* is scored; found: spans 3 to 4, and 3 seconds"):
        Timeline(axis=0, each=1.0).shares(((3.0, 4.0),), 3)


def test_weights_lie_along_time() -> None:
    found = Timeline(axis=1, each=1.0).weights(((0.0, 1.0),), (4, 2, 3))
    assert found.shape == (1, 2, 1)
    assert found.flatten().tolist() == [1.0, 0.0]


# --- what a decoder counts -----------------------------------------------------------------------------------------

CHANNELS, FRAMES, EACH = 3, 4, 0.5
WHOLE = FRAMES * EACH


@final
class Timed(Denoiser):
    """Predicts half the noisy latents ``c t``, which are the medium; a latent is half a second."""

    def __init__(self, *, timed: bool = True) -> None:
        super().__init__()
        self.process = Process(prediction="flow")
        self.network = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.network.weight, 0.5)
        self.timed = timed

    @property
    def timeline(self) -> Timeline:
        return Timeline(axis=1, each=EACH) if self.timed else super().timeline

    def latents(self, media: Sequence[Medium]) -> list[Tensor]:
        return [one.tensors["value"] for one in media]

    def conditions(self, prompts: Sequence[Medium]) -> list[Condition]:
        return [{} for _ in prompts]

    def nothing(self) -> Medium:
        return Medium(modality="words", tensors={}, digest="nothing")

    def forward(self, noisy: Tensor, time: Tensor, condition: Condition) -> Tensor:
        return self.network(noisy[..., None])[..., 0]


def batch(*spans: Spans, one_row: bool = False) -> Batch:
    """A response for each of these; of one row all have the same draws and the same medium."""
    media = {
        f"m{number}": Medium(modality="m", tensors={"value": torch.full((CHANNELS, FRAMES), 1.0 + number)})
        for number in range(1 if one_row else len(spans))
    }
    media["asked"] = Medium(modality="words", tensors={}, digest="asked")
    segments = tuple(
        Segment(
            response=number,
            modality="m",
            decoder="m",
            kind="draw",
            key=DrawKey(comparison="row" if one_row else f"row-{number}", modality="m", occurrence=0),
            digest="m0" if one_row else f"m{number}",
            given="asked",
            spans=one,
        )
        for number, one in enumerate(spans)
    )
    own = torch.arange(len(spans))
    return Batch(
        tokens=torch.zeros(len(spans), 0, dtype=torch.long),
        layout=Layout((), rows=len(spans), width=0),
        segments=segments,
        units={},
        ends=torch.zeros(len(spans), 2, dtype=torch.long),
        targets=Targets(pairs=torch.zeros(0, 2, dtype=torch.long), own=own, weights=torch.ones(len(spans)), group=own),
        media={name: replace(one, digest=name) for name, one in media.items()},
    )


def score(given: Batch, denoiser: Timed | None = None) -> Units:
    return DenoisingDecoder(denoiser or Timed(), modality="m")(None, given, Draws(seed=3, count=2))


def dims(units: Units) -> list[float]:
    assert units.dims is not None
    return units.dims.tolist()


def test_spans_of_everything_are_the_whole_to_the_last_bit() -> None:
    whole, longer, pieces = ((0.0, WHOLE),), ((0.0, 99.0),), ((0.0, 0.7), (0.7, WHOLE))
    found = score(batch((), whole, longer, pieces, one_row=True))
    first, *others = found.values.reshape(4, 2)
    assert all(one.equal(first) for one in others)
    assert first.equal(score(batch(())).values.reshape(1, 2)[0]) is False  # another row has other draws
    assert first.equal(score(batch((), one_row=True)).values)
    assert dims(found) == [CHANNELS * FRAMES] * 8


def test_complementary_spans_add_up_to_the_whole() -> None:
    one, other = ((0.0, 0.7), (1.6, 2.0)), ((0.7, 1.6),)
    found = score(batch((), one, other, one_row=True))
    whole, some, rest = found.values.reshape(3, 2)
    torch.testing.assert_close(some + rest, whole, rtol=1e-12, atol=0)
    assert (some.abs() > 0).all()
    assert (rest.abs() > 0).all()
    # 0.7 s are 1.4 latents and 0.4 s are 0.8
    assert dims(found)[2:] == pytest.approx([2.2 * CHANNELS] * 2 + [1.8 * CHANNELS] * 2)


def test_only_what_is_scored_is_counted() -> None:
    draws, key = Draws(seed=3, count=2), DrawKey(comparison="row-0", modality="m", occurrence=0)
    found = score(batch(((0.5, 1.25),)))
    shares = torch.tensor([0.0, 1.0, 0.5, 0.0]).double()
    for draw in range(2):
        noise, time = draws.noise(key, draw, (CHANNELS, FRAMES)).double(), draws.uniform(key, draw)
        noisy = (1 - time) * 1.0 + time * noise
        wanted = -0.5 * ((0.5 * noisy - (noise - 1.0)).square() * shares).sum().item()
        assert found.values[draw].item() == pytest.approx(wanted, rel=1e-5)
    assert dims(found) == [1.5 * CHANNELS] * 2


def test_what_is_not_scored_has_no_gradient_and_changes_nothing() -> None:
    given = batch(((0.0, 0.5),))
    changed = torch.full((CHANNELS, FRAMES), 1.0)
    changed[:, 1:] = 7.0
    other = replace(given, media={**given.media, "m0": replace(given.media["m0"], tensors={"value": changed})})
    assert score(given).values.equal(score(other).values)
    scored = replace(given, segments=(replace(given.segments[0], spans=((0.5, 1.0),)),))
    assert not score(scored).values.equal(score(replace(other, segments=scored.segments)).values)


def test_rows_with_spans_and_without_go_together() -> None:
    together = score(batch((), ((0.0, 0.5),), ())).values.reshape(3, 2)
    assert together[[0, 2]].equal(score(batch((), (), ())).values.reshape(3, 2)[[0, 2]])
    assert together[1].equal(score(batch(((0.0, 9.0),), ((0.0, 0.5),))).values.reshape(2, 2)[1])


def test_a_model_without_time_and_a_span_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="has no time of which spans are scored"):
        score(batch(((0.0, 1.0),)), Timed(timed=False))
    assert score(batch(()), Timed(timed=False)).values.numel() == 2
    with pytest.raises(DataError, match="no second of this medium is scored"):
        score(batch(((2.0, 3.0),)))


# --- rows that say them --------------------------------------------------------------------------------------------


def row(chosen: Mapping[str, object], rejected: Mapping[str, object], **columns: object) -> dict[str, object]:
    said = {"chosen": [{"role": "assistant", "content": [chosen]}]}
    said |= {"rejected": [{"role": "assistant", "content": [rejected]}]}
    return {"prompt": [{"role": "user", "content": "Rain"}], **said, **columns}


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    from modalign_audio.modality import AudioModality

    for number in (1, 2):
        part = Part(modality="audio", value=torch.full((1, 4000), 0.1 * number), facts={"sampling_rate": 4000})
        AudioModality().save(part, tmp_path / f"rain-{number}")
    return tmp_path


BLOCKS = row(
    {"type": "audio", "audio": "rain-1.wav", "spans": [[0, 0.5], [0.75, 1]]}, {"type": "audio", "audio": "rain-2.wav"}
)
COLUMNS = row(
    {"type": "audio", "spans": [[0, 0.5], [0.75, 1]]},
    {"type": "audio"},
    audios=["rain-1.wav"],
    rejected_audios=["rain-2.wav"],
)
ITEMS = row(
    {"type": "audio"},
    {"type": "audio"},
    audios=[{"path": "rain-1.wav", "spans": [[0, 0.5], [0.75, 1]]}],
    rejected_audios=[{"path": "rain-2.wav"}],
)


@pytest.mark.parametrize("said", [BLOCKS, COLUMNS, ITEMS], ids=["block", "block of a column", "item of a column"])
def test_rows_say_spans_in_blocks_and_in_columns(said: dict[str, object], sounds: Path) -> None:
    file = sounds / "rows.jsonl"
    file.write_text(json.dumps(said))
    (pair,) = read(file)
    (one,), (other,) = pair.chosen.segments(), pair.rejected.segments()
    assert (one.spans, other.spans) == (((0.0, 0.5), (0.75, 1.0)), ())
    plain = replace(one, spans=())
    assert one.digest == plain.digest  # it is the same sound, encoded once
    assert one != plain


@pytest.mark.parametrize("target", ["all.parquet", "out"])
def test_spans_are_converted_with_their_rows(target: str, sounds: Path, tmp_path: Path) -> None:
    file = sounds / "rows.jsonl"
    plain = row(*({"type": "audio", "audio": f"rain-{number}.wav"} for number in (2, 1)))
    file.write_text("".join(f"{json.dumps(one)}\n" for one in (BLOCKS, plain)))
    convert(read(file), tmp_path / target)
    again = list(read(tmp_path / target))
    assert [replace(one, origin=None) for one in again] == [replace(one, origin=None) for one in read(file)]
    (part,) = again[0].chosen.segments()
    assert part.spans == ((0.0, 0.5), (0.75, 1.0))


@pytest.mark.parametrize(
    ("spans", "field", "says"),
    [
        ([], "spans", "no span is scored"),
        ("0-1", "spans", "expected a list"),
        ([0, 1], r"spans\[0\]", "expected a list"),
        ([[0, 1, 2]], r"spans\[0\]", "expected start and end in seconds"),
        ([[0, "1"]], r"spans\[0\]", "expected a number"),
        ([[0, 1], [1, 1]], r"spans\[1\]", "ends after that; found: 1 to 1"),
        ([[-1, 1]], r"spans\[0\]", "begins at 0 seconds or later, and ends after that; found: -1 to 1"),
    ],
)
def test_spans_that_are_none_are_bad_rows(spans: object, field: str, says: str, sounds: Path) -> None:
    said = row({"type": "audio", "audio": "rain-1.wav", "spans": spans}, {"type": "audio", "audio": "rain-2.wav"})
    with pytest.raises(DataError, match=rf"rows:1 field=chosen\[0\]\.content\[0\]\.{field}: .*{says}"):
        read([said], root=sounds)[0]


def test_spans_of_what_has_no_time_and_of_prompts_are_refused(sounds: Path) -> None:
    with pytest.raises(DataError, match="image has no time of which spans are scored"):
        read([row({"type": "image", "image": torch.zeros(3, 4, 4), "spans": [[0, 1]]}, {"type": "image"})])[0]
    with pytest.raises(DataError, match="text has no time"):
        read([row({"type": "text", "text": "Hush", "spans": [[0, 1]]}, {"type": "text", "text": "Loud"})])[0]
    asked = [{"role": "user", "content": [{"type": "audio", "audio": "rain-1.wav", "spans": [[0, 1]]}]}]
    with pytest.raises(DataError, match="field=prompt: spans say which seconds of a response are scored"):
        read([{"prompt": asked, "chosen": "a", "rejected": "b"}], root=sounds)[0]


def blob(value: float, spans: Spans = ()) -> Response:
    part = Part(modality="blob", value=torch.full((4,), value), spans=spans)
    return Response(messages=(Message(role="assistant", parts=(part,)),))


def test_a_model_that_would_not_look_at_spans_refuses_them() -> None:
    preparer, needs = toy_model().assembly.preparer, DPO().needs
    pair = Comparison.pair(ask("a"), blob(1.0, ((0.0, 1.0),)), blob(2.0))
    with pytest.raises(DataError, match="does not score a medium by spans of time; found: 0 to 1"):
        encode(pair, preparer, needs)
    assert encode(Comparison.pair(ask("a"), blob(1.0), blob(2.0)), preparer, needs).own == 2
