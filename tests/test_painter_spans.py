"""Spans of painters add up to the whole; pictures refuse them."""

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor

from modalign import load
from modalign.assembler import assemble, encode
from modalign.comparison import Comparison
from modalign.data import read
from modalign.decoders.denoiser import DenoisingDecoder
from modalign.decoders.generating import FITTED
from modalign.draws import Draws
from modalign.errors import DataError
from modalign.integrations.painter import CanvasFit, PainterDenoiser
from modalign.model import Model
from modalign.objectives import DPO
from modalign.registry import registry
from modalign.timeline import Spans


def spanned(pair: Comparison, spans: Spans) -> Comparison:
    said = tuple(replace(m, parts=tuple(replace(p, spans=spans) for p in m.parts)) for m in pair.chosen.messages)
    return replace(pair, responses=(replace(pair.chosen, messages=said), pair.rejected))


def scored(model: Model, rows: list[Comparison], spans: Spans) -> Tensor:
    encoded = [encode(spanned(one, spans), model.assembly.preparer, DPO().needs) for one in rows]
    with torch.no_grad():
        return model(assemble(encoded, share=model.shares), Draws(seed=5, count=2)).logps.reshape(-1, 2)


@pytest.mark.parametrize("modality", ["audio", "video"])
def test_spans_of_a_painter_add_up(modality: str, tmp_path: Path) -> None:
    folder = registry.depiction(modality).student(tmp_path)
    assert folder is not None
    model = load(str(folder))
    rows = list(read("oracle", split=f"{modality}/shared-defect", limit=2))
    (decoder,) = model.decoders.values()
    denoiser = cast(PainterDenoiser, cast(DenoisingDecoder, decoder).denoiser)
    line = denoiser.timeline
    lasts = line.times(denoiser.shape[line.axis])[-1][1]
    fitted = model.assembly.preparer.encode(rows[0])[0].media
    (medium,) = [one for one in fitted.values() if FITTED in one.tensors]
    seconds = CanvasFit(denoiser.canvas).seconds(medium.tensors[FITTED], None)
    assert lasts == pytest.approx(seconds)
    cut = 0.37 * lasts
    first, second = ((0.0, cut),), ((cut, lasts),)
    whole, every, some, rest = (scored(model, rows, s) for s in ((), (*first, *second), first, second))
    assert every.equal(whole)
    torch.testing.assert_close((some + rest)[:, 0], whole[:, 0], rtol=1e-6, atol=0)
    assert (some[:, 0] < 0).all()
    assert (rest[:, 0] < 0).all()
    assert some[:, 1].equal(whole[:, 1])
    with pytest.raises(DataError, match="no second of this medium is scored"):
        scored(model, rows, ((lasts, lasts + 1),))


def test_a_painter_of_pictures_refuses_spans(tmp_path: Path) -> None:
    folder = registry.depiction("image").student(tmp_path)
    assert folder is not None
    rows = list(read("oracle", split="image/shared-defect", limit=1))
    with pytest.raises(DataError, match="has no time"):
        scored(load(str(folder)), rows, ((0.0, 1.0),))
