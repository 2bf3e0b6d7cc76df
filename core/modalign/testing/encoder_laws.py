"""Laws of what turns media into embeddings: what is prepared, what is given, what is saved, and what is said of it.

m embeddings, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast, final

import torch
from torch import Tensor

from modalign.batch import Medium
from modalign.caching.memo import Memo
from modalign.errors import ConfigError, ModelError
from modalign.frozen import empty
from modalign.registration.admission import Entry
from modalign.registration.targets import resolve
from modalign.registry import Registry
from modalign.roles import Content, Encoder
from modalign.testing.case import Case, case, refuses, require
from modalign.testing.content_laws import examples

TOLERANCE = 1e-5  #: of the largest embedding: what another order of the same sums may change
_COUNT = 3  #: media that laws are tried on


@final
@dataclass(frozen=True, kw_only=True)
class EncoderProbe:
    """What an encoder's probe makes in the empty folder that it is given.

    folder: what `Encoder.load` reads.
    options: one or more sets of settings to load it with, each giving other embeddings; the first is tried fully.
    media: how example media are decoded: settings of the modality.
    """

    folder: Path
    options: tuple[Mapping[str, object], ...] = ({},)
    media: Mapping[str, object] = field(default_factory=empty)


@final
class _Tried:
    """An encoder that a probe made, example media for it, and how to load it again."""

    def __init__(self, plugins: Registry, entry: Entry, folder: Path) -> None:
        place = folder / "made"
        place.mkdir()
        made = cast("Callable[[Path], object]", resolve(cast(str, entry.declarations["probe"])))(place)
        self.probe = made if isinstance(made, EncoderProbe) else EncoderProbe(folder=place)
        right = isinstance(made, EncoderProbe | Path)
        require(right, "an encoder's probe takes an empty folder and returns it, or an EncoderProbe", got=type(made))
        self.kind = plugins.encoder(entry.qualified)
        self.modality = cast(str, entry.declarations["modality"])
        self.encoder = self.load(self.probe.folder)
        parts = examples(plugins, self.modality, _COUNT)
        fix = f"register a depiction of {self.modality}, or a modality whose probe makes at least two parts"
        require(len(parts) > 1, "there is nothing to try it on", got=f"{len(parts)} example parts", fix=fix)
        one = plugins.modality(self.modality)
        settings = one.settings.model_validate(dict(self.probe.media))
        self.contents = [one.decode(part, settings, rate=self.encoder.rate) for part in parts]

    def load(self, place: Path, at: int = 0) -> Encoder:
        """The encoder of a folder, with one set of options."""
        options = self.probe.options[at]
        return self.kind.load(str(place), **options).eval()  # pyright: ignore[reportArgumentType] - its own options

    def prepared(self, encoder: Encoder | None = None) -> list[Medium]:
        """The example media, as an encoder reads them."""
        return [(encoder or self.encoder).prepare(content) for content in self.contents]


def encoder_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    """What must hold of the encoder that an entry's probe makes."""
    if "probe" not in entry.declarations:
        return
    laws: tuple[tuple[str, Callable[[_Tried, Path], None]], ...] = (
        ("it prepares media that can be moved and counted", _prepares),
        ("it gives as many embeddings of its width as it said", _counts),
        ("equal media have equal embeddings, others have others", _equal),
        ("the order of media does not matter", _order),
        ("gradients are finite and reach what trains", _gradients),
        ("it is frozen where nothing trains, and only there", _frozen),
        ("it says how many media its tower was run on", _passes),
        ("saving and loading give the same, bit for bit", _reload),
        ("its facts tell settings apart, and nothing else", _facts),
        ("content that is not its own is a clear error", _foreign),
    )
    for law, check in laws:
        yield case(entry, law, lambda folder, check=check: check(_Tried(plugins, entry, folder), folder))


def _prepares(tried: _Tried, folder: Path) -> None:
    for medium in tried.prepared():
        require(isinstance(medium, Medium), "prepare gives a Medium", got=type(medium).__name__)
        require(medium.modality == tried.modality, f"of {tried.modality}", got=medium.modality)
        places = {str(value.device) for value in medium.tensors.values()}
        require(places == {"cpu"}, "its tensors are made on the CPU", got=places or "no tensor")
        loose = [name for name, value in medium.tensors.items() if value.requires_grad]
        require(not loose, "what is prepared has no gradient", got=loose)
        require(isinstance(medium.cost, int) and medium.cost > 0, "its cost is how many embeddings", got=medium.cost)


@torch.no_grad()
def _counts(tried: _Tried, folder: Path) -> None:
    media = tried.prepared()
    found = tried.encoder(media)
    require(len(found) == len(media), f"one tensor for each of {len(media)} media", got=len(found))
    for medium, embeddings in zip(media, found, strict=True):
        wanted = (medium.cost, tried.encoder.width)
        require(tuple(embeddings.shape) == wanted, f"expected 'm d' of {wanted}", got=tuple(embeddings.shape))
        require(embeddings.is_floating_point() and embeddings.isfinite().all(), "embeddings must be finite numbers")
    require(list(tried.encoder([])) == [], "no media have no embeddings")


