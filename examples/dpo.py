"""Align a language model by DPO. Without arguments: a tiny model and rows made here, so that it runs offline."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import modalign as ma
from modalign_text.testing import tiny_model

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--model", help="a folder, or an id on the hub; by default a tiny model made here")
parser.add_argument("--data", help="preference pairs; by default eight rows made here")
parser.add_argument("--output_dir", type=Path, default=Path("runs/example-dpo"))
args = parser.parse_args()

if args.data is None:
    args.data = "example-pairs.jsonl"
    words = ("red", "green", "blue", "one", "two", "three", "big", "small")
    rows = [{"prompt": f"Say {word}.", "chosen": f" {word}", "rejected": " no"} for word in words]
    Path(args.data).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
if args.model is None:
    args.model = tiny_model("example-model")

model = ma.load(args.model, adapter=ma.AdapterConfig(r=16))
trainer = ma.Trainer(
    model=model,
    objective=ma.DPO(beta=0.1),
    data=ma.read(args.data, max_length=1024),
    output_dir=args.output_dir,
    learning_rate=1e-3,
)
result = trainer.train()
print(f"loss {result.metrics['loss']:.4f} after {result.steps} steps; the adapter is in {result.folder / 'final'}")
