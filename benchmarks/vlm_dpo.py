"""One step on pictures beside TRL and beside ourselves with repeated pictures: pairs per second, passes, peak memory.

    python benchmarks/vlm_dpo.py                           # LLaVA: 2 pictures of 256 tokens, responses of 96
    python benchmarks/vlm_dpo.py --family qwen2_5_vl
    python benchmarks/vlm_dpo.py --responses 8             # a group of 8 responses; TRL's DPO has no such thing
    python benchmarks/vlm_dpo.py --vocabulary 32768        # a head of 2.7 times the weights of the body

The vocabulary of 1024 gives a language model this narrow a head of 8 % of its body's weights; of models of billions it
is 1 to 10 %. The tower is frozen, the projector and the language model train, the reference is a second model.
`repeated` is modalign as the field does it: a row for every response, each with pictures of its own, and the tower run
for policy and reference. `trl` is TRL 1.16 with the scoring of labelled positions alone, as it does on a GPU;
`trl_stock` projects every position on a CPU. `cached` takes the tower's features from a folder. All variants run in one
process, interleaved, the order turned round every other round, the first round dropped; times are CPU seconds; ratios
are medians of the ratios within a round. Memory is the peak of a fresh process per variant over what it held before its
first step.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from PIL import Image

from modalign.assembler import Sample, assemble
from modalign.comparison import Comparison
from modalign.model import Model

BETA = 0.1
AGREE = 1e-4  #: how far losses of variants may differ
SIDE = 128  #: pixels of a picture
PICTURES, WORDS, ANSWER = 2, 64, 96

Step = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is measured.

    family: of the model.
    responses: to the one prompt.
    vocabulary: of the model.
    folder: of the two models.
    """

    family: str
    responses: int
    vocabulary: int
    folder: Path

    @property
    def variants(self) -> tuple[str, ...]:
        """What can do it."""
        ours = ("repeated", "modalign", "cached")
        return ("trl_stock", "trl", *ours) if self.responses == 2 else ours


def save_models(run: Run) -> None:
    """A policy and a reference that differs a little, so that the loss is not log 2."""
    import transformers

    from modalign_text.multimodal import testing

    torch.manual_seed(0)
    text = {
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 32,
        "vocab_size": run.vocabulary,
        "max_position_embeddings": 4096,
        "pad_token_id": 256,
        "bos_token_id": None,
        "eos_token_id": 258,
        "tie_word_embeddings": True,  # as in benchmarks/dpo_step.py: or the optimizer of two tables is most of a step
    }
    if run.family == "llava":
        tiny, processor = testing.MULTIMODAL["llava"]()
        vision = transformers.CLIPVisionConfig(
            hidden_size=384,
            intermediate_size=1536,
            num_hidden_layers=6,
            num_attention_heads=6,
            image_size=SIDE,
            patch_size=8,
        )
        config = transformers.LlavaConfig(
            vision_config=vision,
            text_config=transformers.LlamaConfig(**text),
            tie_word_embeddings=True,
        )
        config.image_token_id = tiny.config.image_token_id
        model = transformers.LlavaForConditionalGeneration(config)
        processor.image_processor.size = {"shortest_edge": SIDE}
        processor.image_processor.crop_size = {"height": SIDE, "width": SIDE}
    else:
        tiny, processor = testing.MULTIMODAL["qwen2_5_vl"]()
        config = tiny.config
        rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]}}
        vision = {
            "depth": 6,
            "hidden_size": 384,
            "intermediate_size": 1536,
            "num_heads": 6,
            "out_hidden_size": 256,
            "fullatt_block_indexes": [2, 5],
            "window_size": 112,
        }
        config = transformers.Qwen2_5_VLConfig(
            text_config={**text, **rope},
            tie_word_embeddings=True,
            vision_config=vision,
            image_token_id=config.image_token_id,
            video_token_id=config.video_token_id,
            vision_start_token_id=config.vision_start_token_id,
            vision_end_token_id=config.vision_end_token_id,
        )
        model = transformers.Qwen2_5_VLForConditionalGeneration(config)
        side = 28 * 16  # 256 tokens
        processor.image_processor.size = {"shortest_edge": side * side, "longest_edge": side * side}
    template = str(processor.chat_template).replace("<|im_end|>\n", "<|im_end|>")  # TRL scores what is behind a turn
    processor.chat_template = template
    for name in ("policy", "reference"):
        model.save_pretrained(run.folder / name)
        processor.save_pretrained(run.folder / name)
        with torch.no_grad():
            # towers and projectors stay the same ones: what is frozen is the same for policy and reference
            head = model.get_output_embeddings()
            assert head is not None
            for parameter in (*model.get_decoder().parameters(), *head.parameters()):
                parameter.add_(0.02 * parameter.std().nan_to_num() * torch.randn_like(parameter))


