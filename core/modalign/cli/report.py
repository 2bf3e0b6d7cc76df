"""`modalign report RUN`: a run's curves and settings as one HTML file, and what its model answers before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from modalign.cli.answering import how, prompts_of
from modalign.cli.train import configure
from modalign.errors import ConfigError

if TYPE_CHECKING:
    from modalign.comparison import Comparison
    from modalign.report.page import Case
    from modalign.training.config import TrainConfig


def report(
    run: Path,
    *,
    output: Path | None = None,
    samples: int = 0,
    prompt: Sequence[str] = (),
    data: str | None = None,
    split: str | None = None,
    max_new_tokens: int = 256,
    num_inference_steps: int | None = None,
    guidance_scale: float | None = None,
    batch_size: int = 8,
    seed: int = 0,
) -> int:
    """Write a report of a training run, finished or not: its last metrics, its curves, its settings.

    modalign report runs/dpo --samples 4

    Parameters
    ----------
    run
        A run folder.
    output
        The HTML file; by default report.html in the run folder.
    samples
        How many prompts the model answers, as the run found it and as it left it, side by side: words, pictures, and
        players of what sounds or moves. The run has to be finished. Prompts are the first of its evaluation data, else
        of its training data.
    prompt
        What is asked instead; may be given more than once.
    data
        Rows whose prompts are asked instead.
    split
        Split of the rows.
    max_new_tokens
        Most tokens of a response.
    num_inference_steps
        Steps of a diffusion or flow sampler; by default the model's own.
    guidance_scale
        How far guidance moves a sampler towards the prompt; by default the model's own.
    batch_size
        Prompts answered at a time.
    seed
        Of the sampling, before and after alike.
    """
    from modalign.report import of_run, write
    from modalign.training.storage.runfolder import RunFolder

    if not RunFolder(run).metrics_path.is_file():
        raise ConfigError(
            "a report is made from a run's metrics",
            where=str(run),
            got="no metrics.jsonl" if run.is_dir() else "no such folder",
            fix="give the output_dir of a training run",
        )
    if samples < 0:
        raise ConfigError("a number of prompts", where="--samples", got=samples, fix="give 0 or more")
    cases: Sequence[Case] = ()
    if samples or prompt or data:
        settings: dict[str, object] = {
            "max_new_tokens": max_new_tokens,
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "batch_size": batch_size,
            "seed": seed,
        }
        how(**settings)
        config = _config(run)
        cases = _cases(run, config, _prompts(config, prompt, data, split, samples or None), settings)
    print(write(of_run(run, cases), output or run / "report.html"))
    return 0


def _config(run: Path) -> TrainConfig:
    from modalign.training.storage.runfolder import RunFolder

    try:
        found = configure(str(RunFolder(run).config))
    except ConfigError as error:
        raise ConfigError(
            "samples need the model that the run started from, which its config does not say",
            where=str(RunFolder(run).config),
            got=error,
            fix="report a run of `modalign train`; of others: modalign.report.shown.before_and_after",
        ) from error
    assert found is not None
    return found


def _prompts(
    config: TrainConfig, prompt: Sequence[str], data: str | None, split: str | None, limit: int | None
) -> Sequence[Comparison]:
    if prompt or data:
        return prompts_of("report", prompt, data, split=split, limit=limit)
    from modalign.data import read

    rows = read(config.eval_data or config.data)
    return [rows[number] for number in range(min(limit or 0, len(rows)))]


def _cases(run: Path, config: TrainConfig, prompts: Sequence[Comparison], settings: dict[str, object]) -> list[Case]:
    """One model after the other, so that no two are in memory."""
    from modalign.loading import load
    from modalign.report.shown import before_and_after
    from modalign.training.job import final_model

    final = final_model(run)
    after = config.model.model_copy(update={"path": str(final), "adapter": None})
    return before_and_after(
        (lambda: load(config.model.model_copy(update={"adapter": None})), lambda: load(after)),
        [one.prompt for one in prompts],
        **settings,
    )
