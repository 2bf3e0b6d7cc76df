"""A composed model scores and writes the same in a process of its own, bit for bit. As a script, this file is it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import modalign
from modalign.assembler import assemble, encode
from modalign.comparison import Comparison
from modalign.content import Message, Part, Response
from modalign.draws import Draws
from modalign.model import Model
from modalign.objectives import DPO
from modalign.registry import registry
from modalign.world.concept import concepts
from modalign_image.testing import tiny_vision

MADE = ("image", "audio")
PROMPTS = [f"Show me this: count {count}." for count in ("one", "two")]


def shown(modality: str, number: int) -> Part:
    depiction = registry.depiction(modality)
    every = list(concepts(depiction.attributes))
    return depiction.depict(every[number % len(every)], seed=number)


def pair() -> Comparison:
    """A picture in the prompt, and media in both responses."""
    said = [
        Response(
            messages=(
                Message(
                    role="assistant",
                    parts=(
                        Part(modality="text", value="two red circles."),
                        shown("image", at),
                        Part(modality="text", value="early"),
                        shown("audio", at),
                    ),
                ),
            )
        )
        for at in (0, 5)
    ]
    asked = Message(role="user", parts=(shown("image", 3), Part(modality="text", value="Show me this: count two.")))
    return replace(Comparison.pair([asked], *said), id="pair")


def digests(model: Model) -> dict[str, object]:
    """Of what a model scores, and of the words and media that it writes."""
    torch.set_num_threads(1)
    model.eval()
    batch = assemble([encode(pair(), model.assembly.preparer, DPO().needs)], share=True)
    with torch.no_grad():
        scores = model(batch, Draws(seed=3, count=2))
    values = [scores.logps, *(scores.units[name].values for name in sorted(scores.units))]
    written = model.generate(
        PROMPTS, seed=SEED, temperature=2.0, max_new_tokens=60, max_media=4, num_inference_steps=3, batch_size=2
    )
    return {
        "scores": [hashlib.sha256(value.double().numpy().tobytes()).hexdigest() for value in values],
        "units": sorted(scores.units),
        "written": [[[part.modality, part.digest] for part in one.parts()] for one in written],
        "weights": {
            name: hashlib.sha256(value.detach().float().numpy().tobytes()).hexdigest()
            for name, value in sorted(model.state_dict().items())
        },
    }


SEED = 0  #: by which the model opens media of both kinds


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("adapter", [None, {"r": 2}], ids=["whole", "adapters"])
def test_a_saved_composition_is_the_same_in_a_fresh_process(adapter: dict[str, object] | None, tmp_path: Path) -> None:
    for name in ("text", *MADE):
        registry.depiction(name).student(tmp_path / name)
    decoders = {name: {"path": str(tmp_path / name), "connector": {"heads": 4}, "adapter": adapter} for name in MADE}
    encoders = {"image": {"path": str(tiny_vision(tmp_path / "tower", "clip"))}}
    model = modalign.load(tmp_path / "text", encoders=encoders, decoders=decoders, adapter=adapter)
    with torch.no_grad():  # as if it had learnt: a part that comes back as it was made would be another
        for number, value in enumerate(model.trainable().values()):
            value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(number)))
    here = digests(model)
    kinds = {modality for one in here["written"] for modality, _ in one}  # pyright: ignore[reportGeneralTypeIssues]
    assert kinds == {"text", *MADE}
    model.save(tmp_path / "whole")
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path / "whole")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    there = json.loads(done.stdout.splitlines()[-1])
    assert there.keys() == here.keys()
    for what in here:
        assert there[what] == here[what], what


if __name__ == "__main__":
    print(json.dumps(digests(modalign.load(sys.argv[1]))))
