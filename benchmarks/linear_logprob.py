"""Times the language head beside plain torch and beside the fewest matmuls its gradient needs.

    python benchmarks/linear_logprob.py
    python benchmarks/linear_logprob.py --sizes 256x1024x32768 --rounds 15

floor3 is three matmuls of 2ndv flops (logits, d hidden, d weight) in the same loop. Rounds are interleaved, ratios are
medians of a round's own ratios, and peak memory over the inputs is taken in a fresh process per head.

n rows, d width, v vocabulary.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from modalign.ops.linear_logprob import chunked, reference

MIB = 1 << 20


def inputs(n: int, d: int, v: int, train_head: bool) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    hidden = torch.randn(n, d, requires_grad=True)
    weight = (torch.randn(v, d) / d**0.5).requires_grad_(train_head)
    return hidden, weight, torch.randint(v, (n,))


def floor(hidden: Tensor, weight: Tensor, target: Tensor, *, matmuls: int = 3) -> None:
    """The matmuls alone, on the same numbers."""
    del target
    with torch.no_grad():
        logits = hidden @ weight.T
        torch.mm(logits, weight)
        if matmuls > 2:
            torch.mm(logits.T, hidden)


def step(head: Callable[[Tensor, Tensor, Tensor], Tensor], hidden: Tensor, weight: Tensor, target: Tensor) -> None:
    """Forward and backward, as a loss would."""
    hidden.grad = weight.grad = None
    head(hidden, weight, target).sum().backward()


HEADS: dict[str, tuple[bool, Callable[[Tensor, Tensor, Tensor], None]]] = {
    "floor3": (True, floor),
    "naive": (True, partial(step, reference)),
    "chunked": (True, partial(step, chunked)),
    "chunked, recomputing": (True, partial(step, partial(chunked, keep=0))),
    "naive, frozen": (False, partial(step, reference)),
    "chunked, frozen": (False, partial(step, chunked)),
}


def seconds(n: int, d: int, v: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each head in each round; the order turns with the round."""
    prepared = {train: inputs(n, d, v, train) for train in (True, False)}
    found: dict[str, list[float]] = {name: [] for name in HEADS}
    for number in range(rounds + 1):
        names = list(HEADS)
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            train, run = HEADS[name]
            start = time.perf_counter()
            run(*prepared[train])
            if number:  # the first round warms up
                found[name].append(time.perf_counter() - start)
    return found


def peak(name: str, n: int, d: int, v: int) -> float:
    """Peak memory of one step over what its inputs take, in MiB, in a fresh process."""
    command = [sys.executable, __file__, "--peak", name, "--sizes", f"{n}x{d}x{v}"]
    # mmap for every large block, given back at once: the peak is then the op's and not the allocator's
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def resident(line: str) -> int:
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(found.split()[1]) for found in file if found.startswith(line)) * 1024


def measure_peak(name: str, n: int, d: int, v: int) -> float:
    train, run = HEADS[name]
    run(*inputs(8, 8, 8, train))  # loads the libraries
    prepared = inputs(n, d, v, train)
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")  # resets the high-water mark
    before = resident("VmRSS:")
    run(*prepared)
    return (resident("VmHWM:") - before) / MIB


def table(n: int, d: int, v: int, rounds: int) -> None:
    found = seconds(n, d, v, rounds)
    gradients = (n * d + v * d) * 4 / MIB
    print(f"\nn={n} d={d} v={v}: dX + dW = {gradients:.0f} MiB, logits {n * v * 4 / MIB:.0f} MiB")
    print(f"{'head':<22}{'ms':>9}{'x floor3':>10}{'peak MiB':>10}")
    for name, times in found.items():
        ratio = statistics.median(own / base for own, base in zip(times, found["floor3"], strict=True))
        print(f"{name:<22}{statistics.median(times) * 1e3:>9.1f}{ratio:>10.2f}{peak(name, n, d, v):>10.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["256x256x16384", "128x1024x16384", "512x256x32768"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", choices=HEADS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for size in arguments.sizes:
        n, d, v = (int(number) for number in size.split("x"))
        if arguments.peak:
            print(measure_peak(arguments.peak, n, d, v))
        else:
            table(n, d, v, arguments.rounds)


if __name__ == "__main__":
    main()
