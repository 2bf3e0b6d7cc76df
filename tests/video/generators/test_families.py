"""Every family of clips keeps the laws of denoising decoders, and its own pipeline is the oracle of what it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalign.integrations.diffusers.laws import FamilyLaws
from modalign_video.generators.cases import CASES, laws

# Schedulers of diffusers 0.42.1 make an array of a tensor, which torch 2.14 answers as numpy before 2.0 asked it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


#: further settings of families that are in the default suite as they usually are
FURTHER = {"wan-euler", "wan-expanded", "ltx-timed", "cogvideox-rotary", "cogvideox-1.5"}
EVERY = [pytest.param(name, marks=pytest.mark.slow if name in FURTHER else ()) for name in CASES]


@pytest.fixture(scope="module", params=EVERY)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FamilyLaws:
    return laws(request.param, tmp_path_factory.mktemp(request.param))


def test_equal_scores_give_closed_forms(family: FamilyLaws) -> None:
    family.equal_scores_give_closed_forms()


def test_draws_are_shared(family: FamilyLaws) -> None:
    family.draws_are_shared()


def test_errors_are_those_of_the_papers(family: FamilyLaws) -> None:
    family.errors_are_those_of_the_papers()


def test_predictions_are_the_pipelines(family: FamilyLaws) -> None:
    family.predictions_are_the_pipelines()


def test_latents_are_the_pipelines(family: FamilyLaws) -> None:
    family.latents_are_the_pipelines()


def test_writing_is_seeded(family: FamilyLaws) -> None:
    family.writing_is_seeded()


def test_saved_pipelines_load(family: FamilyLaws, tmp_path: Path) -> None:
    family.saved_pipelines_load(tmp_path)


def test_adapters_load_in_the_pipeline(family: FamilyLaws, tmp_path: Path) -> None:
    family.adapters_load_in_the_pipeline(tmp_path)
