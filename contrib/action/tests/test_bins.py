"""Discrete actions: bins, their exact log-probabilities, and what is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import modalign
from cases import DOWN, UP, action, answer, asked, discrete, pair, scored, words
from modalign.assembler import Sample, assemble
from modalign.comparison import Comparison
from modalign.content import Message, Part
from modalign.errors import CheckpointError, ConfigError, DataError, ModelError
from modalign.model import Model
from modalign.roles import Content
from modalign_action import ActionSpace
from modalign_action.bins import ActionBins, BinDecoder
from modalign_action.testing import tiny_space


def content(table: torch.Tensor) -> Content:
    return Content(modality="action", tensor=table)


def test_bins_are_of_equal_width_and_time_major():
    codec = ActionBins(ActionSpace(steps=2, low=(0.0, -1.0), high=(1.0, 1.0), bins=4))
    assert (codec.size, codec.length) == (4, 4)
    codes = codec.encode(content(torch.tensor([[0.0, 0.9], [0.26, -0.9]])))
    assert codes.tolist() == [0, 3, 1, 0]  # step 0: both dimensions; then step 1
    assert codec.encode(content(torch.tensor([[-5.0, 5.0], [1.0, 1.0]]))).tolist() == [0, 3, 3, 3]


def test_a_chunk_comes_back_within_half_a_bin():
    space = tiny_space(bins=256)
    codec = ActionBins(space)
    table = torch.rand(8, 7, generator=torch.Generator().manual_seed(0)) * 2 - 1
    table = space.back(table)
    again = codec.decode(codec.encode(content(table)))
    wide = torch.tensor(space.high) - torch.tensor(space.low)
    assert ((cast(torch.Tensor, again.value) - table).abs() <= wide / 512 * 1.001).all()
    assert again.facts == {"rate": 10.0}
    assert codec.encode(content(cast(torch.Tensor, again.value))).equal(codec.encode(content(table)))


def test_units_are_log_probabilities_of_bins_given_the_clip_the_words_and_the_bins_before(parts: Path):
    model = discrete(parts).eval()
    one = pair()
    encoded, _ = model.assembly.preparer.encode(one)
    (segment,) = [found for found in encoded.segments if found.decoder == "action"]
    assembly, decoder = cast(Any, model.assembly), cast(BinDecoder, model.decoders["action"])
    part = next(iter(one.responses[0].parts()))
    codes = decoder.codec.encode(content(cast(torch.Tensor, part.value)))
    assert segment.codes == tuple(codes.tolist())
    with torch.no_grad():
        inputs = assembly.library.get_input_embeddings()(torch.tensor(encoded.tokens))
        batch = assemble([Sample(comparison=one, encoded=(encoded,), own=1)], share=False)
        (clip,) = [slot for slot in batch.slots if batch.media[slot.digest].modality == "video"]
        inputs[clip.start : clip.stop] = model.embed(batch)[clip.digest]
        inputs[segment.start : segment.stop] = decoder.table(codes)
        states = assembly.library.get_decoder()(inputs_embeds=inputs[None]).last_hidden_state[0]
        chances = decoder.head(states[segment.start - 1 : segment.stop - 1]).log_softmax(-1)
    expected = chances.gather(-1, codes[:, None])[:, 0]
    units = scored(model, one).units["action"]
    assert len(units.values) == 2 * 56
    assert torch.allclose(units.values[:56].float(), expected, rtol=1e-5, atol=1e-5)


def test_what_has_been_done_is_read_as_bins(parts: Path):
    model = discrete(parts).eval()
    found = [
        scored(model, Comparison.unpaired(asked(UP, action(done)), answer(action(UP)))).units["action"].values
        for done in (UP, DOWN)
    ]
    assert not torch.allclose(found[0], found[1])


def test_the_whole_is_saved_in_one_folder(parts: Path, tmp_path: Path):
    model = discrete(parts).eval()
    model.save(tmp_path / "whole")
    again = modalign.load(tmp_path / "whole").eval()
    for name, units in scored(model, pair()).units.items():
        assert torch.equal(units.values, scored(again, pair()).units[name].values)
    assert ActionSpace.load(tmp_path / "whole" / "decoders" / "action") == tiny_space()


# --- mistakes -----------------------------------------------------------------------------------------------------


def test_a_chunk_of_another_size_is_said_with_its_field(parts: Path):
    model = discrete(parts)
    for table, got in ((torch.zeros(7, 7), "(7, 7)"), (torch.zeros(8, 6), "(8, 6)")):
        bad = replace(pair(), responses=(answer(action(UP)), answer(Part(modality="action", value=table))))
        with pytest.raises(DataError, match=r"have \(8, 7\) steps and dimensions") as caught:
            model.assembly.preparer.encode(bad)
        assert (caught.value.field, caught.value.got) == ("rejected[0].content[0].action", got)


def test_another_rate_is_refused(parts: Path):
    fast = replace(action(UP), facts={"rate": 50.0})
    with pytest.raises(DataError, match="actions of another rate") as caught:
        discrete(parts).assembly.preparer.encode(Comparison.unpaired(asked(UP), answer(fast)))
    assert caught.value.field == "responses[0][0].content[0].rate"


def test_spans_of_bins_are_refused(parts: Path):
    spanned = replace(action(UP), spans=((0.0, 0.4),))
    with pytest.raises(DataError, match="no time of which spans are scored"):
        discrete(parts).assembly.preparer.encode(Comparison.unpaired(asked(UP), answer(spanned)))


def test_limits_of_the_robot_are_a_setting(parts: Path):
    model = modalign.compose(
        parts / "words",
        decoders={"action": {"path": str(parts / "bins"), "type": "action-bins"}},
        media={"action": {"high": [0.01] * 7}},
    )
    with pytest.raises(DataError, match=r"at most 0\.01") as caught:
        model.assembly.preparer.encode(
            Comparison.unpaired([Message(role="user", parts=(words("Go"),))], answer(action(UP)))
        )
    assert caught.value.field == "responses[0][0].content[0].action[0][2]"


def test_wrong_folders_and_types_say_what_to_do(parts: Path, tmp_path: Path):
    def composed(**decoder: object) -> Model:
        return modalign.compose(parts / "words", decoders={"action": decoder})

    with pytest.raises(ModelError, match="for discrete actions say `type: action-bins`"):
        composed(path=str(parts / "bins"))
    with pytest.raises(CheckpointError, match=r"has an action\.json"):
        composed(path=str(tmp_path), type="action-bins")
    with pytest.raises(ConfigError, match="is a decoder of action") as caught:
        modalign.compose(parts / "words", decoders={"video": {"path": str(parts / "bins"), "type": "action-bins"}})
    assert caught.value.where == "model.decoders.video.type"
    with pytest.raises(ConfigError, match="would be read twice"):
        modalign.compose(
            parts / "words",
            encoders={"action": str(parts / "bins")},
            decoders={"action": {"path": str(parts / "bins"), "type": "action-bins"}},
        )
    with pytest.raises(ConfigError, match="bins of actions have no such setting"):
        composed(path=str(parts / "bins"), type="action-bins", options={"bins": 4})
