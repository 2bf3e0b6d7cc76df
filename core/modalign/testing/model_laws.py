"""Laws of a whole model: masks, gradients, draws, a reference that starts equal, order, and saving.

r rows, n tokens, a responses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from modalign.assembler import Sample, assemble
from modalign.batch import Batch
from modalign.comparison import Comparison
from modalign.config import AdapterConfig, ModelConfig
from modalign.content import Message, Part, Response
from modalign.draws import Draws
from modalign.errors import ConfigError, DataError, ModelError
from modalign.model import Model
from modalign.registration.admission import Entry
from modalign.registration.targets import resolve
from modalign.registry import Registry
from modalign.scores import Scores
from modalign.testing.case import Case, case, refuses, require
from modalign.testing.content_laws import examples

TOLERANCE = 1e-5  #: relative, of a response's log-likelihood: what another order of the same sums may change
_DRAWS = Draws(seed=3, count=2)
_PAIRS = 3

Make = Callable[[Path], Model]


def model_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    """What must hold of every model that an entry's probe makes."""

    def model(folder: Path) -> Model:
        made = _probed(entry, folder)
        if isinstance(made, Path):
            made = _loaded(plugins, entry, made)
        right = isinstance(made, Model)
        require(
            right, "a probe takes an empty folder and returns a Model, or a folder to load one from", got=type(made)
        )
        return cast(Model, made).eval()

    laws: tuple[tuple[str, Callable[[Registry, Model, Path], None]], ...] = (
        ("every segment is scored in units of its decoder's kind", _units),
        ("equal draws give equal scores", _equal_draws),
        ("gradients are finite and reach what trains", _gradients),
        ("the log-ratio to its own reference is exactly 0", _reference),
        ("the order of comparisons does not matter", _order),
        ("a response's score depends on its own row only", _masks),
        ("no score sees what it predicts", _causal),
        ("padding does not matter", _padding),
        ("a shared trunk equals separate rows", _sharing),
        ("a part that it does not take is a clear error", _foreign),
        ("it writes what it says it gives", _writes),
    )
    for law, check in laws:
        yield case(entry, law, lambda folder, check=check: check(plugins, model(folder), folder))
    if entry.kind == "loaders":
        yield case(
            entry,
            "saving and loading give the same scores",
            lambda folder: _reload(plugins, entry, model(folder), folder),
        )
        yield case(entry, "new adapters change nothing, and are saved", lambda folder: _adapted(plugins, entry, folder))
    if entry.kind == "decoders":
        yield case(entry, "its probe's model uses it", lambda folder: _uses(plugins, entry, model(folder)))


def _probed(entry: Entry, folder: Path) -> object:
    return cast("Callable[[Path], object]", resolve(cast(str, entry.declarations["probe"])))(folder)


def _loaded(plugins: Registry, entry: Entry, folder: Path, adapter: AdapterConfig | None = None) -> Model:
    config = ModelConfig(path=str(folder), adapter=adapter)
    if entry.kind == "loaders":
        loader = plugins.loader(entry.qualified)
        require(loader.claims(config) is True, "the loader must claim the folder of its own probe", got=folder.name)
        return loader.load(config)
    from modalign.loading import load

    return load(config)


def _pairs(plugins: Registry, model: Model) -> list[Comparison]:
    """Pairs whose responses hold one part of each modality that the model gives, of odd and different lengths."""
    takes, gives = sorted(model.assembly.takes), sorted(model.assembly.gives)
    require(takes and gives, "an assembly must say what it takes and gives", got=f"takes {takes}, gives {gives}")
    strings = {name for name, one in plugins.entries("modalities").items() if one.declarations.get("strings")}
    asked = _parts(plugins, [next((name for name in takes if name in strings), takes[0])])
    answers = _parts(plugins, gives)
    pairs = []
    for number in range(_PAIRS):
        prompt = Message(role="user", parts=(asked[0][number], asked[0][-1 - number]))
        chosen, rejected = (
            Response(messages=(Message(role="assistant", parts=tuple(parts[at % len(parts)] for parts in answers)),))
            for at in (number, number + 1)
        )
        pairs.append(replace(Comparison.pair((prompt,), chosen, rejected), id=f"law-{number}"))
    return pairs


