"""`modalign report RUN`: a run's curves and settings as one HTML file."""

from __future__ import annotations

from pathlib import Path

from modalign.errors import ConfigError


def report(run: Path, *, output: Path | None = None) -> int:
    """Write a report of a training run, finished or not: its last metrics, its curves, its settings.

    Parameters
    ----------
    run
        A run folder.
    output
        The HTML file; by default report.html in the run folder.
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
    print(write(of_run(run), output or run / "report.html"))
    return 0
