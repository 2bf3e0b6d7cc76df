"""Reports: one self-contained HTML file from a run folder or a demonstration."""

from modalign.report.demonstration import of_demonstration
from modalign.report.ensemble import of_ensemble
from modalign.report.page import Page, render, write
from modalign.report.runs import of_evaluation, of_run

__all__ = ["Page", "of_demonstration", "of_ensemble", "of_evaluation", "of_run", "render", "write"]
