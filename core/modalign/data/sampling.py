"""The order of samples: a keyed permutation of one global index, the same in every process, kept nowhere."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import final

_ROUNDS = 8
_LEAST_BITS = 4  #: of a half; a Feistel network on fewer bits reaches too few of the permutations
_MASK = (1 << 64) - 1


@final
@dataclass(frozen=True)
class Permutation:
    """A bijection of [0, n) that seed and epoch choose.

    A balanced Feistel network (Luby and Rackoff 1988, https://doi.org/10.1137/0217022) on the next even number of
    bits, applied again while the result is n or more (cycle walking: Black and Rogaway 2002,
    https://doi.org/10.1007/3-540-45760-7_9). Its rounds mix with the finaliser of SplitMix64 (Steele, Lea and Flood
    2014, https://doi.org/10.1145/2660193.2660195). It needs no memory, and any index costs the same.

    seed, epoch: the key.
    n: how many there are.

    >>> [Permutation(0, 0, 5)(index) for index in range(5)]
    [1, 0, 4, 3, 2]
    """

    seed: int
    epoch: int
    n: int

    def __post_init__(self) -> None:
        if self.n < 1:
            msg = f"a permutation of at least 1 index, not {self.n}"
            raise ValueError(msg)

    def __call__(self, index: int) -> int:
        """Where an index goes."""
        if not 0 <= index < self.n:
            msg = f"an index of [0, {self.n}), not {index}"
            raise IndexError(msg)
        keys = _keys(self.seed, self.epoch)
        bits = max(_LEAST_BITS, ((self.n - 1).bit_length() + 1) // 2)
        half = (1 << bits) - 1
        while True:
            left, right = index >> bits, index & half
            for key in keys:
                left, right = right, left ^ (_mix(right + key) & half)
            index = left << bits | right
            if index < self.n:
                return index


def permutation(seed: int, epoch: int, n: int) -> Permutation:
    """The order of ``n`` rows in an epoch: a function from a position to a row."""
    return Permutation(seed, epoch, n)


@lru_cache(maxsize=64)
def _keys(seed: int, epoch: int) -> tuple[int, ...]:
    """A key of 64 bits for each round."""
    key = hashlib.blake2b(f"{seed} {epoch}".encode(), digest_size=8 * _ROUNDS, person=b"modalign order").digest()
    return tuple(int.from_bytes(key[at : at + 8], "little") for at in range(0, len(key), 8))


def _mix(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
