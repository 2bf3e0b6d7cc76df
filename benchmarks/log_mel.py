"""Times Whisper's spectrogram beside the extractor of transformers, on its two paths.

    python benchmarks/log_mel.py
    python benchmarks/log_mel.py --seconds 30 5 1 --rounds 41

One process, rounds interleaved with a turning order, CPU seconds of the process; ratios are medians of a round's own
ratios. The extractor's torch path is what it takes wherever torch is installed; its numpy path is what it was before.
Both calls take a numpy waveform at 16 kHz and give a tensor of the whole window of 30 s, 80 mels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor

from modalign_audio.ops.log_mel import log_mel

Make = Callable[[np.ndarray], Tensor]

OWN = WhisperFeatureExtractor()
FILTERS = torch.from_numpy(OWN.mel_filters)


def extractor(samples: np.ndarray) -> Tensor:
    return OWN(samples, sampling_rate=OWN.sampling_rate, return_tensors="pt")["input_features"]


def extractor_numpy(samples: np.ndarray) -> Tensor:
    padded = np.zeros((1, OWN.n_samples), dtype=np.float32)
    padded[0, : len(samples)] = samples
    return torch.from_numpy(OWN._np_extract_fbank_features(padded, "cpu"))


def ours(samples: np.ndarray) -> Tensor:
    return log_mel(torch.from_numpy(samples)[None], FILTERS, length=OWN.n_samples, impl="reference")


MAKES: dict[str, Make] = {"extractor": extractor, "extractor, numpy": extractor_numpy, "log_mel": ours}


def seconds(samples: np.ndarray, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each in each round."""
    found: dict[str, list[float]] = {name: [] for name in MAKES}
    names = list(MAKES)
    for number in range(rounds + 2):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            start = time.process_time()
            MAKES[name](samples)
            if number > 1:  # the first rounds warm up
                found[name].append(time.process_time() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", nargs="+", type=float, default=[30.0, 5.0])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for length in arguments.seconds:
        made = torch.Generator().manual_seed(0)
        samples = (0.1 * torch.randn(round(length * 16000), generator=made)).numpy()
        error = (ours(samples) - extractor(samples)).abs().max().item()
        found = seconds(samples, arguments.rounds)
        print(f"\n{length:g} s, {arguments.threads} thread: log_mel differs from the extractor by at most {error:.1e}")
        print(f"{'':<20}{'ms':>8}{'log_mel is faster by':>24}")
        for name, times in found.items():
            ratio = statistics.median(other / own for other, own in zip(times, found["log_mel"], strict=True))
            print(f"{name:<20}{statistics.median(times) * 1e3:>8.2f}{ratio:>23.2f}x")


if __name__ == "__main__":
    main()
