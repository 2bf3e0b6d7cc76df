"""Which implementation of an op runs: the one asked for, or none; nothing falls back silently."""

from __future__ import annotations

import logging
import os
from functools import cache
from importlib.util import find_spec
from typing import Final, Literal

from torch import Tensor

from modalign.errors import ConfigError, KernelUnavailable

Impl = Literal["auto", "reference", "kernel"]

#: whether kernels run in Triton's interpreter, on the CPU; Triton too reads it once, where a kernel is defined
INTERPRETED: Final = os.environ.get("TRITON_INTERPRET") == "1"


def takes_kernel(op: str, impl: Impl, value: Tensor, log: logging.Logger) -> bool:
    """Whether an op runs its Triton kernel; a `KernelUnavailable` where it was asked for by name and cannot.

    op: its name.
    value: what it is run on.
    log: is told once what `auto` takes.
    """
    if impl not in ("auto", "reference", "kernel"):
        raise ConfigError(f"{op} has no implementation {impl!r}", got="auto, reference, kernel", fix="pass one of them")
    triton = find_spec("triton") is not None
    if impl == "auto":
        taken = triton and value.is_cuda
        announce(op, "kernel" if taken else "reference", log)
        return taken
    if impl == "kernel" and not triton:
        raise KernelUnavailable(f"{op}(impl='kernel') needs Triton", got="no triton", fix="pass impl='reference'")
    if impl == "kernel" and not (value.is_cuda or INTERPRETED):
        raise KernelUnavailable(
            f"{op}(impl='kernel') needs a GPU, or Triton's interpreter",
            got=f"a tensor on {value.device}, TRITON_INTERPRET unset",
            fix="pass impl='reference'",
        )
    return impl == "kernel"


@cache
def announce(op: str, taken: str, log: logging.Logger) -> None:
    """Say what `auto` takes, once."""
    log.info("%s: impl='auto' takes '%s'", op, taken)
