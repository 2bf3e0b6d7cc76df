"""One function over many numbers in worker processes, in order; a process that dies names what it was at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast, final

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from modalign.errors import ResourceError

Made = TypeVar("Made")


@final
class _Calls(Dataset[Made], Generic[Made]):
    """A function as what a loader reads, and in shared memory the number each worker is at."""

    def __init__(self, function: Callable[[int], Made], workers: int) -> None:
        self.function = function
        self.at = torch.full((workers,), -1).share_memory_()

    def __getitem__(self, index: int) -> Made:
        worker = get_worker_info()
        assert worker is not None
        self.at[worker.id] = index
        made = self.function(index)
        self.at[worker.id] = -1
        return made


def spread(
    function: Callable[[int], Made], count: int, workers: int, place: Callable[[int], tuple[str, int]]
) -> Iterator[Made]:
    """What a function makes of 0, 1, ... up to ``count``, in that order.

    place: the file and row of a number, for the error of a process that dies.
    """
    calls = _Calls(function, workers)
    # a generator of its own: to start iterating must not move the global random state
    loader = DataLoader(
        calls,
        batch_size=None,
        sampler=range(count),
        num_workers=workers,
        generator=torch.Generator().manual_seed(0),
    )
    try:
        yield from cast("Iterator[Made]", iter(loader))
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        at = [place(number) for number in calls.at.tolist() if number >= 0]
        raise ResourceError(
            "a process that reads rows died",
            where=", ".join(f"{file}:{row}" for file, row in at) or None,
            got=str(error).splitlines()[0],
            fix="look at what is in that row; if it ran out of memory use fewer workers, and with "
            "dataloader_num_workers=0 the cause is seen",
        ) from error
