"""Every family of sounds keeps the laws of denoising decoders, and its own pipeline is the oracle of what it does."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalign.integrations.diffusers.laws import LAWS, FamilyLaws
from modalign_audio.generators.cases import CASES, laws

pytestmark = [
    # Schedulers of diffusers 0.42.1 make an array of a tensor, which torch 2.14 answers as numpy before 2.0 asked it.
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    # Oobleck of diffusers 0.42.1 normalizes its weights as torch did before.
    pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated:FutureWarning"),
    # AudioLDM 2 of diffusers 0.42.1 has GPT-2 go on from what it kept, by the name that had before transformers 5.24.
    pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated:FutureWarning"),
    # Its scheduler asks torchsde for noise of the last step, which ends below the least sigma and gets none.
    pytest.mark.filterwarnings("ignore:Should have t[ab][<>]=t[01]:UserWarning"),
]


#: further settings of families that are in the default suite as they usually are
FURTHER = {"stable-audio-whole", "ace-step-turbo"}
EVERY = [pytest.param(name, marks=pytest.mark.slow if name in FURTHER else ()) for name in CASES]


@pytest.fixture(scope="module", params=EVERY)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> FamilyLaws:
    return laws(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("law", LAWS)
def test_a_family_keeps_the_laws(law: str, family: FamilyLaws, tmp_path: Path) -> None:
    family.check(law, tmp_path)
