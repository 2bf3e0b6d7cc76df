"""What the tests share: rows of actions, and tiny models with the plugin's parts in them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

import modalign
from modalign.assembler import Sample, assemble
from modalign.comparison import Comparison
from modalign.config import AdapterConfig
from modalign.content import Message, Part, Response
from modalign.draws import Draws
from modalign.model import Model
from modalign.registry import registry
from modalign.scores import Scores
from modalign.world import Concept
from modalign_action.world import ActionDepiction

UP, DOWN = Concept(count=1, motion="up"), Concept(count=2, motion="down")
TABLE = [[0.0, 0.5, 1.0], [0.25, -0.5, 1.0]]


def action(concept: Concept, seed: int = 0) -> Part:
    return ActionDepiction().depict(concept, seed=seed)


def words(value: str) -> Part:
    return Part(modality="text", value=value)


def asked(concept: Concept, *more: Part) -> list[Message]:
    """A clip, and what shall be done."""
    clip = registry.depiction("video").depict(Concept(motion=concept.motion), seed=1)
    return [Message(role="user", parts=(clip, words(f"Go {concept.motion}."), *more))]


def answer(*parts: Part) -> Response:
    return Response(messages=(Message(role="assistant", parts=parts),))


def pair(wanted: Concept = UP, other: Concept = DOWN, number: int = 0) -> Comparison:
    found = Comparison.pair(asked(wanted), answer(action(wanted, number)), answer(action(other, number + 50)))
    return replace(found, id=f"{wanted.key}-{number}")


def discrete(parts: Path, adapter: AdapterConfig | None = None) -> Model:
    """Text and video to actions in bins."""
    return modalign.compose(
        parts / "words",
        encoders={"video": {"path": str(parts / "tower"), "type": "frames"}},
        decoders={"action": {"path": str(parts / "bins"), "type": "action-bins"}},
        adapter=adapter,
    )


def continuous(parts: Path, adapter: AdapterConfig | None = None) -> Model:
    """Text, video and what has been done to actions by flow matching; the expert has an adapter where there is one."""
    return modalign.compose(
        parts / "words",
        encoders={
            "video": {"path": str(parts / "tower"), "type": "frames"},
            "action": {"path": str(parts / "bins"), "options": {"width": 32}},
        },
        decoders={
            "action": {
                "path": str(parts / "expert"),
                "connector": {"queries": 4, "heads": 4},
                "adapter": adapter,
                "weight": 0.1,
            }
        },
        adapter=adapter,
    )


MODELS = {"discrete": discrete, "continuous": continuous}


def row(value: object, **facts: object) -> dict[str, object]:
    block = {"type": "action", "action": value, **facts}
    say = lambda role, content: [{"role": role, "content": content}]
    return {
        "prompt": say("user", "Go up"),
        "chosen": say("assistant", [block]),
        "rejected": say("assistant", [{"type": "action", "action": [[9.0, 9.0, 9.0]]}]),
    }


def rows(folder: Path, *found: dict[str, object]) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(one)}\n" for one in found))
    return file


def scored(model: Model, one: Comparison, *, count: int = 1) -> Scores:
    """Scores without a gradient.

    count: draws of noise of each medium.
    """
    sample = Sample(comparison=one, encoded=model.assembly.preparer.encode(one), own=len(one.responses))
    with torch.no_grad():
        return model(assemble([sample], share=model.shares), Draws(seed=0, count=count))
