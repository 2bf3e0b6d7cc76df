"""One DPO step beside TRL: tokens per second and peak memory over the base, the same weights, batch and loss.

    python benchmarks/dpo_step.py                      # prompt 1024, responses 64 to 128, vocabulary 32768
    python benchmarks/dpo_step.py --vocabulary 131072

Two lines of TRL are printed: stock, which on a CPU projects every position of the prompt too, and with the scoring of
labelled positions alone forced, as it does on a GPU: that is the fair one. `rows` is modalign without the shared
prompt. All variants run in one process, interleaved, the order turned round every other round, the first round
dropped; times are CPU seconds of the process; ratios are medians of the ratios within a round. Memory is the peak of a
fresh process per variant over what it held before its first step: gradients, optimizer state, activations.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

VARIANTS = ("trl", "trl_compact", "rows", "modalign")
BETA = 0.1
AGREE = 2e-5  #: how far losses of variants may differ


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is trained on what: tokens of prompt and responses, and the model's vocabulary."""

    prompt: int
    responses: tuple[int, int]
    vocabulary: int
    pairs: int

    def examples(self) -> list[dict[str, list[int]]]:
        """Random token ids; the first response has the fewest tokens, the second the most."""
        draw = random.Random(0)

        def ids(count: int) -> list[int]:
            return [draw.randrange(300, self.vocabulary) for _ in range(count)]

        return [
            {
                "prompt_ids": ids(self.prompt),
                "chosen_ids": ids(self.responses[0]),
                "rejected_ids": ids(self.responses[1]),
            }
            for _ in range(self.pairs)
        ]

    @property
    def tokens(self) -> int:
        """Tokens a trainer without a shared prompt reads in a step, of the policy alone."""
        return self.pairs * (2 * self.prompt + sum(self.responses))


def save_models(shape: Shape, folder: Path) -> None:
    """A policy and a reference that differs a little, so that the loss is not log 2."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from modalign_text.testing import tiny_tokenizer

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    for name in ("policy", "reference"):
        model.save_pretrained(folder / name)
        tiny_tokenizer().save_pretrained(folder / name)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * parameter.std() * torch.randn_like(parameter))


def trl_step(shape: Shape, folder: Path, *, compact: bool) -> Callable[[], float]:
    """A step of TRL's DPOTrainer, full fine-tuning with a second model as reference."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer import utils
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32),
        ref_model=AutoModelForCausalLM.from_pretrained(folder / "reference", dtype=torch.float32),
        args=DPOConfig(
            output_dir=str(folder / "trl"),
            beta=BETA,
            use_cpu=True,
            report_to=[],
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}]),
        processing_class=tokenizer,
    )
    model = trainer.model
    assert isinstance(model, torch.nn.Module)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    inputs = dict(trainer.data_collator(shape.examples()))
    stock = vars(utils)["_use_triton"]

    def step() -> float:
        setattr(utils, "_use_triton", (lambda device: True) if compact else stock)  # noqa: B010 - not exported
        loss = trainer.compute_loss(model, dict(inputs))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        setattr(utils, "_use_triton", stock)  # noqa: B010
        return loss.item()

    return step


