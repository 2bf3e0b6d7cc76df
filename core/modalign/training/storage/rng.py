"""The random generators of this process, captured as bytes and set again.

Every tensor is uint8 and of a fixed length, so that ranks can gather theirs: `n` of one process, or `w n` of w ranks.
"""

from __future__ import annotations

import logging
import random
import struct
from collections.abc import Mapping

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from modalign.errors import CheckpointError

log = logging.getLogger(__name__)

# Mersenne Twister, as Python and numpy's global generator have it: 624 words, the place in them, and whether there is
# a second Gaussian left over from the last pair, and which.
_TWISTER = struct.Struct("<624IIBd")


def rng_state() -> dict[str, Tensor]:
    """States of the generators of Python, numpy, torch's CPU and this process's accelerator, uint8 ``n`` by name."""
    version, words, gauss = random.getstate()
    _check_version(version)
    legacy = np.random.get_state(legacy=False)
    if not isinstance(legacy, dict) or legacy["bit_generator"] != "MT19937":
        raise CheckpointError("cannot store the state of numpy's global generator", got=type(legacy).__name__)
    key = legacy["state"]
    states = {
        "python": _pack(words[:-1], words[-1], gauss),
        "numpy": _pack(key["key"].tolist(), key["pos"], legacy["gauss"] if legacy["has_gauss"] else None),
        "torch": torch.get_rng_state(),
    }
    if device := _accelerator():
        states[device] = torch.get_device_module(device).get_rng_state().cpu()
    return states


def set_rng_state(states: Mapping[str, Tensor], *, rank: int = 0) -> None:
    """Set the generators to what `rng_state` gave.

    states: ``n``, or ``w n`` gathered from w ranks.
    rank: whose states to take of the gathered ones.
    """
    mine = {name: _row(name, state, rank) for name, state in states.items()}
    device = _accelerator()
    here = ["python", "numpy", "torch"] + ([device] if device else [])
    if absent := [name for name in here[:3] if name not in mine]:
        raise CheckpointError(f"no state of the generator {absent[0]!r}", got=f"states of {', '.join(mine) or 'none'}")
    words, place, gauss = _unpack("python", mine["python"])
    random.setstate((3, (*words, place), gauss))
    words, place, gauss = _unpack("numpy", mine["numpy"])
    np.random.set_state(("MT19937", np.array(words, dtype=np.uint32), place, int(gauss is not None), gauss or 0.0))
    torch.set_rng_state(mine["torch"])
    if device and device in mine:
        torch.get_device_module(device).set_rng_state(mine[device])
    if other := sorted(set(mine) ^ set(here)):
        log.warning(
            "random states were saved for %s and this process has %s: it goes on with other random numbers on %s",
            ", ".join(mine),
            ", ".join(here),
            ", ".join(other),
        )


def _accelerator() -> str | None:
    """The type of this process's accelerator, if it is in use: asking would otherwise start it."""
    device = torch.accelerator.current_accelerator(check_available=True)
    if device is None:
        return None
    module = torch.get_device_module(device.type)
    started = getattr(module, "is_initialized", None)
    return device.type if started is None or started() else None


def _row(name: str, state: Tensor, rank: int) -> Tensor:
    ranks = state if state.ndim == 2 else rearrange(state, "n -> 1 n")  # w n
    if not 0 <= rank < len(ranks):
        raise CheckpointError(
            f"no state of the generator {name!r} for rank {rank}",
            got=f"states of {len(ranks)} rank(s)",
            fix="resume with as many processes as saved, or seed the generators anew",
        )
    return ranks[rank].clone()  # torch 2.14 reads a generator's state from the start of the storage, whatever the view


def _pack(words: tuple[int, ...] | list[int], place: int, gauss: float | None) -> Tensor:
    data = _TWISTER.pack(*words, place, gauss is not None, gauss or 0.0)
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def _unpack(name: str, state: Tensor) -> tuple[tuple[int, ...], int, float | None]:
    data = state.numpy().tobytes()
    if len(data) != _TWISTER.size:
        raise CheckpointError(f"cannot read the state of {name}'s generator", got=f"{len(data)} bytes")
    *words, place, left, gauss = _TWISTER.unpack(data)
    return tuple(words), place, gauss if left else None


def _check_version(version: int) -> None:
    if version != 3:
        raise CheckpointError("cannot store the state of Python's generator", got=f"version {version} of its state")
