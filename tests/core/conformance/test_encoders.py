"""The contract catches what breaks it, in encoders and connectors; plain ones keep it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Self

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from modalign.batch import Medium
from modalign.errors import ConfigError, ModelError
from modalign.roles import Connector, Content, Encoder
from modalign.testing.encoder_laws import EncoderProbe

Breaks = Callable[..., str]


class Plain(Encoder):
    """Blobs of 4 numbers, each number an embedding of 3, times a factor."""

    modality = "blob"
    width = 3
    shift: Tensor
    known = ("factor",)

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = factor
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))
        self.register_buffer("shift", torch.tensor(0.25))
        self.facts = {"factor": factor}

    @classmethod
    def load(
        cls, path: str, *, revision: str | None = None, dtype: torch.dtype | None = None, **options: object
    ) -> Self:
        if unknown := sorted(set(options) - set(cls.known)):
            raise ConfigError("no such option", where=unknown[0])
        made = cls(**options)  # pyright: ignore[reportArgumentType]
        made.load_state_dict(load_file(Path(path) / "blob.safetensors"))
        return made

    def save(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        save_file(self.state_dict(), folder / "blob.safetensors")

    def prepare(self, content: Content) -> Medium:
        if content.modality != self.modality:
            raise ModelError("this takes blobs", got=content.modality)
        return Medium(modality=self.modality, tensors={"blob": content.tensor}, cost=4)

    def forward(self, media: Sequence[Medium]) -> list[Tensor]:
        self.ran(len(media))
        return [self.embed(medium.tensors["blob"]) for medium in media]

    def embed(self, blob: Tensor) -> Tensor:
        return self.factor * blob[:, None] * self.weight + self.shift


class Costly(Plain):
    def prepare(self, content):
        return replace(super().prepare(content), cost=5)


class Free(Plain):
    def prepare(self, content):
        return replace(super().prepare(content), cost=0)


class Forgetful(Plain):
    """Embeds what came first for all of them."""

    def forward(self, media):
        return [super(Forgetful, self).forward([media[0]])[0] for _ in media]


class Crowded(Plain):
    """What a medium gives depends on what is beside it."""

    def forward(self, media):
        found = super().forward(media)
        return [one + 0.1 * torch.stack(found).mean() for one in found]


class Noisy(Plain):
    def embed(self, blob):
        return super().embed(blob) + torch.rand(4, 1)


class Detached(Plain):
    def embed(self, blob):
        return super().embed(blob).detach()


class Untrained(Plain):
    def __init__(self, factor=1.0):
        super().__init__(factor)
        self.requires_grad_(False)


class Thawed(Plain):
    @property
    def frozen(self):
        return False


class Silent(Plain):
    def ran(self, count):
        pass


class Twice(Plain):
    def forward(self, media):
        self.ran(len(media))
        return super().forward(media)


class Inner(Plain):
    """Counts what is inside it too."""

    def ran(self, count):
        super().ran(count)
        if self.memo is not None:
            self.memo.passes["picture"] += 1


class Rounded(Plain):
    """Saves less than it has."""

    def save(self, folder):
        folder.mkdir(exist_ok=True)
        save_file(
            {name: value.clone() + 1e-6 for name, value in self.state_dict().items()}, folder / "blob.safetensors"
        )


class Mute(Plain):
    def __init__(self, factor=1.0):
        super().__init__(factor)
        self.facts = {}


class Placed(Plain):
    @classmethod
    def load(cls, path, **options):
        made = super().load(path, **options)
        made.facts = {**made.facts, "path": path}
        return made


class Lax(Plain):
    @classmethod
    def load(cls, path, **options):
        return super().load(path, **{name: value for name, value in options.items() if name in cls.known})


class Greedy(Plain):
    def prepare(self, content):
        return Medium(modality="blob", tensors={"blob": content.tensor}, cost=4)


class Infinite(Plain):
    def embed(self, blob):
        return super().embed(blob) / 0.0


ENCODERS = {
    Costly: "expected 'm d' of (5, 3); found: (4, 3)",
    Free: "its cost is how many embeddings; found: 0",
    Forgetful: "turning the media round must only turn round",
    Crowded: "a medium must be embedded alone as beside others",
    Noisy: "equal media must have equal embeddings",
    Detached: "it raised; found: RuntimeError",
    Untrained: "something must train until it is frozen",
    Thawed: "an encoder without trainable parameters is frozen; found: False",
    Silent: "it must count {'blob': 3}; found: {}; to mend: call self.ran(len(media)) once in forward",
    Twice: "it must count {'blob': 3}; found: {'blob': 6}",
    Inner: "it must count {'blob': 3}; found: {'blob': 3, 'picture': 1}",
    Rounded: "medium 0 must be embedded the same; found: up to",
    Mute: "options {'factor': 2.0} must be told by its facts",
    Placed: "facts must not depend on where it lies",
    Lax: "an option that it does not have must raise ConfigError; found: no error",
    Greedy: "content of another modality must raise ModelError; found: no error",
    Infinite: "embeddings must be finite numbers",
}


def told(breaks: Breaks, seeded: ModuleType, thing: type[Plain]) -> str:
    def probe(folder: Path) -> EncoderProbe:
        Plain().save(folder)
        return EncoderProbe(folder=folder, options=({}, {"factor": 2.0}))

    seeded.__dict__["probe"] = probe
    return breaks("encoders", thing, name="blobs", blobs=True, modality="blob", probe=f"{seeded.__name__}:probe")


def test_a_plain_encoder_keeps_the_contract(breaks: Breaks, seeded: ModuleType) -> None:
    assert told(breaks, seeded, Plain) == ""


@pytest.mark.parametrize("thing", ENCODERS, ids=lambda one: one.__name__)
def test_an_encoder_that_breaks_a_law_is_told(thing: type[Plain], breaks: Breaks, seeded: ModuleType) -> None:
    assert ENCODERS[thing] in told(breaks, seeded, thing)


def test_a_probe_of_something_else_is_told(breaks: Breaks, seeded: ModuleType) -> None:
    seeded.__dict__["probe"] = lambda folder: json.dumps({})
    found = breaks("encoders", Plain, name="blobs", blobs=True, modality="blob", probe=f"{seeded.__name__}:probe")
    assert "an encoder's probe takes an empty folder and returns it, or an EncoderProbe; found: <class 'str'>" in found


# --- connectors -------------------------------------------------------------------------------------


class Joint(Connector):
    """One matrix."""

    def __init__(self, width: int, out: int, bias: bool = True) -> None:
        super().__init__()
        self.settings = {"bias": bias}
        self.project = nn.Linear(width, out, bias=bias)

    def forward(self, embeddings: Tensor) -> Tensor:
        return self.project(embeddings)


class Doubling(Joint):
    def forward(self, embeddings):
        return super().forward(embeddings.repeat(2, 1))


class Cut(Joint):
    def forward(self, embeddings):
        return super().forward(embeddings.detach())


class Hidden(Joint):
    """Keeps a weight where no state dict finds it."""

    def __init__(self, width, out, bias=True):
        super().__init__(width, out, bias)
        self.secret = (torch.randn(out),)

    def forward(self, embeddings):
        return super().forward(embeddings) + self.secret[0]


class Misremembering(Joint):
    def __init__(self, width, out, bias=True):
        super().__init__(width, out, bias)
        self.settings = {"bias": not bias}


class Careless(Joint):
    def __init__(self, width, out, bias=True, **rest):
        super().__init__(width, out, bias)


class Idle(Joint):
    def forward(self, embeddings):
        return embeddings[:, :1].expand(-1, self.project.out_features)


CONNECTORS = {
    Doubling: "expected 'm d' of (1, 32); found: (2, 32)",
    Cut: "embeddings behind it must have a gradient",
    Hidden: "options and weights must make it again; found: {}",
    Misremembering: "its options and its weights make it again: it raised; found: RuntimeError",
    Careless: "an option that it does not have must raise Exception; found: no error",
    Idle: "project.weight must have a finite gradient",
}


def test_a_plain_connector_keeps_the_contract(breaks: Breaks, seeded: ModuleType) -> None:
    assert breaks("connectors", Joint) == ""
    seeded.__dict__["probe"] = lambda: [{}, {"bias": False}]
    assert breaks("connectors", Joint, probe=f"{seeded.__name__}:probe") == ""


@pytest.mark.parametrize("thing", CONNECTORS, ids=lambda one: one.__name__)
def test_a_connector_that_breaks_a_law_is_told(thing: type[Joint], breaks: Breaks) -> None:
    assert CONNECTORS[thing] in breaks("connectors", thing)


def test_a_probe_of_a_connector_that_names_no_options_is_told(breaks: Breaks, seeded: ModuleType) -> None:
    seeded.__dict__["probe"] = dict
    assert "a list of sets of options; found: {}" in breaks("connectors", Joint, probe=f"{seeded.__name__}:probe")
