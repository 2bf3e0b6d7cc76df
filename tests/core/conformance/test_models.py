"""The contract catches what breaks it, in whole models; the toy model of two media keeps it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from modalign.batch import Batch
from modalign.comparison import Comparison
from modalign.integrations.painter import save_painter
from modalign.layout import Layout
from modalign.model import Model
from modalign.registry import registry
from modalign.scores import Units
from modalign.testing import ask, toy_model
from modalign.testing.doubles import ToyTokenDecoder
from modalign_image.painter import ImageCanvas, ImagePainterLoader

Breaks = Callable[..., str]


def patched(change: Callable[[Units], Units]) -> Callable[[Path], Model]:
    """A toy model whose text decoder answers something else."""

    def make(folder: Path) -> Model:
        model = toy_model()
        decoder = model.decoders["text"]
        inner = decoder.forward
        decoder.forward = lambda states, batch, draws: change(inner(states, batch, draws))
        return model

    return make


def seeing(open_up: Callable[[Batch], Tensor]) -> Callable[[Path], Model]:
    """A toy model whose tokens attend to something else, ``r n n`` of bool."""

    def make(folder: Path) -> Model:
        model = toy_model(shares=False)
        assert model.backbone is not None
        inner = model.backbone.forward

        def forward(batch: Batch, embeddings: Mapping[str, Tensor]) -> Tensor:
            seen = SimpleNamespace(index=batch.layout.index, mask=lambda: open_up(batch))
            return inner(replace(batch, layout=cast(Layout, seen)), embeddings)

        model.backbone.forward = forward
        return model

    return make


def everything(batch: Batch) -> Tensor:
    return torch.ones(batch.layout.rows, batch.layout.width, batch.layout.width, dtype=torch.bool)


def the_future(batch: Batch) -> Tensor:
    real = batch.layout.real
    return real[:, :, None] & real[:, None, :] | batch.layout.mask()


def foreign(folder: Path) -> Model:
    """Takes parts of any modality, as words."""
    model = toy_model()
    preparer = model.assembly.preparer
    inner = preparer.encode

    def encode(comparison: Comparison, *, max_length: int | None = None, truncate: str | None = None) -> object:
        stated = [[part.value for part in one.parts if isinstance(part.value, str)] for one in comparison.prompt]
        prompt = tuple(message for words in stated for message in ask(*words))
        return inner(replace(comparison, prompt=prompt), max_length=max_length, truncate=truncate)

    preparer.encode = encode  # pyright: ignore[reportAttributeAccessIssue]
    return model


def mute(folder: Path) -> Model:
    model = toy_model()
    model.assembly.generate = lambda *_, **__: []
    return model


def adding_the_batch(folder: Path) -> Model:
    """What stands beside a row changes it."""
    model = toy_model()
    assert model.backbone is not None
    inner = model.backbone.forward
    model.backbone.forward = lambda batch, embeddings: inner(batch, embeddings) + batch.tokens.float().mean()
    return model


def still_training(folder: Path) -> Model:
    model = toy_model()
    model.eval = model.train
    return model


def frozen(folder: Path) -> Model:
    return toy_model().requires_grad_(False)


def unneutral(folder: Path) -> Model:
    model = toy_model(adapter=True)
    assert model.backbone is not None
    nn.init.ones_(model.backbone.get_submodule("up").get_parameter("weight"))
    return model


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "sees padding": (seeing(everything), "must score the same alone and in a batch"),
    "sees the future": (seeing(the_future), "must be seen by none before it"),
    "mixes rows": (adding_the_batch, "must score the same alone and in a batch"),
    "keeps dropping out": (still_training, "equal draws must give equal scores"),
    "is frozen": (frozen, "something must train"),
    "has an adapter that changes the base": (unneutral, "new adapters must change nothing"),
    "gives nan": (patched(lambda units: replace(units, values=units.values * float("nan"))), "finite log-likelihoods"),
    "gives losses": (patched(lambda units: replace(units, values=-units.values)), "is at most 0"),
    "forgets segments": (
        patched(lambda units: replace(units, values=units.values[:1], segment=units.segment[:1])),
        "must have a unit",
    ),
    "scores another's segments": (
        patched(lambda units: replace(units, segment=units.segment - 1)),
        "must score its own segments only",
    ),
    "gives another kind": (patched(lambda units: replace(units, kind="step")), "gives units of kind step"),
    "gives no gradient": (patched(lambda units: replace(units, values=units.values.detach())), "must have a gradient"),
    "takes anything": (foreign, "a part of a modality that it does not take must raise DataError"),
    "writes nothing": (mute, "one response per prompt"),
    "is no model": (lambda folder: "a string", "returns a Model, or a folder"),
}


def contract(breaks: Breaks, seeded: ModuleType, probe: Callable[[Path], object]) -> str:
    seeded.__dict__["probe"] = probe
    return breaks(
        "decoders",
        ToyTokenDecoder,
        blobs=True,
        modality="text",
        kind="token",
        probe="modalign_seeded_for_tests:probe",
    )


@pytest.mark.parametrize("fault", MODELS)
def test_a_bad_model_is_told(fault: str, breaks: Breaks, seeded: ModuleType) -> None:
    probe, words = MODELS[fault]
    assert words in contract(breaks, seeded, probe)


@pytest.mark.parametrize("adapter", [False, True])
def test_the_toy_model_of_two_media_keeps_the_contract(adapter: bool, breaks: Breaks, seeded: ModuleType) -> None:
    assert contract(breaks, seeded, lambda folder: toy_model(adapter=adapter)) == ""


def test_a_generator_without_tokens_keeps_the_contract(breaks: Breaks, seeded: ModuleType) -> None:
    def probe(folder: Path) -> Path:
        return save_painter(folder, registry.depiction("image"), ImageCanvas())

    seeded.__dict__["probe"] = probe
    assert breaks("loaders", ImagePainterLoader, probe=f"{seeded.__name__}:probe") == ""
