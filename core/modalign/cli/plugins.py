"""`modalign plugins`: which plugins are installed, what they register, and why one failed."""

from __future__ import annotations

import json as encoder

from modalign.hookspecs import API
from modalign.registration.admission import PluginRecord
from modalign.registry import Registry, registry

_MARKS = {"ok": "[green]ok[/]", "failed": "[red]failed[/]", "absent": "[dim]absent[/]"}


def plugins(*, json: bool = False) -> None:
    """List the installed plugins: what each registers, or why it cannot be used and what mends it.

    Parameters
    ----------
    json
        Print JSON instead of a table.
    """
    if json:
        print(encoder.dumps(describe(registry), indent=2))
    else:
        _show(registry.plugins())


def describe(plugins: Registry) -> dict[str, object]:
    """Everything the registry knows, as JSON; nothing that plugins register is imported for it."""
    return {"api": API, "plugins": [_described(record) for record in plugins.plugins()]}


def _described(record: PluginRecord) -> dict[str, object]:
    provides: dict[str, dict[str, dict[str, object]]] = {}
    for entry in record.entries:
        declared = {"target": entry.target, "declarations": dict(entry.declarations)}
        provides.setdefault(entry.kind, {})[entry.name] = declared
    return {
        "name": record.name,
        "target": record.target,
        "distribution": record.distribution,
        "version": record.version,
        "status": record.status,
        "provides": provides,
        "failures": [
            {"code": one.code, "what": one.what, "where": one.where, "got": one.got, "fix": one.fix}
            for one in record.failures
        ],
    }


def _show(records: list[PluginRecord]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("plugin", "", "distribution", "registers"):
        table.add_column(column, overflow="fold")
    for record in records:
        kinds = dict.fromkeys(entry.kind for entry in record.entries)
        lines = [
            f"[bold]{kind}[/] {escape(', '.join(entry.name for entry in record.entries if entry.kind == kind))}"
            for kind in kinds
        ]
        for failure in record.failures:
            tone = "dim" if record.status == "absent" else "red"
            lines.append(f"[{tone}]{escape(failure.what)}{escape(f' ({failure.got})') if failure.got else ''}[/]")
            lines += [f"to mend: {escape(failure.fix)}"] if failure.fix else []
        table.add_row(
            escape(record.name),
            _MARKS[record.status],
            escape(f"{record.distribution} {record.version}"),
            "\n".join(lines),
        )
    Console().print(table)
