"""Pictures that a checkpoint draws are scored exactly: transformers' own modules say the same of every token."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import modalign
from modalign.assembler import Sample, assemble
from modalign.batch import Batch
from modalign.comparison import Comparison
from modalign.draws import Draws
from modalign.model import Model
from modalign.roles import GIVEN
from modalign.scores import Scores
from modalign_text.multimodal.cases import answer, message
from modalign_text.multimodal.native.cases import FAMILIES, both, draws, loaded, oracle, picture, reads
from modalign_text.multimodal.testing import tiny_multimodal

EVERY = {"reads": reads, "draws": draws, "both": both}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("native")


def sample(model: Model, one: Comparison) -> Sample:
    return Sample(comparison=one, encoded=model.assembly.preparer.encode(one), own=len(one.responses))


def batch(model: Model, *comparisons: Comparison, share: bool = True) -> Batch:
    return assemble([sample(model, one) for one in comparisons], share=share, pad=model.assembly.preparer.pad)


@torch.no_grad()
def scores(model: Model, *comparisons: Comparison, share: bool = True) -> Scores:
    return model(batch(model, *comparisons, share=share), Draws())


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_is_scored_as_transformers_scores_it(folder: Path, family: str, name: str) -> None:
    model = loaded(folder, family)
    assert model.shares
    expected = [oracle(model, one) for one in sample(model, EVERY[name]()).encoded]
    for share in (True, False):
        units = scores(model, EVERY[name](), share=share).units
        for decoder in ("text", "image"):
            wanted = [one[decoder] for one in expected if decoder in one]
            found = units[decoder].values.double()
            torch.testing.assert_close(found, torch.cat(wanted) if wanted else found[:0], rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_shared_rows_equal_separate_ones(folder: Path, family: str) -> None:
    model = loaded(folder, family)
    rows = [reads(), draws(), both()]
    shared, apart = (scores(model, *rows, share=share) for share in (True, False))
    torch.testing.assert_close(shared.logps, apart.logps, rtol=1e-5, atol=1e-5)
    alone = torch.cat([scores(model, row).logps for row in rows])
    torch.testing.assert_close(shared.logps, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_opens_a_picture_is_said_and_what_the_format_dictates_is_given(folder: Path, family: str) -> None:
    model = loaded(folder, family)
    one, _ = sample(model, both()).encoded
    tokenizer = cast(Any, model.assembly.preparer).tokenizer
    processor = cast(Any, model.assembly).writer.processor
    said = ["".join(tokenizer.convert_ids_to_tokens(one.tokens[s.start : s.stop])) for s in one.segments if not s.codes]
    begin = processor.image_start_token
    assert said == [f"here:Ġ{begin}", f"ĠandĠ{begin}", "Ġdone<|im_end|>"]
    for segment in (one for one in one.segments if one.decoder == "image"):
        before = tokenizer.decode(one.tokens[: segment.start])
        behind = tokenizer.decode(one.tokens[segment.stop :])
        columns = 5  # of tokens of an Emu3 picture of 24 by 32 pixels: four codes, and the end of a line
        if family == "emu3":
            assert before.endswith("<|image start|>3*4<|image token|>")
            assert behind.startswith("<|extra_201|><|image end|>")
            given = [at for at, code in enumerate(segment.codes) if code == GIVEN]
            assert given == [at for at in range(3 * columns) if at % columns == columns - 1]
        else:
            assert before.endswith(begin)
            assert behind.startswith(processor.image_end_token)
            assert segment.codes == tuple(range(16))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_follows_a_picture_sees_it(folder: Path, family: str) -> None:
    model = loaded(folder, family)
    rows = [Comparison.unpaired([message("user", "a dog")], answer(picture(seed), "done")) for seed in (2, 3)]
    said = [scores(model, row).units["text"].values for row in rows]
    assert torch.equal(said[0][:1], said[1][:1])  # what opens it
    assert (said[0][1:] - said[1][1:]).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_prompt_s_picture_shows_and_is_not_scored(folder: Path, family: str) -> None:
    model = loaded(folder, family)

    def asked(seed: int) -> Tensor:
        found = scores(model, Comparison.unpaired([message("user", picture(seed))], answer("a dog")))
        assert not len(found.units["image"].values)
        return found.logps

    assert (asked(2) - asked(3)).abs().max() > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_goes_through_the_vq_model_once_in_a_run(folder: Path, family: str) -> None:
    model = loaded(folder, family)
    vq = cast(Any, model.assembly).library.model.vqmodel
    calls, encode = [], vq.encode
    vq.encode = lambda *args, **kwargs: calls.append(1) or encode(*args, **kwargs)
    try:
        first = scores(model, draws(), both()).logps
        # four pictures; of Janus the one that is shown and drawn goes through its other tower as well
        assert len(calls) == 4
        again = scores(model, draws(), both()).logps
    finally:
        del vq.encode
    assert len(calls) == 4
    assert torch.equal(first, again)


def test_a_janus_picture_is_read_by_one_tower_and_drawn_by_another(folder: Path) -> None:
    model = loaded(folder, "janus")
    one, _ = sample(model, both()).encoded
    assert sorted(medium.modality for medium in one.media.values()) == ["image", "own of image", "own of image"]
    shown, drawn, _ = sorted(one.slots, key=lambda slot: slot.start)
    assert drawn.digest == f"{shown.digest}.drawn"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_weight_counts_pictures_less_and_zero_makes_them_context(folder: Path, family: str) -> None:
    light = loaded(folder, family, options={"image_weight": 0.25})
    found = scores(light, both())
    drawn = torch.tensor([one.decoder == "image" for one in batch(light, both()).segments])
    assert found.weight.tolist() == torch.where(drawn, 0.25, 1.0).tolist()
    silent = scores(loaded(folder, family, options={"image_weight": 0}), both())
    text = torch.zeros_like(silent.logps).index_add(0, silent.response[~drawn], silent.segments[~drawn])
    torch.testing.assert_close(silent.logps, text)


def test_an_emu3_conversation_begins_as_its_processor_begins_it(folder: Path) -> None:
    model = loaded(folder, "emu3")
    processor = cast(Any, model.assembly).writer.processor
    text = processor.apply_chat_template([{"role": "user", "content": [{"type": "text", "text": "a dog"}]}])
    one, _ = sample(model, draws()).encoded
    wanted = processor(text=[text], return_tensors="pt")["input_ids"][0].tolist()
    assert list(one.tokens[: len(wanted)]) == wanted
    assert cast(Any, model.assembly.preparer).prompt_ids([message("user", "a dog")])[: len(wanted)] == wanted


def test_a_chameleon_without_a_chat_template_is_asked_as_its_processor_asks(tmp_path: Path) -> None:
    tiny_multimodal(tmp_path, "chameleon")
    (tmp_path / "chat_template.jinja").unlink()
    model = modalign.load(tmp_path)
    processor = cast(Any, model.assembly).writer.processor
    shown = (picture(1).value.clamp(0, 1) * 255).to(torch.uint8)  # pyright: ignore[reportAttributeAccessIssue]
    wanted = processor(text="look: <image> what?", images=[shown], return_tensors="pt")["input_ids"][0].tolist()
    assert cast(Any, model.assembly.preparer).prompt_ids([message("user", "look: ", picture(1), " what?")]) == wanted
    one, _ = sample(model, both()).encoded
    tokenizer = processor.tokenizer
    assert tokenizer.decode(list(one.tokens[-6:])).endswith("done<|im_end|>")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_is_cut_off_whole(folder: Path, family: str) -> None:
    model = loaded(folder, family)
    preparer = model.assembly.preparer
    whole, _ = preparer.encode(both())
    pictures = sorted((one for one in whole.segments if one.decoder == "image"), key=lambda one: one.start)
    cut, _ = preparer.encode(both(), max_length=pictures[1].stop - 3, truncate="response")
    assert [one for one in cut.segments if one.decoder == "image"] == pictures[:1]
    assert len(cut.tokens) <= pictures[1].start
    assert pictures[1].digest not in cut.media
