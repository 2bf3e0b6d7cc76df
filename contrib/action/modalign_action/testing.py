"""What the contract is tried on: example chunks, a tiny encoder, and tiny models that make actions."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from modalign.composing import compose
from modalign.content import Part
from modalign.model import Model
from modalign.testing.encoder_laws import EncoderProbe
from modalign.world.concept import concepts
from modalign_action.expert import new_expert
from modalign_action.space import ActionSpace
from modalign_action.world import HERTZ, STEPS, ActionDepiction

__all__ = ["binned", "encoder", "expert", "parts", "tiny_expert", "tiny_space"]


def tiny_space(*, bins: int = 32) -> ActionSpace:
    """Of the oracle world's movements."""
    wide = (0.06,) * 3 + (0.01,) * 3
    return ActionSpace(steps=STEPS, low=(*(-one for one in wide), 0.0), high=(*wide, 1.0), rate=HERTZ, bins=bins)


def tiny_expert(folder: Path, *, seed: int = 0) -> Path:
    """An untrained expert of a few thousand weights."""
    return new_expert(tiny_space(), folder, seed=seed, width=32, depth=2, heads=4)


def parts() -> list[Part]:
    """Different movements of one size, the first without a rate."""
    every = concepts(ActionDepiction.attributes)
    found = [ActionDepiction().depict(one, seed=number) for number, one in enumerate(islice(every, 6))]
    return [Part(modality="action", value=found[0].value), *found[1:]]


def encoder(folder: Path) -> EncoderProbe:
    """A tiny encoder with weights of its own, in an empty folder."""
    tiny_space().save(folder)
    return EncoderProbe(folder=folder, options=({"width": 16},))


def expert(folder: Path) -> Path:
    """A tiny expert, in an empty folder."""
    return tiny_expert(folder)


def binned(folder: Path) -> Model:
    """A tiny language model that writes bins."""
    from modalign_text.testing import tiny_model

    tiny_space().save(folder / "action")
    words = tiny_model(folder / "words", scale=4.0)
    return compose(words, decoders={"action": {"path": str(folder / "action"), "type": "action-bins"}})