def our_step(shape: Shape, folder: Path, *, sharing: str, keep: ExitStack) -> Callable[[], float]:
    """A step of modalign: the trainer's own scorers, objective and reference."""
    from accelerate import Accelerator

    import modalign
    from modalign.assembler import Sample, assemble
    from modalign.comparison import Comparison
    from modalign.content import Response
    from modalign.draws import Draws
    from modalign.objectives import DPO
    from modalign.roles import Encoded, EncodedSegment
    from modalign.training.reference import FrozenCopy, Policy, score_roles

    model = modalign.load(str(folder / "reference"), dtype="float32", sharing=sharing)
    policy = Policy(model, Accelerator(cpu=True))
    scorers = {"policy": policy, "reference": FrozenCopy(policy)}
    weights = modalign.load(str(folder / "policy"), dtype="float32", sharing=sharing).state_dict()
    model.load_state_dict(weights)
    del weights
    model.train()
    keep.enter_context(policy.prepared())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    objective = DPO(beta=BETA)

    def encoded(prompt: list[int], response: list[int]) -> Encoded:
        tokens = (*prompt, *response)
        whole = EncodedSegment(modality="text", decoder="text", kind="token", start=len(prompt), stop=len(tokens))
        return Encoded(tokens=tokens, prompt=len(prompt), segments=(whole,))

    empty = Comparison.pair((), Response(messages=()), Response(messages=()))
    samples = [
        Sample(
            comparison=empty,
            encoded=tuple(encoded(one["prompt_ids"], one[name]) for name in ("chosen_ids", "rejected_ids")),
            own=2,
        )
        for one in shape.examples()
    ]
    batch = assemble(samples, share=model.shares)

    def step() -> float:
        loss = objective(score_roles(scorers, batch, Draws()), batch.targets).mean
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step


def build(variant: str, shape: Shape, folder: Path, keep: ExitStack) -> Callable[[], float]:
    """A variant's step."""
    if variant.startswith("trl"):
        return trl_step(shape, folder, compact=variant == "trl_compact")
    return our_step(shape, folder, sharing="off" if variant == "rows" else "split", keep=keep)


def memory(variant: str, shape: Shape, folder: Path) -> dict[str, float]:
    """Peak memory of two steps over what the process held before, in MB, and the first loss; for a fresh process."""
    with ExitStack() as keep:
        step = build(variant, shape, folder, keep)
        held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
        first = step()
        step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"loss": first, "over_base_mb": peak - held, "peak_mb": peak}


def measure(shape: Shape, folder: Path, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a step, by variant and round, the first round dropped."""
    found: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    with ExitStack() as keep:
        steps = {variant: build(variant, shape, folder, keep) for variant in VARIANTS}
        for number in range(rounds + 1):
            order = VARIANTS if number % 2 else VARIANTS[::-1]
            for variant in order:
                start = time.process_time()
                steps[variant]()
                if number:
                    found[variant].append(time.process_time() - start)
    return found


def main() -> None:
    """Print the table; exit 1 where losses do not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--responses", type=int, nargs=2, default=(64, 128))
    parser.add_argument("--vocabulary", type=int, default=32768)
    parser.add_argument("--pairs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = Shape(
        prompt=options.prompt,
        responses=tuple(options.responses),
        vocabulary=options.vocabulary,
        pairs=options.pairs,
    )
    if options.memory:
        print(json.dumps(memory(options.memory, shape, options.folder)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_models(shape, folder)
        memories = {}
        for variant in VARIANTS:
            command = [sys.executable, __file__, *sys.argv[1:], "--memory", variant, "--folder", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            memories[variant] = json.loads(done.stdout.splitlines()[-1])
        times = measure(shape, folder, options.rounds)
    print(f"torch {torch.__version__}, {options.threads} thread(s), {shape}")
    print(
        f"{'variant':12} {'loss':>10} {'CPU s':>8} {'tok/s':>7} {'x stock':>8} {'x fair':>7} "
        f"{'over base MB':>13} {'of fair':>8}"
    )
    for variant in VARIANTS:
        seconds = statistics.median(times[variant])
        stock, fair = (
            statistics.median(a / b for a, b in zip(times[peer], times[variant], strict=True))
            for peer in ("trl", "trl_compact")
        )
        used = memories[variant]["over_base_mb"]
        share = used / memories["trl_compact"]["over_base_mb"]
        print(
            f"{variant:12} {memories[variant]['loss']:10.7f} {seconds:8.2f} {shape.tokens / seconds:7.0f} "
            f"{stock:8.2f} {fair:7.2f} {used:13.0f} {share:8.2f}"
        )
    losses = [one["loss"] for one in memories.values()]
    if max(losses) - min(losses) > AGREE:
        sys.exit(f"losses differ by {max(losses) - min(losses):.2g}, more than {AGREE}")


if __name__ == "__main__":
    main()
