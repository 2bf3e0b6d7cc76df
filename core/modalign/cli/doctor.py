"""`modalign doctor`: what works here, what does not, and the command that mends it."""

from __future__ import annotations

import json as encoder

from modalign.doctor import Finding, describe, examine, healthy
from modalign.errors import PluginError

_MARKS = {True: "[green]ok[/]", False: "[red]broken[/]", None: "[dim]absent[/]"}


def doctor(*, json: bool = False) -> int:
    """Try everything modalign and its plugins need, and say what is wrong and how to mend it.

    Parameters
    ----------
    json
        Print JSON instead of a table.
    """
    findings = examine()
    if json:
        print(encoder.dumps(describe(findings), indent=2))
    else:
        _show(findings)
    return 0 if healthy(findings) else PluginError.exit_code


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("", "what", "plugin", "found"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(_MARKS[finding.ok], escape(finding.name), escape(finding.plugin), escape(finding.found))
    console = Console()
    console.print(table)
    mends = [finding for finding in findings if finding.fix and finding.ok is not None]
    if mends:
        console.print("\n[bold]To do[/]")
    for finding in mends:
        console.print(f"  {escape(finding.name)}: {escape(finding.fix or '')}", soft_wrap=True, highlight=False)
    absent = [finding for finding in findings if finding.fix and finding.ok is None]
    if absent:
        console.print("\n[dim]Not installed; if you want it[/]")
    for finding in absent:
        console.print(f"  [dim]{escape(finding.name)}: {escape(finding.fix or '')}[/]", soft_wrap=True, highlight=False)
    console.print("\nAll well." if healthy(findings) else "\nSomething is broken.")
