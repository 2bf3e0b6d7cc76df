"""Train a reward model and ask it which of two responses is better. Without arguments it runs offline."""

from __future__ import annotations

import argparse
from pathlib import Path

import modalign as ma
from modalign_text.testing import tiny_model

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", help="a folder, or an id on the hub; by default a tiny model made here")
parser.add_argument("--data", help="preference pairs; by default eight rows made here")
parser.add_argument("--output_dir", type=Path, default=Path("runs/example-reward"))
args = parser.parse_args()

words = ("red", "green", "blue", "one", "two", "three", "big", "small")
rows = [{"prompt": f"Say {word}.", "chosen": f" {word}", "rejected": f" not {word}"} for word in words]
data = rows if args.data is None else args.data

model = ma.load(tiny_model("example-model") if args.model is None else args.model, adapter=ma.AdapterConfig(r=16))
trainer = ma.Trainer(
    model=model,
    objective=ma.BradleyTerry(),  # the model gets a linear reward head over the states of its backbone
    data=data,
    eval_data=data,
    output_dir=args.output_dir,
    learning_rate=1e-3,
    num_train_epochs=4,
)
trainer.train()
found = trainer.evaluate()
print(f"accuracy {found['eval_accuracy']:.2f}, margin {found['eval_margin']:.4f}")