def rows(run: Run) -> list[dict[str, object]]:
    """One row as TRL takes it, with as many answers as there are responses."""
    made = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (PICTURES, SIDE, SIDE, 3), generator=made, dtype=torch.uint8)
    pictures = [Image.fromarray(one.numpy()) for one in pixels]
    letters = torch.randint(97, 123, (run.responses + 1, ANSWER), generator=made).tolist()
    words = ["".join(map(chr, line)) for line in letters]
    content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": words[0][:WORDS]}]

    def answer(text: str) -> list[dict[str, object]]:
        return [{"role": "assistant", "content": [{"type": "text", "text": text}]}]

    row = {"images": pictures, "prompt": [{"role": "user", "content": content}]}
    if run.responses == 2:
        return [{**row, "chosen": answer(words[1]), "rejected": answer(words[2])}]
    return [
        {**row, "responses": [answer(one) for one in words[1:]], "rewards": [float(n) for n in range(run.responses)]}
    ]


def trl_step(run: Run, *, compact: bool) -> Step:
    """A step of TRL's DPOTrainer."""
    from datasets import Dataset
    from transformers import AutoModelForMultimodalLM, AutoProcessor
    from trl.trainer import utils
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    policy, reference = (
        AutoModelForMultimodalLM.from_pretrained(run.folder / name, dtype=torch.float32)
        for name in ("policy", "reference")
    )
    towers = [module for module in policy.modules() if type(module).__name__ in ("CLIPVisionModel", _QWEN_TOWER)]
    assert len(towers) == 1
    towers[0].requires_grad_(False)
    trainer = DPOTrainer(
        model=policy,
        ref_model=reference,
        args=DPOConfig(
            output_dir=str(run.folder / "trl"),
            beta=BETA,
            use_cpu=True,
            report_to=[],
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows(run)),
        processing_class=AutoProcessor.from_pretrained(run.folder / "policy"),
    )
    model = trainer.model
    assert isinstance(model, torch.nn.Module)
    model.train()
    trains = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trains, lr=1e-5)
    inputs = dict(trainer.data_collator(cast("list[dict[str, object]]", list(trainer.train_dataset))))
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


_QWEN_TOWER = "Qwen2_5_VisionTransformerPretrainedModel"


def our_step(run: Run, variant: str, keep: ExitStack) -> tuple[Step, Callable[[], int]]:
    """A step of modalign with the trainer's own scorers, and how often the tower ran since it was last asked."""
    from accelerate import Accelerator

    import modalign
    from modalign.caching.features import FeatureCache
    from modalign.draws import Draws
    from modalign.freezing import freeze
    from modalign.objectives import DPO
    from modalign.training.reference import FrozenCopy, Policy, score_roles

    repeated = variant == "repeated"
    model = modalign.load(run.folder / "reference", dtype="float32", sharing="off" if repeated else "auto")
    policy = Policy(model, Accelerator(cpu=True))
    if repeated:
        model.encoders.requires_grad_(True)  # or the copy would share the frozen tower
    copied = FrozenCopy(policy)
    if repeated:
        freeze(model, None)
    if variant == "cached":
        model.encoders.requires_grad_(False)  # projectors as well: features behind them are what is stored
        model.memo.cache = FeatureCache(run.folder / "features")
    scorers = {"policy": policy, "reference": copied}
    model.load_state_dict(modalign.load(run.folder / "policy", dtype="float32").state_dict())
    model.train()
    keep.enter_context(policy.prepared())
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-5)
    data = modalign.read(rows(run))
    batch = assemble([_sample(data[0], model, repeated=repeated)], share=model.shares)
    advantages = torch.linspace(-1.0, 1.0, run.responses, dtype=torch.float64)

    def loss_of() -> torch.Tensor:
        with nullcontext() if repeated else model.memo.remembering():
            scores = score_roles(scorers, batch, Draws())
        if run.responses == 2:
            return DPO(beta=BETA)(scores, batch.targets).mean
        # on-policy, so that the ratio is 1 at the first step, and the k3 estimate of the divergence
        new, old = scores["policy"].logps, scores["reference"].logps
        away = (old - new) / ANSWER
        return ((BETA * (away.exp() - away - 1.0)) - (new - new.detach()).exp() * advantages).mean()

    def step() -> float:
        loss = loss_of()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return step, lambda: model.memo.take()["image"]