def _parts(plugins: Registry, modalities: Sequence[str]) -> list[list[Part]]:
    found = [examples(plugins, modality, 2 * _PAIRS) for modality in modalities]
    for modality, parts in zip(modalities, found, strict=True):
        fix = "register a depiction of it, or a modality whose probe makes at least two parts"
        require(len(parts) > 1, f"there is nothing to try {modality} on", got=f"{len(parts)} example parts", fix=fix)
    # as many as asked for, whatever the plugin has
    return [[parts[at % len(parts)] for at in range(2 * _PAIRS)] for parts in found]


def _batch(model: Model, pairs: Sequence[Comparison], *, share: bool = False) -> Batch:
    preparer = model.assembly.preparer
    samples = [Sample(comparison=one, encoded=preparer.encode(one), own=len(one.responses)) for one in pairs]
    for sample in samples:
        require(
            len(sample.encoded) == sample.own, "a preparer gives one sequence per response", got=len(sample.encoded)
        )
    return assemble(samples, share=share, pad=preparer.pad)


@torch.no_grad()
def _score(model: Model, batch: Batch, draws: Draws = _DRAWS) -> Scores:
    return cast(Scores, model(batch, draws))


def _close(one: Tensor, other: Tensor, what: str) -> None:
    """Log-likelihoods of responses, ``a`` and ``a``."""
    same = torch.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE)
    apart = (one - other).abs().max().item() if one.shape == other.shape else f"{one.shape} and {other.shape}"
    require(same, what, got=f"log-likelihoods up to {apart} apart")


def _units(plugins: Registry, model: Model, folder: Path) -> None:
    batch = _batch(model, _pairs(plugins, model))
    scores = _score(model, batch)
    scored = torch.zeros(len(batch.segments), dtype=torch.bool)
    for name, units in scores.units.items():
        owners = {number for number, one in enumerate(batch.segments) if one.decoder == name}
        require(set(units.segment.tolist()) <= owners, f"decoder {name!r} must score its own segments only")
        require(units.values.shape == units.segment.shape, "one value per unit, 'u'", got=tuple(units.values.shape))
        require(units.values.isfinite().all(), f"decoder {name!r} must give finite log-likelihoods")
        if units.kind == "token":
            require((units.values <= 1e-6).all(), "the log-probability of a token is at most 0", got=units.values.max())
        kinds = {batch.segments[number].kind for number in owners}
        require(kinds <= {units.kind}, f"decoder {name!r} gives units of kind {units.kind}", got=sorted(kinds))
        scored[units.segment.cpu()] = True
    forgotten = [one.modality for one, done in zip(batch.segments, scored, strict=True) if one.weight and not done]
    require(batch.segments and not forgotten, "every segment must have a unit", got=f"none for {forgotten or 'any'}")


def _equal_draws(plugins: Registry, model: Model, folder: Path) -> None:
    batch = _batch(model, _pairs(plugins, model))
    one, two = _score(model, batch), _score(model, batch)
    require(
        torch.equal(one.logps, two.logps), "equal draws must give equal scores", got=(one.logps - two.logps).abs().max()
    )
    if "draw" in one.kinds:
        other = _score(model, batch, replace(_DRAWS, seed=4))
        require(
            not torch.equal(one.logps, other.logps), "another seed must give other scores of draws", got="equal ones"
        )


def _gradients(plugins: Registry, model: Model, folder: Path) -> None:
    trainable = model.trainable()
    require(trainable, "something must train", got="no parameter that requires a gradient")
    scores = cast(Scores, model(_batch(model, _pairs(plugins, model)), _DRAWS))
    for name, units in scores.units.items():
        require(units.values.requires_grad, f"the scores of decoder {name!r} must have a gradient", got="detached ones")
    scores.logps.sum().backward()
    alive = 0
    for name, parameter in trainable.items():
        if parameter.grad is not None:
            require(parameter.grad.isfinite().all(), f"the gradient of {name} must be finite")
            alive += bool(parameter.grad.any())
    require(alive, "scores must have a gradient", got=f"none or 0 in each of {len(trainable)} trainable parameters")


def _reference(plugins: Registry, model: Model, folder: Path) -> None:
    batch = _batch(model, _pairs(plugins, model))
    policy = _score(model, batch).logps
    reference = _score(deepcopy(model), batch).logps
    require(torch.equal(policy, reference), "a copy must score the same", got=(policy - reference).abs().max())
    if (adapters := model.assembly.adapters) is not None:
        with adapters.off():
            base = _score(model, batch).logps
        require(torch.equal(policy, base), "new adapters must change nothing", got=(policy - base).abs().max())