@torch.no_grad()
def _equal(tried: _Tried, folder: Path) -> None:
    first, *others = tried.prepared()
    again = tried.encoder.prepare(tried.contents[0])
    same = first.tensors.keys() == again.tensors.keys() and all(
        torch.equal(value, again.tensors[name]) for name, value in first.tensors.items()
    )
    require(same and first.cost == again.cost, "equal content must be prepared equally")
    one, two = tried.encoder([first])[0], tried.encoder([again])[0]
    require(torch.equal(one, two), "equal media must have equal embeddings", got=_apart(one, two))
    rest = tried.encoder(others)
    require(not all(_alike(one, other) for other in rest), "media that differ must not all be embedded alike")


@torch.no_grad()
def _order(tried: _Tried, folder: Path) -> None:
    media = tried.prepared()
    forward, backward = tried.encoder(media), tried.encoder(media[::-1])[::-1]
    alone = [tried.encoder([medium])[0] for medium in media]
    for one, other, single in zip(forward, backward, alone, strict=True):
        require(_alike(one, other), "turning the media round must only turn round", got=_apart(one, other))
        require(_alike(one, single), "a medium must be embedded alone as beside others", got=_apart(one, single))


def _gradients(tried: _Tried, folder: Path) -> None:
    trainable = {name: value for name, value in tried.encoder.named_parameters() if value.requires_grad}
    require(trainable, "something must train until it is frozen", got="no parameter that requires a gradient")
    torch.stack([one.square().sum() for one in tried.encoder(tried.prepared())]).sum().backward()
    alive = 0
    for name, value in trainable.items():
        if value.grad is not None:
            require(value.grad.isfinite().all(), f"the gradient of {name} must be finite")
            alive += bool(value.grad.any())
    require(alive, "embeddings must have a gradient", got=f"none or 0 in each of {len(trainable)} parameters")


def _frozen(tried: _Tried, folder: Path) -> None:
    encoder = tried.encoder
    encoder.requires_grad_(False)
    require(encoder.frozen is True, "an encoder without trainable parameters is frozen", got=encoder.frozen)
    needing = [one.requires_grad for one in encoder(tried.prepared())]
    require(not any(needing), "a frozen encoder's embeddings have no gradient", got=needing)
    next(encoder.parameters()).requires_grad_(True)
    require(encoder.frozen is False, "with one trainable parameter it is not frozen", got=encoder.frozen)


@torch.no_grad()
def _passes(tried: _Tried, folder: Path) -> None:
    memo = Memo()
    # as a model lends it, which knows encoders and not what is inside them
    tried.encoder.memo = memo
    media = tried.prepared()
    tried.encoder(media)
    wanted = {tried.modality: len(media)}
    fix = "call self.ran(len(media)) once in forward"
    require(dict(memo.passes) == wanted, f"it must count {wanted}", got=dict(memo.passes), fix=fix)


@torch.no_grad()
def _reload(tried: _Tried, folder: Path) -> None:
    saved = folder / "saved"
    tried.encoder.save(saved)
    again = tried.load(saved)
    for number, (one, other) in enumerate(zip(tried.prepared(), tried.prepared(again), strict=True)):
        require(one.cost == other.cost, "a saved encoder must prepare the same", got=f"{one.cost}, {other.cost}")
        before, after = tried.encoder([one])[0], again([other])[0]
        require(torch.equal(before, after), f"medium {number} must be embedded the same", got=_apart(before, after))
    before, after = dict(tried.encoder.facts), dict(again.facts)
    require(before == after, "its facts must come back", got=sorted(set(before.items()) ^ set(after.items()), key=str))


def _facts(tried: _Tried, folder: Path) -> None:
    said = [dict(tried.load(tried.probe.folder, at).facts) for at in range(len(tried.probe.options))]
    for at, one in enumerate(said):
        again = dict(tried.load(tried.probe.folder, at).facts)
        require(repr(sorted(one.items())) == repr(sorted(again.items())), "equal settings must have equal facts")
        require(str(folder) not in repr(one), "facts must not depend on where it lies", got=one)
        for other in said[:at]:
            require(one != other, f"options {tried.probe.options[at]} must be told by its facts", got=one)


def _foreign(tried: _Tried, folder: Path) -> None:
    with refuses("content of another modality", ModelError):
        tried.encoder.prepare(Content(modality="zz-nobody", tensor=torch.zeros(3, 8, 8)))
    with refuses("an option that it does not have", ConfigError):
        tried.kind.load(str(tried.probe.folder), zz_unknown=1)


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one - other).abs().max() <= TOLERANCE * one.abs().max())


def _apart(one: Tensor, other: Tensor) -> str:
    if one.shape != other.shape:
        return f"shapes {tuple(one.shape)} and {tuple(other.shape)}"
    return f"up to {(one - other).abs().max().item():.1e} apart, of {one.abs().max().item():.1e}"
