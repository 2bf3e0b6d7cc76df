"""An objective of your own: a class, and a plugin that gives it a name. It runs offline, on a tiny model made here.

A plugin is a distribution with an entry point (docs/plugins.md); `registry.scoped` is one for the time of a block, to
try things in a script or a notebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

from pydantic import PositiveFloat
from torch import Tensor

import modalign as ma
from modalign.batch import Targets
from modalign.hookspecs import Register
from modalign.objectives.base import Loss, Mean, Needs, Objective, pair_logps, pair_metrics
from modalign.registry import registry
from modalign.scores import Scores
from modalign.testing.laws import check_objective
from modalign_text.testing import tiny_model


@final
class Hinge(Objective):
    """``max(0, 1 - beta * margin of log-ratios)`` per pair: Eq. 10 of SLiC-HF, https://arxiv.org/abs/2305.10425.

    Equal log-ratios give 1.
    """

    needs: ClassVar[Needs] = Needs(roles=("policy", "reference"))

    beta: PositiveFloat = 0.1
    """How far the policy may move from the reference."""

    def __call__(
        self, scores: Mapping[str, Scores], targets: Targets, statistics: Mapping[str, Mean] | None = None
    ) -> Loss:
        chosen, rejected = pair_logps(scores["policy"], targets)
        reference_chosen, reference_rejected = pair_logps(scores["reference"], targets)
        chosen, rejected = self.beta * (chosen - reference_chosen), self.beta * (rejected - reference_rejected)
        weights = targets.weights.double()
        losses = (1 - (chosen - rejected)).clamp(min=0)  # b
        metrics = pair_metrics(chosen.detach(), rejected.detach(), weights)
        return Loss(sum=(losses * weights).sum(), count=weights.sum(), metrics=metrics)

    def count(self, targets: Targets, tokens: Tensor) -> Tensor:
        return targets.weights.double().sum()


class Plugin:
    """What a plugin's module says."""

    @ma.hookimpl
    def register_objectives(self, register: Register) -> None:
        register("hinge", f"{__name__}:Hinge")


words = ("red", "green", "blue", "one", "two", "three", "big", "small")
rows = [{"prompt": f"Say {word}.", "chosen": f" {word}", "rejected": " no"} for word in words]

check_objective(Hinge())  # the laws that our own objectives keep
with registry.scoped(Plugin(), name="hinge"):
    result = ma.Trainer(
        model=ma.load(tiny_model("example-model")),
        objective=registry.objective("hinge").model_validate({"beta": 0.5}),
        data=rows,
        output_dir="runs/example-hinge",
        learning_rate=1e-3,
    ).train()
print(f"the hinge loss is {result.metrics['loss']:.4f} after {result.steps} steps; it was 1 at the start")