def _order(plugins: Registry, model: Model, folder: Path) -> None:
    pairs = _pairs(plugins, model)
    forward = _score(model, _batch(model, pairs)).logps.reshape(-1, 2)
    backward = _score(model, _batch(model, pairs[::-1])).logps.reshape(-1, 2).flip(0)
    _close(forward, backward, "turning the batch round must only turn its scores round")


def _masks(plugins: Registry, model: Model, folder: Path) -> None:
    pairs = _pairs(plugins, model)
    together = _score(model, _batch(model, pairs)).logps.reshape(-1, 2)
    alone = torch.stack([_score(model, _batch(model, [one])).logps for one in pairs])
    _close(together, alone, "a comparison must score the same alone and in a batch")


def _causal(plugins: Registry, model: Model, folder: Path) -> None:
    batch = _batch(model, _pairs(plugins, model))
    if not batch.tokens.numel():  # a generator without a backbone has none
        return
    rows, last = batch.ends.unbind(-1)  # a, a
    tokens = batch.tokens.clone()
    tokens[rows, last] = batch.tokens[rows, 0]  # nothing follows these, and what is predicted stands in batch.units
    changed = replace(batch, tokens=tokens)
    _close(
        _score(model, batch).logps,
        _score(model, changed).logps,
        "the last token of a row must be seen by none before it",
    )


def _padding(plugins: Registry, model: Model, folder: Path) -> None:
    batch = _batch(model, _pairs(plugins, model))
    if not batch.tokens.numel():
        return
    real = batch.layout.real.to(batch.tokens.device)  # r n
    other = batch.tokens[real].min()
    filled = replace(batch, tokens=torch.where(real, batch.tokens, other))
    _close(_score(model, batch).logps, _score(model, filled).logps, "what stands in the padding must not matter")


def _sharing(plugins: Registry, model: Model, folder: Path) -> None:
    if not model.shares:
        return
    pairs = _pairs(plugins, model)
    shared = _score(model, _batch(model, pairs, share=True)).logps
    _close(shared, _score(model, _batch(model, pairs)).logps, "branches of one trunk must score as separate rows do")


def _foreign(plugins: Registry, model: Model, folder: Path) -> None:
    pair = _pairs(plugins, model)[0]
    stranger = Message(role="user", parts=(Part(modality="zz-nobody", value="?"),))
    with refuses("a part of a modality that it does not take", DataError):
        model.assembly.preparer.encode(replace(pair, prompt=(stranger, *pair.prompt)))


def _writes(plugins: Registry, model: Model, folder: Path) -> None:
    prompts = [pair.prompt for pair in _pairs(plugins, model)]
    written = model.generate(prompts, max_new_tokens=3, batch_size=2)
    require(len(written) == len(prompts), "one response per prompt", got=len(written))
    given = {part.modality for response in written for part in response.parts()}
    require(given <= model.assembly.gives, f"it says it gives {sorted(model.assembly.gives)}", got=sorted(given))


def _reload(plugins: Registry, entry: Entry, model: Model, folder: Path) -> None:
    batch = _batch(model, _pairs(plugins, model))
    saved = folder / "saved"
    model.save(saved)
    again = _loaded(plugins, entry, saved).eval()
    _close(
        _score(model, batch).logps, _score(again, batch).logps, "a saved model must score the same when it is loaded"
    )


def _adapted(plugins: Registry, entry: Entry, folder: Path) -> None:
    """A loader need not know adapters; one that makes them makes them neutral, switches them off and saves them."""
    made = _probed(entry, folder)
    if not isinstance(made, Path):
        return
    try:
        model = _loaded(plugins, entry, made, AdapterConfig(r=2)).eval()
    except (ConfigError, ModelError):
        return
    require(model.assembly.adapters is not None, "a model with adapters must have `Assembly.adapters`", got="None")
    _reference(plugins, model, folder)
    with torch.no_grad():
        for number, parameter in enumerate(model.trainable().values()):
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)))
    _reload(plugins, entry, model, folder)


def _uses(plugins: Registry, entry: Entry, model: Model) -> None:
    made = plugins.decoder(entry.qualified)
    found = [one for one in model.decoders.values() if isinstance(one, made)]
    require(
        found, f"one decoder must be a {made.__name__}", got=[type(one).__name__ for one in model.decoders.values()]
    )
    for key in ("modality", "kind"):
        require(
            getattr(found[0], key) == entry.declarations[key],
            f"its {key} must be as declared",
            got=getattr(found[0], key),
        )
