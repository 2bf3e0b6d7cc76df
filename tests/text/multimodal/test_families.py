"""Every family and medium: the parts give what transformers' whole model gives, however rows are laid out."""

from pathlib import Path

import pytest
import torch

from modalign.assembler import Sample, assemble
from modalign.comparison import Comparison
from modalign.draws import Draws
from modalign_text.multimodal.cases import (
    CELLS,
    PLACES,
    READS,
    answer,
    in_prompt,
    loaded,
    medium,
    message,
    whole_logps,
)


def batch_of(model, comparisons, *, share):
    preparer = model.assembly.preparer
    samples = [Sample(comparison=one, encoded=preparer.encode(one), own=len(one.responses)) for one in comparisons]
    return samples, assemble(samples, share=share, pad=preparer.pad)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("families")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("family", "modality"), CELLS)
def test_shared_and_separate_rows_equal_the_whole_model(folder: Path, family: str, modality: str, place: str) -> None:
    model = loaded(folder, family).eval()
    assert model.shares
    samples, shared = batch_of(model, [PLACES[place](modality)], share=True)
    _, apart = batch_of(model, [PLACES[place](modality)], share=False)
    assert not shared.layout.plain
    expected = torch.cat([values for one in samples[0].encoded for values in whole_logps(model, one)])
    with torch.no_grad():
        for batch in (shared, apart):
            found = model(batch, Draws()).units["text"].values
            torch.testing.assert_close(found.double(), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("family", "modality"), CELLS)
def test_what_a_medium_shows_changes_the_answer(folder: Path, family: str, modality: str) -> None:
    model = loaded(folder, family).eval()
    with torch.no_grad():
        one, other = (
            model(batch_of(model, [in_prompt(modality, seed)], share=True)[1], Draws()).logps for seed in (0, 0)
        )
        third = model(batch_of(model, [in_prompt(modality, 7)], share=True)[1], Draws()).logps
    assert torch.equal(one, other)
    assert (one - third).abs().max() > 1e-3


@pytest.mark.parametrize("family", [family for family, reads in READS.items() if len(reads) == 3])
def test_three_media_in_one_prompt(folder: Path, family: str) -> None:
    model = loaded(folder, family).eval()
    parts = [part for name in READS[family] for part in (medium(name), f" after {name} ")]
    pair = Comparison.pair([message("user", *parts)], answer("yes"), answer("not at all"))
    samples, shared = batch_of(model, [pair], share=True)
    expected = torch.cat([values for one in samples[0].encoded for values in whole_logps(model, one)])
    with torch.no_grad():
        found = model(shared, Draws()).units["text"].values
    torch.testing.assert_close(found.double(), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize(("family", "modality"), CELLS)
def test_rows_with_and_without_media_share_a_batch(folder: Path, family: str, modality: str) -> None:
    model = loaded(folder, family).eval()
    bare = Comparison.pair([message("user", "hello")], answer("hi"), answer("go away now"))
    pairs = [in_prompt(modality), bare, PLACES["responses"](modality)]
    _, together = batch_of(model, pairs, share=True)
    with torch.no_grad():
        found = model(together, Draws()).logps
        alone = torch.cat([model(batch_of(model, [pair], share=True)[1], Draws()).logps for pair in pairs])
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-4)
