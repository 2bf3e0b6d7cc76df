"""Train both models of SafeSora and report on them. Without arguments: tiny models on rows made here, offline.

    python examples/safesora.py --pairs SafeSora --labels SafeSora-Label --model HuggingFaceTB/SmolLM2-135M-Instruct

The first is one reward model of helpfulness, harmlessness and the four parts of helpfulness; the second says which of
twelve kinds of harm a clip shows. `safesora_reward.yaml` and `safesora_moderation.yaml` beside this file are their
settings; the folders hold `config-train.json.gz`, `config-test.json.gz` and the clips, as they are published.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from modalign.cli.train import configure
from modalign.report import of_run, write
from modalign.training.job import run
from modalign_video.judge import Sizes, save_judge
from modalign_video.safesora_sample import sample

HERE = Path(__file__).parent

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--pairs", type=Path, help="the folder of SafeSora; by default twelve pairs made here")
parser.add_argument("--labels", type=Path, help="the folder of SafeSora-Label; by default twelve clips made here")
parser.add_argument("--model", help="a language model, or one that reads clips; by default a tiny one made here")
parser.add_argument("--tower", help="a tower of pictures to put before a language model: its path instead of SigLIP's")
parser.add_argument("--output_dir", type=Path, default=Path("runs/example-safesora"))
args, further = parser.parse_known_args()  # what else is said are settings of both runs: --num_train_epochs 1

if args.pairs is None or args.labels is None:
    args.pairs, args.labels = Path("example-safesora"), Path("example-safesora-label")
    for made in (sample(args.pairs, "pairs", 12), sample(args.labels, "labels", 12)):
        made.with_name("config-test.json.gz").write_bytes(made.read_bytes())
tiny = args.model is None


def adjust(document: dict[str, object]) -> None:
    """The model that was asked for, in the settings of a file."""
    model = document["model"]
    assert isinstance(model, dict)
    if tiny:
        model.clear()
        model["path"] = str(args.output_dir / "judge")
    else:
        model["path"] = args.model
    if args.tower is not None:
        model["encoders"]["video"]["path"] = args.tower


if tiny:
    save_judge(args.output_dir / "judge", Sizes(size=16, patch=8, width=32, layers=1))
    further = ["--max_steps", "4", "--warmup_steps", "0", *further]
for name, data in (("reward", args.pairs), ("moderation", args.labels)):
    flags = ["--data.path", str(data / "config-train.json.gz"), "--eval_data.path", str(data / "config-test.json.gz")]
    flags += ["--output_dir", str(args.output_dir / name), "--feature_cache", str(args.output_dir / "features")]
    config = configure(str(HERE / f"safesora_{name}.yaml"), [*flags, *further], edit=adjust)
    assert config is not None
    found = run(config)
    page = write(of_run(found.folder), found.folder / "report.html")
    for metric, value in found.metrics.items():
        if metric.startswith(("eval_accuracy/", "eval_auroc/")) and not metric.endswith(("_low", "_high")):
            print(f"{metric.removeprefix('eval_'):36} {value:.3f}")
    print(f"{name}: accuracy {found.metrics['eval_accuracy']:.2f}, report {page}")
