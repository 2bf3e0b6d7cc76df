"""What a run is made of, in one place, so that its mechanics can be handed it whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from modalign.model import Model
from modalign.objectives.base import Objective
from modalign.training.callbacks import Callback
from modalign.training.config import TrainingConfig
from modalign.training.loader import Assembling, Samples
from modalign.training.plan import Plan
from modalign.training.ranks import Ranks
from modalign.training.reference import Policy, Scorer


@final
@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run is made of.

    scorers: by role, the policy among them.
    """

    model: Model
    objective: Objective
    config: TrainingConfig
    data: Samples
    eval_data: Samples | None
    assembling: Assembling
    plan: Plan
    ranks: Ranks
    policy: Policy
    scorers: Mapping[str, Scorer]
    callbacks: Sequence[Callback]
