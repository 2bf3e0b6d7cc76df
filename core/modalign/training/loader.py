"""Micro-batches in the order of a plan, prepared by worker processes or in this one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.reduction import ForkingPickler
from types import MappingProxyType
from typing import Protocol, final, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset

from modalign.assembler import Sample, assemble
from modalign.batch import Batch
from modalign.errors import ModalignError, ResourceError
from modalign.objectives.base import Objective
from modalign.training.plan import Pick, Plan


def _thaw(proxy: Mapping[str, object]) -> tuple[type[dict[str, object]], tuple[dict[str, object]]]:
    return dict, (dict(proxy),)


# batches cross from a worker with the empty, frozen mappings that are defaults of core's dataclasses
ForkingPickler.register(MappingProxyType, _thaw)


@runtime_checkable
class Samples(Protocol):
    """Data that is prepared for a model and an objective: what `modalign.data.prepare` returns."""

    def __len__(self) -> int: ...

    def sample(self, position: int, seed: int) -> Sample:
        """The sample at a position of the endless order that belongs to a seed."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """One micro-batch of one process.

    batch: for the model.
    samples: how many comparisons of it count.
    tokens: what the backbone reads for them.
    """

    batch: Batch
    samples: int
    tokens: int

    @property
    def ids(self) -> list[str]:
        """The comparisons it holds, once each."""
        return list(dict.fromkeys(self.batch.ids))


@final
@dataclass(frozen=True, kw_only=True)
class Assembling:
    """How samples become a batch: the same in every worker.

    share: lay the responses to a prompt out as branches of one trunk.
    pad: token id for the ends of short rows.
    objective: whose mathematics must hold for the kinds of unit in a sample.
    """

    share: bool
    pad: int
    objective: Objective

    def __call__(self, found: Sequence[tuple[Pick, Sample | ModalignError]]) -> MicroBatch | ModalignError:
        samples: list[Sample] = []
        for pick, sample in found:
            if isinstance(sample, ModalignError):
                return sample  # raised by the process that trains, whole and not as a string from a worker
            samples.append(sample if pick.real else replace(sample, weight=0.0))
        units = self.objective.needs.units
        batch = assemble(samples, share=self.share, pad=self.pad, units=units)
        try:
            self.objective.refuse(frozenset(segment.kind for segment in batch.segments))
        except ModalignError as error:
            return error
        real = sum(pick.real for pick, _ in found)
        return MicroBatch(batch=batch, samples=real, tokens=sum(map(len, batch.layout.spans)) if real else 0)


class _Picked(Dataset[tuple[Pick, Sample | ModalignError]]):
    def __init__(self, samples: Samples, seed: int) -> None:
        self.samples, self.seed = samples, seed

    def __getitem__(self, index: Pick) -> tuple[Pick, Sample | ModalignError]:
        try:
            return index, self.samples.sample(index.position, self.seed)
        except ModalignError as error:
            return index, error


def load_steps(
    samples: Samples,
    plan: Plan,
    assembling: Assembling,
    *,
    rank: int,
    seed: int,
    first: int = 0,
    workers: int = 0,
) -> Iterator[list[MicroBatch] | ModalignError]:
    """The micro-batches of each step from ``first`` on, or what is wrong with a sample of it.

    Their order does not depend on the workers.
    """
    picks = (micro for step in range(first, plan.steps) for micro in plan.micro_batches(step, rank=rank))
    loader = DataLoader(
        _Picked(samples, seed),
        batch_sampler=picks,  # pyright: ignore[reportArgumentType]  # any iterable of keys is one
        collate_fn=assembling,
        num_workers=workers,
        # a generator of its own: to start iterating must not move the global random state, or a resumed run differs
        generator=torch.Generator().manual_seed(seed),
    )
    found = iter(loader)
    for step in range(first, plan.steps):
        micro: list[MicroBatch] = []
        problem: ModalignError | None = None
        for _ in plan.micro_batches(step, rank=rank):
            one = _next(found)
            if isinstance(one, ModalignError):
                problem = problem or one
            else:
                micro.append(one)
        yield problem or micro


def _next(found: Iterator[MicroBatch | ModalignError]) -> MicroBatch | ModalignError:
    try:
        return next(found)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise ResourceError(
            "a process that prepares samples died",
            where="dataloader_num_workers",
            got=str(error).splitlines()[0],
            fix="it may have run out of memory: use fewer workers, or dataloader_num_workers=0 to see the cause",
        ) from error
