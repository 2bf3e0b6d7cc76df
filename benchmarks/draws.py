"""Times the two ops of draws, `add_noise` and `squared_error`, forward and backward: plain torch and Triton's kernels.

    python benchmarks/draws.py
    python benchmarks/draws.py --samples 16 --latents 16 128 128 --dtype bfloat16

Where there is no GPU the kernels are left out: Triton's interpreter is no measure of them. One process, rounds
interleaved with a turning order; ratios are medians of a round's own ratios. `least` is a copy of all that has to be
read and written.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from modalign.ops import add_noise as noising
from modalign.ops import squared_error as erring

Run = Callable[[], object]


def variants(samples: int, latents: list[int], dtype: torch.dtype, device: str) -> dict[str, dict[str, Run]]:
    """What is timed, by op and by name."""
    made = torch.Generator().manual_seed(0)

    def fresh() -> Tensor:
        return torch.randn(samples, *latents, generator=made).to(device, dtype)

    clean, noise, prediction, target = fresh(), fresh(), fresh().requires_grad_(), fresh()
    signal = torch.rand(samples, generator=made, dtype=torch.float64).to(device)
    amount = (1 - signal.square()).sqrt()

    def errors(run: Callable[[Tensor, Tensor], Tensor]) -> Run:
        return lambda: torch.autograd.grad(run(prediction, target).sum(), prediction)

    found: dict[str, dict[str, Run]] = {
        "add_noise": {
            "least": lambda: (clean.clone(), noise.clone()),
            "reference": lambda: noising.reference(clean, noise, signal, amount, prediction="v"),
        },
        "squared_error": {
            "least": lambda: (prediction.detach().clone(), target.clone()),
            "reference": errors(erring.reference),
        },
    }
    if device == "cuda":
        found["add_noise"]["kernel"] = lambda: noising.kernel(clean, noise, signal, amount, prediction="v")
        found["squared_error"]["kernel"] = errors(erring.kernel)
    return found


def timed(run: Run, device: str) -> float:
    """Seconds of one call: of the process on a CPU, of the device on a GPU."""
    if device == "cpu":
        start = time.process_time()
        run()
        return time.process_time() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--latents", type=int, nargs="+", default=[16, 64, 64])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype: torch.dtype = getattr(torch, arguments.dtype)
    numbers = arguments.samples * math.prod(arguments.latents)
    print(f"{device}, {arguments.dtype}, {arguments.samples} samples of {arguments.latents}: {numbers:,} numbers")
    for op, runs in variants(arguments.samples, arguments.latents, dtype, device).items():
        names = list(runs)
        times: dict[str, list[float]] = {name: [] for name in names}
        for number in range(arguments.rounds + 3):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                taken = timed(runs[name], device)
                if number > 2:  # the first rounds warm up
                    times[name].append(taken)
        for name, own in times.items():
            ratio = statistics.median(mine / least for mine, least in zip(own, times["least"], strict=True))
            print(f"{op:<16}{name:<12}{statistics.median(own) * 1e3:>9.3f} ms{ratio:>9.2f} x least")


if __name__ == "__main__":
    main()
