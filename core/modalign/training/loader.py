"""Micro-batches in the order of a plan, prepared by worker processes or in this one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from types import TracebackType
from typing import Protocol, Self, cast, final, runtime_checkable

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from modalign.assembler import Sample, assemble
from modalign.batch import Batch
from modalign.errors import ModalignError, ResourceError
from modalign.objectives.base import Objective
from modalign.training.plan import Pick, Plan

_OF_WORKER = "Caught "  #: how torch begins what an error of a worker says, raised again by the process that trains
_PATIENCE = 5.0  #: seconds


@runtime_checkable
class Samples(Protocol):
    """Data that is prepared for a model and an objective: what `modalign.data.prepare` returns."""

    def __len__(self) -> int: ...

    def sample(self, position: int, seed: int) -> Sample:
        """The sample at a position of the endless order that belongs to a seed."""
        ...


@runtime_checkable
class Named(Protocol):
    """Samples that can say which row one comes from without making it."""

    def name(self, position: int, seed: int) -> str:
        """What messages call the sample at a position."""
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


_Found = tuple[Pick, Sample | ModalignError]


def grouped(planned: Sequence[Sequence[_Found]]) -> list[list[_Found]]:
    """The samples of a step laid into as many micro-batches, of the same sizes, like ones together.

    The loss of a step is a sum over its samples, divided by what all of them count: it stays the same but for rounding.
    Less is filled up, and a micro-batch of words alone runs no tower. The dearest come first: where memory runs out it
    does so at once.

    planned: of each micro-batch; a problem of a sample leaves everything where it is.
    """
    every = [one for micro in planned for one in micro]
    samples = [sample for _, sample in every if isinstance(sample, Sample)]
    if len(samples) < len(every):
        return [list(micro) for micro in planned]
    order = sorted(range(len(every)), key=lambda at: alike(samples[at]), reverse=True)
    ends = list(accumulate(len(micro) for micro in planned))
    return [[every[at] for at in order[start:end]] for start, end in pairwise([0, *ends])]


def alike(sample: Sample) -> tuple[tuple[str, ...], int]:
    """What samples are grouped by: the modalities read and scored in them, and tokens of the longest sequence."""
    names = {segment.modality for one in sample.encoded for segment in one.segments}
    names |= {medium.modality for one in sample.encoded for medium in one.media.values()}
    return tuple(sorted(names)), sample.length


class _Picked(Dataset[_Found]):
    """Samples by pick, and in shared memory what each worker is at: a decoder that crashes takes its process along."""

    def __init__(self, samples: Samples, seed: int, workers: int) -> None:
        self.samples, self.seed = samples, seed
        self.at = torch.full((max(workers, 1),), -1).share_memory_()

    def __getitem__(self, index: Pick) -> _Found:
        worker = get_worker_info()
        number = 0 if worker is None else worker.id
        self.at[number] = index.position
        try:
            return index, self.samples.sample(index.position, self.seed)
        except ModalignError as error:
            return index, error
        finally:
            self.at[number] = -1

    @property
    def underway(self) -> list[str]:
        """The samples that workers are at, or were at when they died."""
        samples = self.samples
        return [
            samples.name(position, self.seed) if isinstance(samples, Named) else f"sample {position}"
            for position in self.at.tolist()
            if position >= 0
        ]


@final
class Steps:
    """The micro-batches of each step, or what is wrong with a sample of it; their order does not depend on workers.

    Also a context: within it a worker that dies is an error that names the rows that were being made, wherever the
    main process is when it learns of it.
    """

    def __init__(
        self, picked: _Picked, plan: Plan, assembling: Assembling, *, rank: int, first: int, workers: int, group: bool
    ) -> None:
        self._picked, self._plan, self._rank, self._first = picked, plan, rank, first
        self._assembling, self._group = assembling, group
        picks = (micro for step in range(first, plan.steps) for micro in plan.micro_batches(step, rank=rank))
        self._loader = DataLoader(
            picked,
            batch_sampler=picks,  # pyright: ignore[reportArgumentType]  # any iterable of keys is one
            collate_fn=list if group else assembling,
            num_workers=workers,
            # a generator of its own: to start iterating must not move the global random state, or a resumed run differs
            generator=torch.Generator().manual_seed(picked.seed),
        )

    def __iter__(self) -> Iterator[list[MicroBatch] | ModalignError]:
        found = iter(self._loader)
        for step in range(self._first, self._plan.steps):
            given = [self._next(found) for _ in self._plan.micro_batches(step, rank=self._rank)]
            if self._group:
                made = [self._assembling(one) for one in grouped(cast("list[list[_Found]]", given))]
            else:
                made = cast("list[MicroBatch | ModalignError]", given)
            problem = next((one for one in made if isinstance(one, ModalignError)), None)
            yield problem or [one for one in made if isinstance(one, MicroBatch)]

    def _next(self, found: Iterator[object]) -> object:
        try:
            return next(found)
        except (OSError, EOFError) as error:
            if self._loader.num_workers == 0 or str(error).startswith(_OF_WORKER):
                raise
            # the connection to a worker broke; word of its death, which names it, is a moment behind
            time.sleep(_PATIENCE)
            raise self._died(str(error)) from error

    def _died(self, said: str) -> ResourceError:
        return ResourceError(
            "a process that prepares samples died",
            where=", ".join(self._picked.underway) or "dataloader_num_workers",
            got=said,
            fix="look at what is in that row; if it ran out of memory use fewer workers, and with "
            "dataloader_num_workers=0 the cause is seen",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # torch raises it from a signal handler, in the middle of whatever is going on
        if isinstance(error, RuntimeError) and "DataLoader worker" in str(error):
            raise self._died(str(error).splitlines()[0]) from error


def load_steps(
    samples: Samples,
    plan: Plan,
    assembling: Assembling,
    *,
    rank: int,
    seed: int,
    first: int = 0,
    workers: int = 0,
    group: bool = False,
) -> Steps:
    """The micro-batches of each step from ``first`` on.

    group: lay like samples of a step together, as `grouped` does.
    """
    picked = _Picked(samples, seed, workers)
    return Steps(picked, plan, assembling, rank=rank, first=first, workers=workers, group=group)
