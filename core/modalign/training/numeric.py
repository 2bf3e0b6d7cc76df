"""What is said when a loss or a gradient is not a finite number."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from modalign.errors import NumericError
from modalign.model import Model
from modalign.scores import Scores
from modalign.training.loader import MicroBatch
from modalign.training.ranks import Json, Ranks


@final
@dataclass(frozen=True, kw_only=True)
class Seen:
    """What is kept of a micro-batch until its step is known to be finite.

    micro: the micro-batch.
    loss: 0-d, the sum.
    logps: log-likelihood of each response by role, ``r``.
    rewards: by head, ``r k``.
    """

    micro: MicroBatch
    loss: Tensor
    logps: Mapping[str, Tensor]
    rewards: Mapping[str, Tensor]

    @classmethod
    def of(cls, micro: MicroBatch, scores: Mapping[str, Scores], loss: Tensor) -> Seen:
        """The numbers without their graph."""
        return cls(
            micro=micro,
            loss=loss.detach(),
            logps={role: found.logps.detach() for role, found in scores.items()},
            rewards={name: value.detach() for name, value in scores["policy"].rewards.items()},
        )

    def culprit(self) -> tuple[str, list[str]] | None:
        """The first tensor that is not finite and the comparisons it concerns."""
        named = {f"log-likelihoods of the {role}": value for role, value in self.logps.items()}
        named |= {f"rewards of head {name}": value for name, value in self.rewards.items()}
        for name, value in named.items():
            bad = ~value.isfinite().reshape(len(value), -1).all(-1)  # r
            if bad.any():
                ids = [one for one, wrong in zip(self.micro.batch.ids, bad.tolist(), strict=True) if wrong]
                return name, list(dict.fromkeys(ids))
        return None if bool(self.loss.isfinite()) else ("the loss", self.micro.ids)

    def record(self) -> dict[str, Json]:
        """What the dump says of this micro-batch."""
        return {
            "ids": list(self.micro.ids),
            "loss": _number(float(self.loss)),
            "logps": {role: [_number(one) for one in value.tolist()] for role, value in self.logps.items()},
            "rows": self.micro.batch.tokens.shape[0],
            "longest": self.micro.batch.layout.longest,
        }


def raise_numeric(
    seen: Sequence[Seen], model: Model, ranks: Ranks, folder: Path, *, step: int, position: int, seed: int
) -> None:
    """Raise on every process, naming the step, the comparisons and the first tensor; the first one writes a dump."""
    parameters = {name: value for name, value in model.named_parameters() if not _finite(value)}
    gradients = [
        name for name, value in model.trainable().items() if value.grad is not None and not _finite(value.grad)
    ]
    found = next((culprit for one in seen if (culprit := one.culprit())), None)
    local: dict[str, Json] = {
        "rank": ranks.rank,
        "first": f"parameter {next(iter(parameters))}" if parameters else found[0] if found else None,
        "ids": list(found[1]) if found else [],
        "gradients": list(gradients[:20]),
        "micro_batches": [one.record() for one in seen],
    }
    everyone = [one for one in ranks.gather(local) if isinstance(one, dict)]
    guilty = next((one for one in everyone if one["first"]), None)
    first = str(guilty["first"]) if guilty else f"gradient of {gradients[0]}" if gradients else "the gradient's norm"
    ids = _names([one["ids"] for one in everyone]) or _names([[i for s in seen for i in s.micro.ids]])
    file = folder / f"nonfinite-step-{step}.json"
    dump: dict[str, Json] = {"step": step, "position": position, "seed": seed, "first": first, "ranks": list(everyone)}
    ranks.on_main(lambda: file.write_text(json.dumps(dump, indent=1) + "\n"))
    raise NumericError(
        f"step {step} is not finite; no parameter was changed by it",
        where=", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else ""),
        got=f"{first} (see {file.name} in the run folder)",
        fix="look at those samples; lower learning_rate, use bf16 instead of fp16, or set max_grad_norm",
    )


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value.detach()).all())


def _names(found: Sequence[Json]) -> list[str]:
    return list(dict.fromkeys(str(name) for names in found if isinstance(names, list) for name in names))


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)  # JSON has no NaN
