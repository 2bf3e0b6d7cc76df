"""Teach a tiny model to answer questions about pictures, sounds or clips, and align it. Offline, minutes on one core.

    python examples/questions.py --modality audio --output_dir runs/questions

A tower that knows nothing before a language model that knows nothing learns to see or hear from right answers, and then
bad habits from answers of which 45 % have one mistake. Then DPO on pairs that share a defect (both answers are wrong in
the same way, the rejected one in one more); as a control SFT on the chosen answers of the same pairs; and a reward
model, which picks the best of some answers. The oracle judges answers to questions about media that nobody was shown.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

import torch

import modalign as ma
from modalign.objectives import Objective
from modalign.registry import registry
from modalign.world import Questions, examine, judge, measure
from modalign.world.preferences import Kind

ASKED = {"image": {"count", "colour", "side"}, "audio": {"count", "pitch", "order"}, "video": {"colour", "motion"}}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--modality", choices=tuple(ASKED), default="image")
parser.add_argument("--output_dir", type=Path, default=Path("runs/example-questions"))
parser.add_argument("--seed", type=int, default=0, help="of the model, the data, the training and the sampling")
parser.add_argument("--teach_steps", type=int, default=300, help="of right answers")
parser.add_argument("--spoil_steps", type=int, default=100, help="of answers with mistakes")
parser.add_argument("--align_steps", type=int, default=100, help="of DPO and of the control")
parser.add_argument("--reward_steps", type=int, default=200, help="of the reward model")
parser.add_argument("--samples", type=int, default=288, help="questions about held-out media")
parser.add_argument("--best_of", type=int, default=4, help="answers that the reward model picks the best of")
args = parser.parse_args()

torch.set_num_threads(1)  # for kernels this small a second thread costs more than it gives
out, seed = args.output_dir, args.seed
depictions = registry.depictions()
asked = frozenset(ASKED[args.modality])
world = Questions(depiction=depictions[args.modality], words="text", attributes=asked, seed=seed)
# clips show two attributes only, so that to hold out a concept is to hold out what is asked: theirs are new ones of old
others = Questions(depiction=depictions[args.modality], words="text", attributes=asked, seed=seed + 1)
held_out = others.rows("prompts", args.samples, held_out=args.modality != "video")
words = import_module("modalign_text.student").save_student(out / "words", seed=seed, questions=True)
tower = import_module(f"modalign_{args.modality}.student").save_encoder(out / "tower", seed=seed)


def train(name: str, model: ma.Model, objective: Objective, kind: Kind, *, steps: int, rate: float) -> ma.Model:
    ma.Trainer(
        model=model,
        objective=objective,
        data=world.rows(kind, min(64 * steps, 6400)),
        output_dir=out / name,
        max_steps=steps,
        learning_rate=rate,
        per_device_train_batch_size=64,
        warmup_steps=20,
        logging_steps=20,
        seed=seed,
    ).train()
    return model


def taught() -> ma.Model:
    return ma.load(out / "before" / "final", freeze=())


model = ma.load(words, encoders={args.modality: tower}, freeze=())
train("taught", model, ma.SFT(), "clean", steps=args.teach_steps, rate=1e-3)
before = train("before", model, ma.SFT(), "sft", steps=args.spoil_steps, rate=3e-4)
dpo = train("dpo", taught(), ma.DPO(beta=1.0), "shared-defect", steps=args.align_steps, rate=1.5e-4)
control = train("control", taught(), ma.SFT(), "shared-defect", steps=args.align_steps, rate=1.5e-4)
reward = train("reward", taught(), ma.BradleyTerry(), "shared-defect", steps=args.reward_steps, rate=1e-3)

found = {
    name: examine(one, held_out, seed=seed).measure
    for name, one in (("before", before), ("dpo", dpo), ("control", control))
}
answers = [examine(before, held_out, seed=seed + 1 + number).responses for number in range(args.best_of)]
chooser, verdicts = ma.RewardModel(reward), []
for row, *candidates in zip(held_out, *answers, strict=True):
    scores = [verdict["reward"] for verdict in chooser.judge([row.prompt] * len(candidates), candidates)]
    verdicts.append(judge(row.prompt, candidates[scores.index(max(scores))], depictions))
found[f"best of {args.best_of}"] = measure([verdict for verdict in verdicts if verdict is not None])
for name, one in found.items():
    print(f"{name:10} accuracy {one.accuracy}  unreadable {one.unreadable.value:.3f}", flush=True)
