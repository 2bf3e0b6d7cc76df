"""What crosses processes: sums, small JSON values, and work that the first process does for all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from modalign.errors import ConfigError, DistributedError
from modalign.model import Model
from modalign.objectives.base import Mean

if TYPE_CHECKING:
    from accelerate import Accelerator

_SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM")  #: would replace the parameters that the optimizer holds

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def make_accelerator(mixed_precision: str, model: Model) -> Accelerator:
    """The accelerator of this process, on a CPU where there is no other device."""
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    # accelerate keeps one state per process and refuses another precision, but a process may train twice: SFT, then DPO
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != mixed_precision:
        AcceleratorState._reset_state()
    device = torch.accelerator.current_accelerator(check_available=True)
    usable = device is not None and device.type != "mps"  # likelihoods are summed in float64, which it does not have
    # a micro-batch without media leaves out the parameters of what reads and writes them
    mixed = len(model.encoders) > 0 or len(model.decoders) > 1
    try:
        found = Accelerator(
            cpu=not usable,
            mixed_precision=mixed_precision,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=mixed)],
        )
        problem = None if mixed_precision == "no" or found.native_amp else "a device that accelerate leaves in float32"
    except ValueError as error:
        found, problem = None, str(error)
    if found is None or problem is not None:
        raise ConfigError(
            f"mixed_precision={mixed_precision!r} does not work here",
            where="mixed_precision",
            got=problem,
            fix="use bf16 or no",
        )
    if found.distributed_type in _SHARDED:
        raise ConfigError(
            "this trainer cannot shard a model",
            got=f"a launcher that asks for {found.distributed_type.value}",
            fix="launch with torchrun, or with an `accelerate config` without it",
        )
    found.gradient_accumulation_steps = 1  # a launcher's own number would divide a loss that is divided already
    return found


@final
class Ranks:
    """The processes of a run. With one process nothing is sent.

    rank, world: this process and how many there are.
    main: whether this is the first process, the one that writes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.main = accelerator.is_main_process
        self.device: torch.device = accelerator.device
        self._names: list[str] = []

    def add(self, values: Tensor) -> Tensor:
        """The sum over processes, elementwise."""
        if self.world == 1:
            return values
        summed = self.accelerator.reduce(values, reduction="sum")
        assert isinstance(summed, Tensor)
        return summed

    def add_means(self, means: Mapping[str, Mean]) -> dict[str, Mean]:
        """Means over all processes; all of them hold the same names."""
        if self.world == 1 or not means:
            return dict(means)
        flat = self.add(torch.stack([part.double() for mean in means.values() for part in (mean.sum, mean.count)]))
        return {
            name: Mean(sum=sum_, count=count)
            for name, (sum_, count) in zip(means, flat.reshape(-1, 2).unbind(0), strict=True)
        }

    def total(self, found: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
        """Sum and count of each name over all processes, as numbers; a process may lack names that others have.

        found: by name, ``2``: a sum and a count.
        """
        # one small reduction a step: the names are exchanged only when a process sees one that is new
        new = [name for name in found if name not in self._names]
        if self.world == 1:
            self._names.extend(new)
        elif float(self.add(torch.tensor(float(len(new)), dtype=torch.float64, device=self.device))):
            for names in self.gather(list(new)):
                assert isinstance(names, list)
                self._names.extend(str(name) for name in names if name not in self._names)
        zero = torch.zeros(2, dtype=torch.float64, device=self.device)
        if not self._names:
            return {}
        flat = self.add(torch.stack([found.get(name, zero) for name in self._names]))
        rows = flat.cpu().tolist()
        return {name: (row[0], row[1]) for name, row in zip(self._names, rows, strict=True) if row[1] != 0.0}

    def gather(self, value: Json) -> list[Json]:
        """The value of every process, in order of rank. Sent as JSON bytes, so that nothing is unpickled."""
        if self.world == 1:
            return [value]
        said = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=self.device)
        lengths = self.accelerator.gather(torch.tensor([len(said)], device=self.device))
        assert isinstance(lengths, Tensor)
        padded = torch.zeros(int(lengths.max()), dtype=torch.uint8, device=self.device)
        padded[: len(said)] = said
        rows = self.accelerator.gather(padded[None])
        assert isinstance(rows, Tensor)
        cut = zip(rows.cpu(), lengths.tolist(), strict=True)
        return [json.loads(bytes(row[:length].tolist())) for row, length in cut]

    def agree(self, what: str, value: Json) -> None:
        """Raise on every process unless all of them hold the same value."""
        said = self.gather(value)
        if any(one != said[0] for one in said):
            raise DistributedError(
                f"the processes disagree about {what}",
                got=", ".join(f"rank {rank}: {one}" for rank, one in enumerate(said)),
                fix="start every process with the same command, files and versions",
            )

    def raise_together(self, problem: Exception | None) -> None:
        """Raise on every process where one of them has a problem, so that no other waits for it."""
        failed = problem is not None
        if self.world > 1:
            failed = bool(self.add(torch.tensor(float(failed), device=self.device)))
        if problem is not None:
            raise problem
        if failed:
            raise DistributedError("another process failed", fix="read its message")

    def on_main(self, action: Callable[[], object]) -> None:
        """Let the first process do something while the others wait; if it fails, all of them raise."""
        problem: Exception | None = None
        if self.main:
            try:
                action()
            except Exception as error:
                problem = error
        self.raise_together(problem)
