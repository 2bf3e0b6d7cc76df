"""Align a model on a folder of pictures. Without arguments: eight pictures, rows and a tiny model made here, offline.

    python examples/pictures.py --model Qwen/Qwen2.5-VL-3B-Instruct --data pets/pairs.jsonl

Words alone do not help: every prompt is the same, and which answer is better depends on the picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image

import modalign as ma
from modalign_text.multimodal.testing import tiny_multimodal

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", help="a folder, or an id on the hub; by default a tiny model made here")
parser.add_argument("--data", help="preference pairs; by default eight rows made here, with their pictures")
parser.add_argument("--output_dir", type=Path, default=Path("runs/example-pictures"))
args = parser.parse_args()

if args.data is None:
    folder = Path("example-pictures")
    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(8):
        colour, other = ("red", "blue") if number % 2 else ("blue", "red")
        Image.new("RGB", (40 + number, 48), colour).save(folder / f"{number}.png")
        question = [{"type": "image"}, {"type": "text", "text": "Which colour is this?"}]
        rows.append(
            {
                "prompt": [{"role": "user", "content": question}],
                "images": [f"{number}.png"],  # relative to the file of the rows
                "chosen": [{"role": "assistant", "content": colour}],
                "rejected": [{"role": "assistant", "content": other}],
            }
        )
    args.data = folder / "pairs.jsonl"
    args.data.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
if args.model is None:
    args.model = tiny_multimodal("example-multimodal", "llava", scale=4.0)

trainer = ma.Trainer(
    model=ma.load(args.model, adapter=ma.AdapterConfig(r=16)),
    objective=ma.DPO(beta=0.1),
    data=args.data,
    eval_data=args.data,
    output_dir=args.output_dir,
    learning_rate=1e-2,
    per_device_train_batch_size=4,
    num_train_epochs=10,
)
trainer.train()
found = trainer.evaluate()
print(f"it looks: accuracy {found['eval_rewards/accuracies']:.2f} where only the picture says which answer is better")
