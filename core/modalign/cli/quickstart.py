"""`modalign quickstart`: a tiny model taught, aligned and measured on this machine, with a report to look at."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modalign.errors import ConfigError

if TYPE_CHECKING:
    from modalign.report import Page
    from modalign.world.demonstration import Demonstration
    from modalign.world.ensemble import Ensemble
    from modalign.world.harmony import Harmony
    from modalign.world.measure import Rate


def quickstart(
    *,
    output_dir: Path = Path("runs/quickstart"),
    modality: str | None = None,
    seed: int = 0,
    sft_steps: int | None = None,
    dpo_steps: int | None = None,
    samples: int | None = None,
    quiet: bool = False,
) -> int:
    """Teach a tiny model of all modalities, align it on preferences over all of them, and measure both; in minutes.

    Parameters
    ----------
    output_dir
        A new or empty folder for the training runs, results.json and report.html.
    modality
        One alone, as `modalign plugins` names it: its model starts from nothing. By default all, in one model.
    seed
        Of the data, the training and the sampling.
    sft_steps
        Steps of teaching.
    dpo_steps
        Steps of aligning, and of the control.
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
    given = {"seed": seed, "sft_steps": sft_steps, "dpo_steps": dpo_steps, "samples": samples}
    said = {name: value for name, value in given.items() if value is not None}
    if modality is None and _together(output_dir, said, quiet=quiet):
        return 0
    from modalign.report import of_demonstration
    from modalign.world.demonstration import demonstrate, settings

    config = settings(**said, **({} if modality is None else {"modality": modality}))
    found = demonstrate(output_dir, config, say=_say, quiet=quiet)
    _finish(output_dir, of_demonstration(found), _results(found), _table(found))
    return 0


def _together(folder: Path, said: Mapping[str, object], *, quiet: bool) -> bool:
    """All modalities in one model; False where the model to start from is not all installed."""
    from modalign.report import of_ensemble
    from modalign.world.ensemble import ensemble_settings, rehearse

    config = ensemble_settings(**said)
    found = rehearse(folder, config, say=_say, quiet=quiet)
    if found is None:
        _say(
            "The model of all modalities needs every plugin, and not all are here: words alone instead.\n"
            "For all: pip install 'modalign[all]'   (`modalign plugins` says what is missing)\n"
        )
        return False
    _finish(folder, of_ensemble(found), _ensemble_results(found), _ensemble_table(found))
    return True


def _finish(folder: Path, page: Page, results: Mapping[str, object], table: str) -> None:
    from modalign.report import write

    report = write(page, folder / "report.html")
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    _say(table)
    _say(f"{page.lead}\n\nreport   {report}\nresults  {folder / 'results.json'}\n\n{_next(folder)}")


def _table(found: Demonstration) -> str:
    heads = f"\n{'':10}{'all right':>10}   {'95 % interval':<16}{'unreadable':>10}"
    lines = [
        f"{stage.name:10}{stage.measure.accuracy.value:>10.3f}   "
        f"{f'{stage.measure.accuracy.low:.3f} to {stage.measure.accuracy.high:.3f}':<16}"
        f"{stage.measure.unreadable.value:>10.3f}"
        for stage in found.stages
    ]
    return "\n".join([heads, *lines, ""])


def _ensemble_table(found: Ensemble) -> str:
    rates = {stage.name: _rates(stage.harmony) for stage in found.stages}
    names = list(rates[found.before.name])
    lines = [[name, *(f"{rates[stage][name].value:.3f}" for stage in rates)] for name in names]
    return "\n".join(["", *(_columns(one) for one in (["", *rates], *lines)), ""])


def _columns(cells: Sequence[str]) -> str:
    return f"{cells[0]:12}" + "".join(f"{one:>10}" for one in cells[1:])


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


def _ensemble_results(found: Ensemble) -> dict[str, object]:
    return {
        "config": found.config.model_dump(),
        "seconds": round(found.seconds, 1),
        "won": found.won,
        "verdict": found.verdict,
        "stages": {
            stage.name: {
                **{name: _rate(rate) for name, rate in _rates(stage.harmony).items()},
                "seconds": round(stage.seconds, 1),
            }
            for stage in found.stages
        },
    }


def _rates(found: Harmony) -> dict[str, Rate]:
    return {"whole": found.whole, "selection": found.selection, "agreement": found.agreement, **found.following}


def _rate(rate: Rate) -> dict[str, float]:
    return {"value": rate.value, "low": rate.low, "high": rate.high, "count": rate.count}


def _say(line: str) -> None:
    print(line, flush=True)
