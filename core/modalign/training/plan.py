"""Which positions of the data's endless order each step, micro-step and process takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from modalign.training.config import TrainingConfig


@final
@dataclass(frozen=True)
class Pick:
    """One sample of a micro-batch.

    position: in the data's endless order.
    real: whether it counts; one that does not keeps a process busy that has no sample left.
    """

    position: int
    real: bool = True


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """Step s takes the positions from ``s * together``, however they are split; the last step may be short.

    total: positions of the whole run.
    batch: comparisons per device and micro-batch.
    accumulation: micro-batches per step.
    world: processes.

    >>> plan = Plan(total=7, batch=1, accumulation=2, world=2)
    >>> [[pick.position for pick in micro] for micro in plan.micro_batches(0, rank=1)]
    [[1], [3]]
    >>> plan.steps, plan.micro_batches(1, rank=1)
    (2, [(Pick(position=5, real=True),), (Pick(position=4, real=False),)])
    """

    total: int
    batch: int
    accumulation: int = 1
    world: int = 1

    @property
    def together(self) -> int:
        """Comparisons of one optimizer step over all processes."""
        return self.batch * self.accumulation * self.world

    @property
    def steps(self) -> int:
        """Optimizer steps of the run."""
        return math.ceil(self.total / self.together)

    def micro_batches(self, step: int, *, rank: int) -> list[tuple[Pick, ...]]:
        """What a process runs in a step: as many micro-batches on every process, none of them empty.

        Micro-batch m of all processes together is one run of positions, so that two processes of batch 2 see in each
        micro-step what one process of batch 4 does.
        """
        start, stop = step * self.together, min((step + 1) * self.together, self.total)
        across = self.batch * self.world
        micro: list[tuple[Pick, ...]] = []
        for chunk in range(start, stop, across):
            first = chunk + rank * self.batch
            mine = tuple(Pick(position) for position in range(first, min(first + self.batch, stop)))
            micro.append(mine or (Pick(start, real=False),))
        return micro


def training_plan(config: TrainingConfig, *, samples: int, world: int) -> Plan:
    """The plan of a run over so many samples."""
    together = config.per_device_train_batch_size * config.gradient_accumulation_steps * world
    total = math.ceil(config.num_train_epochs * samples) if config.max_steps is None else config.max_steps * together
    return Plan(
        total=total,
        batch=config.per_device_train_batch_size,
        accumulation=config.gradient_accumulation_steps,
        world=world,
    )
