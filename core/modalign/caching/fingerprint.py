"""What tells weights apart, without reading them back from the device one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A digest of weights, hex: of names, shapes and the sum of each tensor's bits as integers.

    A sum of integers is the same in every order, so a device sums it fast and alike; it sees other weights, and is no
    guard against an enemy.
    """
    sha = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        whole = {8: torch.int64, 4: torch.int32, 2: torch.int16}.get(value.element_size(), torch.uint8)
        total = value.detach().reshape(-1).contiguous().view(whole).sum(dtype=torch.int64)
        sha.update(f"{name}{value.dtype}{tuple(value.shape)}{int(total)}\0".encode())
    return sha.hexdigest()
