"""The tables of docs/generators.md say what is there: pipelines, settings, draws, and the scales of beta."""

import math
import re
from pathlib import Path
from typing import cast

import diffusers
import pytest
import torch
from torch import Tensor

from modalign.batch import Targets
from modalign.config import Config
from modalign.draws import DrawConfig
from modalign.integrations.diffusers.family import Family
from modalign.integrations.diffusers.loader import PipelineLoader
from modalign.objectives import DPO
from modalign.registration.targets import resolve
from modalign.registry import registry
from modalign.scores import Scores, Units

PAGE = (Path(__file__).parent.parent / "docs/generators.md").read_text()


def section(number: int) -> str:
    """A numbered section of the page."""
    return PAGE[PAGE.index(f"## {number}.") : PAGE.index(f"## {number + 1}.")]


def loaders() -> dict[str, PipelineLoader]:
    names = [name for name in registry.entries("loaders") if name.endswith("-pipelines")]
    return {one.modality: one for one in (cast(PipelineLoader, registry.loader(name)) for name in names)}


def test_the_pipelines_of_the_page_are_those_that_load() -> None:
    rows = re.findall(r"^\| `(\w+Pipeline)` \| (\w+) \|.*\| (yes|no) \|$", PAGE, re.M)
    there = {name: one.modality for one in loaders().values() for name in one.families}
    assert {name: modality for name, modality, _ in rows} == there
    assert len(rows) == len(there)
    for name, _, loads in rows:
        assert hasattr(getattr(diffusers, name), "load_lora_weights") == (loads == "yes"), name


def test_the_settings_of_the_page_are_those_there_are() -> None:
    told: dict[str, set[str]] = {}
    for makes, cell, default in re.findall(
        r"^\| (image|audio|video) \| (.*?)(?:: .*?)? \| (.*?) \|$", section(4), re.M
    ):
        found = re.findall(r"`(\w+)`", cell)
        told.setdefault(makes, set()).update(found)
        for name in found if re.fullmatch(r"[\d.]+", default) else ():
            assert {one.model_fields[name].default for one in options(makes) if name in one.model_fields} == {
                float(default)
            }
    assert told == {makes: {name for one in options(makes) for name in one.model_fields} for makes in loaders()}


def options(modality: str) -> list[type[Config]]:
    """The settings of every family of a modality."""
    return [cast(type[Family], resolve(target)).options for target in loaders()[modality].families.values()]


def test_the_draws_of_the_page_are_those_there_are() -> None:
    rows = re.findall(r"^\| (`draws\..*?) \| (.*?) \| .* \|$", PAGE, re.M)
    told = {
        name: default
        for names, defaults in rows
        for name, default in zip(re.findall(r"`draws\.(\w+)`", names), defaults.split(", "), strict=True)
    }
    assert told == {name: str(field.default) for name, field in DrawConfig.model_fields.items()}


def test_the_scales_of_the_page_are_right() -> None:
    rows = re.findall(r"^\| \[.*? \| ([\dx ]+) \| ([\dx ]+) \| (\d+) \| ([\d.]+) \|$", section(6), re.M)
    assert len(rows) == 7
    for mean, latents, dims, beta in rows:
        assert product(latents) == int(dims)
        digits = len(beta.lstrip("0.").replace(".", ""))
        assert f"{product(mean) / int(dims):.{digits}g}" == f"{float(beta):.{digits}g}", (mean, dims, beta)


def product(text: str) -> int:
    return math.prod(int(one) for one in text.split(" x "))


def test_a_beta_of_means_is_one_of_sums() -> None:
    """DPO at beta_mean / dims is -log s(-1/2 beta_mean (mean errors less the reference's, of chosen less rejected))."""
    errors, before = torch.tensor([3.0, 5.0]), torch.tensor([4.0, 5.5])  # sums over 16 dimensions
    targets = Targets(
        pairs=torch.tensor([[0, 1]]), own=torch.arange(2), weights=torch.ones(1), group=torch.zeros(2, dtype=torch.long)
    )
    loss = DPO(beta=100 / 16)({"policy": drawn(errors), "reference": drawn(before)}, targets)
    chosen, rejected = (errors - before) / 16
    # -1/2 * 100 * ((3 - 4) / 16 - (5 - 5.5) / 16) = 1.5625
    assert -50 * (chosen - rejected) == 1.5625
    assert loss.mean.item() == pytest.approx(math.log1p(math.exp(-1.5625)))


def drawn(squares: Tensor) -> Scores:
    """Two responses of 16 dimensions, of whose errors the sums are given."""
    units = Units(kind="draw", values=-squares.double() / 2, segment=torch.arange(2), dims=torch.tensor([16, 16]))
    return Scores(units={"image": units}, response=torch.arange(2), weight=torch.ones(2), responses=2)
