"""A network of a plugin's own as a generator: asked in words, of one shape, and refused where it does not fit."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import modalign
from modalign.comparison import Comparison
from modalign.config import ModelConfig
from modalign.content import Message, Part, Response
from modalign.errors import ConfigError, DataError, ModelError
from modalign.hookspecs import hookimpl
from modalign.integrations.flow import MOST, FlowLoader, FlowNetwork, words_of
from modalign.registry import registry
from modalign.roles import Content


class Blobs(FlowNetwork):
    modality = "blob"
    shape = (4,)

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Linear(4 + 1 + width, 4)

    @staticmethod
    def numbers(content: Content) -> Tensor:
        return content.tensor

    @staticmethod
    def part(numbers: Tensor) -> Part:
        return Part(modality="blob", value=numbers)

    def forward(self, noisy: Tensor, time: Tensor, states: Tensor) -> Tensor:
        return self.layers(torch.cat([noisy, time[:, None], states.mean(1)], 1))


class BlobsLoader(FlowLoader):
    network = Blobs


@pytest.fixture(autouse=True)
def _blobs() -> Iterator[None]:
    def register_modalities(register) -> None:
        register("blob", "modalign.testing.blob:BlobModality", blocks=("blob",))

    with registry.scoped(SimpleNamespace(register_modalities=hookimpl(register_modalities)), name="blobs"):
        yield


def blob(*values: float) -> Response:
    return Response(messages=(Message(role="assistant", parts=(Part(modality="blob", value=torch.tensor(values)),)),))


def asked(words: str) -> list[Message]:
    return [Message(role="user", parts=(Part(modality="text", value=words),))]


def test_it_learns_alone_and_is_asked_in_words(tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    place = BlobsLoader.fresh(tmp_path / "blobs", seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    model = BlobsLoader().load(ModelConfig(path=str(place)))
    rows = [
        Comparison.pair(asked("up"), blob(1, 1, 1, 1), blob(-1, -1, -1, -1)),
        Comparison.pair(asked("down"), blob(-1, -1, -1, -1), blob(1, 1, 1, 1)),
    ]
    trainer = modalign.Trainer(
        model=model,
        objective=modalign.DPO(beta=1.0),
        data=rows,
        eval_data=rows,
        output_dir=tmp_path / "run",
        max_steps=30,
        learning_rate=1e-2,
        per_device_train_batch_size=2,
        quiet=True,
    )
    assert trainer.evaluate()["eval_loss"] == math.log(2)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.5
    up, down = model.generate(["up", "down"], seed=1)
    (alone,) = model.generate(["up"], seed=1)
    found = [next(iter(one.parts())).value for one in (up, alone, down)]
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], found[2])  # pyright: ignore[reportArgumentType]


def test_words_have_the_same_numbers_everywhere_and_pads_none() -> None:
    assert words_of("Red blue").tolist()[:3] == [*words_of("red")[:1].tolist(), *words_of("BLUE")[:1].tolist(), 0]
    assert words_of("red").tolist()[0] == 913  # 1 + crc32 mod 1023
    assert len(words_of("a " * 100)) == MOST
    assert words_of("a " * 100).min() > 0


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    place = BlobsLoader.fresh(tmp_path / "blobs")
    model = BlobsLoader().load(ModelConfig(path=str(place)))
    with pytest.raises(DataError, match=r"makes blob of one shape, \(4,\); found: \(3,\)"):
        model.assembly.preparer.encode(Comparison.pair(asked("up"), blob(1, 1, 1), blob(1, 1, 1, 1)))
    with pytest.raises(ConfigError, match=r"model\.options: this generator has no such setting"):
        BlobsLoader().load(ModelConfig(path=str(place), options={"steps": 3}))
    with pytest.raises(ModelError, match="holds no Blobs"):
        BlobsLoader().load(ModelConfig(path=str(tmp_path)))
    assert not BlobsLoader().claims(ModelConfig(path=str(tmp_path)))
    with pytest.raises(ConfigError, match="prompts are a list"):
        model.generate("up")
