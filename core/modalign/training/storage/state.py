"""All that a training run needs to go on where it stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeAlias, final

from torch import Tensor

from modalign.errors import CheckpointError

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"


@final
@dataclass(frozen=True, kw_only=True)
class TrainState:
    """A run at the end of an optimizer step.

    step: optimizer steps done.
    position: samples taken from the endless keyed order, over all ranks.
    tensors: trainable parameters and the optimizer's moments, by flat names.
    data: anything else that JSON can hold; numbers may be infinite or NaN.
    rng: what `rng_state` gave: uint8 ``n``, or ``w n`` of w ranks.
    world_size: ranks that trained.
    digests: of what the run stands on (config, data, model), by name.
    """

    step: int
    position: int
    tensors: Mapping[str, Tensor]
    data: Mapping[str, JSON] = field(default_factory=lambda: MappingProxyType({}))
    rng: Mapping[str, Tensor] = field(default_factory=lambda: MappingProxyType({}))
    world_size: int = 1
    digests: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        for name, least in (("step", 0), ("position", 0), ("world_size", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                msg = f"{name} of a TrainState is an integer of at least {least}, not {value!r}"
                raise ValueError(msg)

    def refuse_other(self, digests: Mapping[str, str], *, allow: Iterable[str] = ()) -> None:
        """Raise where the run that wants to go on stands on something else, naming all that differs.

        digests: of the run that wants to go on.
        allow: names that may differ.
        """
        names = sorted((set(digests) | set(self.digests)) - set(allow))
        if wrong := [name for name in names if digests.get(name) != self.digests.get(name)]:
            raise CheckpointError(
                f"the checkpoint of step {self.step} is of another run",
                got=f"differs in {', '.join(wrong)}",
                fix="give this run what the checkpoint was trained with, or another output folder",
            )
