"""Other networks, autoencoders and sizes of the families: what they change is what their own pipeline does."""

from __future__ import annotations

import pytest

from modalign.integrations.diffusers.laws import FamilyLaws
from modalign_image.generators.cases import VARIANTS, laws

# Schedulers of diffusers 0.42.1 make an array of a tensor, which torch 2.14 answers as numpy before 2.0 asked it.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FamilyLaws:
    return laws(request.param, tmp_path_factory.mktemp(request.param))


def test_predictions_are_the_pipelines(variant: FamilyLaws) -> None:
    variant.predictions_are_the_pipelines()


def test_latents_are_the_pipelines(variant: FamilyLaws) -> None:
    variant.latents_are_the_pipelines()
