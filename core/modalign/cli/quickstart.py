"""`modalign quickstart`: a tiny model taught, aligned and measured on this machine, with a report to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from modalign.errors import ConfigError

if TYPE_CHECKING:
    from modalign.world.demonstration import Demonstration
    from modalign.world.measure import Rate


def quickstart(
    *,
    output_dir: Path = Path("runs/quickstart"),
    modality: str | None = None,
    seed: int = 0,
    sft_steps: int | None = None,
    dpo_steps: int | None = None,
    samples: int = 288,
    quiet: bool = False,
) -> int:
    """Teach a tiny model, align it on preferences, and measure both; in about two minutes on two cores.

    Parameters
    ----------
    output_dir
        A new or empty folder for the three training runs, results.json and report.html.
    modality
        What the model makes: words by default; of the others `modalign plugins` knows, each takes minutes.
    seed
        Of the model, the data, the training and the sampling.
    sft_steps
        Steps of teaching; by default 300 for words.
    dpo_steps
        Steps of aligning, and of the control; by default 80 for words.
    samples
        Prompts to measure on.
    quiet
        Show no progress of the training.
    """
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise ConfigError(
            "quickstart writes into a new or an empty folder",
            where=str(output_dir),
            got="there is something in it" if output_dir.is_dir() else "a file",
            fix=f"remove it, or choose another: modalign quickstart --output_dir {output_dir}-2",
        )
    from modalign.report import of_demonstration, write
    from modalign.world.demonstration import demonstrate, settings

    said = {"modality": modality, "sft_steps": sft_steps, "dpo_steps": dpo_steps}
    config = settings(seed=seed, samples=samples, **{name: value for name, value in said.items() if value is not None})
    found = demonstrate(output_dir, config, say=_say, quiet=quiet)
    report = write(of_demonstration(found), output_dir / "report.html")
    results = json.dumps(_results(found), indent=2) + "\n"
    (output_dir / "results.json").write_text(results, encoding="utf-8")
    _say(_table(found))
    _say(f"{found.verdict}\n\nreport   {report}\nresults  {output_dir / 'results.json'}\n\n{_next(output_dir)}")
    return 0


def _table(found: Demonstration) -> str:
    heads = f"\n{'':10}{'all right':>10}   {'95 % interval':<16}{'unreadable':>10}"
    lines = [
        f"{stage.name:10}{stage.measure.accuracy.value:>10.3f}   "
        f"{f'{stage.measure.accuracy.low:.3f} to {stage.measure.accuracy.high:.3f}':<16}"
        f"{stage.measure.unreadable.value:>10.3f}"
        for stage in found.stages
    ]
    return "\n".join([heads, *lines, ""])


def _next(folder: Path) -> str:
    return (
        "Try next:\n"
        "  train on your own data          "
        f"modalign train dpo --model {folder / 'before' / 'final'} --data YOUR_PAIRS.jsonl\n"
        "  find bad rows before you train  modalign data check YOUR_PAIRS.jsonl\n"
        "  see what is installed           modalign plugins"
    )


def _results(found: Demonstration) -> dict[str, object]:
    return {
        "config": found.config.model_dump(),
        "seconds": round(found.seconds, 1),
        "won": found.won,
        "verdict": found.verdict,
        "stages": {
            stage.name: {
                "accuracy": _rate(stage.measure.accuracy),
                "unreadable": _rate(stage.measure.unreadable),
                "attributes": {name: _rate(rate) for name, rate in stage.measure.attributes.items()},
                "seconds": round(stage.seconds, 1),
            }
            for stage in found.stages
        },
    }


def _rate(rate: Rate) -> dict[str, float]:
    return {"value": rate.value, "low": rate.low, "high": rate.high, "count": rate.count}


def _say(line: str) -> None:
    print(line, flush=True)