def _sample(comparison: Comparison, model: Model, *, repeated: bool) -> Sample:
    """The comparison encoded; repeated, every response brings its pictures under a name of its own."""
    encoded = model.assembly.preparer.encode(comparison)
    if repeated:
        encoded = tuple(
            replace(
                one,
                slots=tuple(replace(slot, digest=f"{slot.digest}/{number}") for slot in one.slots),
                media={f"{digest}/{number}": medium for digest, medium in one.media.items()},
            )
            for number, one in enumerate(encoded)
        )
    return Sample(comparison=comparison, encoded=encoded, own=len(encoded))


def build(run: Run, variant: str, keep: ExitStack) -> tuple[Step, Callable[[], int] | None]:
    """A variant's step, and its count of passes."""
    if variant.startswith("trl"):
        return trl_step(run, compact=variant == "trl"), None
    return our_step(run, variant, keep)


def memory(run: Run, variant: str) -> dict[str, float]:
    """Peak memory of two steps over what the process held before, in MB, the first loss, the passes of a step."""
    with ExitStack() as keep:
        step, passes = build(run, variant, keep)
        held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
        first = step()
        if passes is not None:
            passes()
        step()
        seen = float("nan") if passes is None else float(passes())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {"loss": first, "over_base_mb": peak - held, "passes": seen}


def measure(run: Run, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of a step, by variant and round, the first round dropped."""
    found: dict[str, list[float]] = {variant: [] for variant in run.variants}
    with ExitStack() as keep:
        steps = {variant: build(run, variant, keep)[0] for variant in run.variants}
        for number in range(rounds + 1):
            for variant in run.variants if number % 2 else run.variants[::-1]:
                start = time.process_time()
                steps[variant]()
                if number:
                    found[variant].append(time.process_time() - start)
    return found


def _over(times: dict[str, list[float]], peer: str, variant: str) -> float:
    """How many times as long a peer takes, the median over rounds; NaN where it was not measured."""
    if peer not in times:
        return float("nan")
    return statistics.median(a / b for a, b in zip(times[peer], times[variant], strict=True))


def main() -> None:
    """Print the table; exit 1 where losses do not agree."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", choices=("llava", "qwen2_5_vl"), default="llava")
    parser.add_argument("--responses", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    def chosen(folder: Path) -> Run:
        return Run(family=options.family, responses=options.responses, vocabulary=options.vocabulary, folder=folder)

    if options.memory:
        run = chosen(options.folder)
        print(json.dumps(memory(run, options.memory)))
        return
    with tempfile.TemporaryDirectory() as name:
        run = chosen(Path(name))
        save_models(run)
        memories = {}
        for variant in run.variants:
            command = [sys.executable, __file__, *sys.argv[1:], "--memory", variant, "--folder", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            memories[variant] = json.loads(done.stdout.splitlines()[-1])
        times = measure(run, options.rounds)
    print(f"torch {torch.__version__}, {options.threads} thread(s), {run.family}, {run.responses} responses, ", end="")
    print(f"vocabulary {run.vocabulary}")
    columns = ("loss", 10), ("passes", 7), ("CPU s", 7), ("steps/s", 8), ("x repeated", 11), ("x trl", 6)
    print("variant   ", *(f"{name:>{width}}" for name, width in columns), "over base MB")
    for variant in run.variants:
        seconds = statistics.median(times[variant])
        over, fair = (_over(times, peer, variant) for peer in ("repeated", "trl"))
        one = memories[variant]
        print(
            f"{variant:10} {one['loss']:10.7f} {one['passes']:7.0f} {seconds:7.2f} {1 / seconds:8.3f} "
            f"{over:11.2f} {fair:6.2f} {one['over_base_mb']:13.0f}"
        )
    losses = [one["loss"] for one in memories.values()]
    if max(losses) - min(losses) > AGREE:
        sys.exit(f"losses differ by {max(losses) - min(losses):.2g}, more than {AGREE}")


if __name__ == "__main__":
    main()
