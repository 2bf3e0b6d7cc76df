"""Every family of clips keeps the laws of denoising decoders, and its own pipeline is the oracle of what it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalign.integrations.diffusers.laws import LAWS, FamilyLaws
from modalign_video.generators.cases import CASES, laws

# Schedulers of diffusers 0.42.1 make an array of a tensor, which torch 2.14 answers as numpy before 2.0 asked it.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


#: further settings of families that are in the default suite as they usually are
FURTHER = {"wan-euler", "wan-expanded", "ltx-timed", "cogvideox-rotary", "cogvideox-1.5"}
EVERY = [pytest.param(name, marks=pytest.mark.slow if name in FURTHER else ()) for name in CASES]


@pytest.fixture(scope="module", params=EVERY)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FamilyLaws:
    return laws(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("law", LAWS)
def test_a_family_keeps_the_laws(law: str, family: FamilyLaws, tmp_path: Path) -> None:
    family.check(law, tmp_path)
