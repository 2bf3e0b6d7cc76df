"""Examines an installation: every check that core and plugins bring, and every plugin that failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, final

from modalign.registration.admission import PluginRecord, describe_error, quietly
from modalign.registry import Registry, registry

if TYPE_CHECKING:
    from modalign.roles import CheckResult


@final
@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of what the doctor says.

    name: of the check, or of the plugin.
    plugin, distribution: who brought it.
    ok: None where the thing is absent and nobody asked for it.
    found: a version, a device, or what is wrong.
    fix: the command that mends it, or installs it.
    """

    name: str
    plugin: str
    distribution: str
    ok: bool | None
    found: str
    fix: str | None = None


def examine(plugins: Registry = registry) -> list[Finding]:
    """Every finding, core's first. Does not raise: what cannot be tried is a finding too."""
    if (broken := _torch()) is not None:
        return [broken, *(_plugin(record) for record in plugins.plugins() if record.failures)]
    findings: list[Finding] = []
    working = plugins.checks()
    for name, entry in plugins.entries("checks").items():
        if name in working:
            result = _tried(working[name])
            findings.append(
                Finding(
                    name=name,
                    plugin=entry.plugin,
                    distribution=entry.distribution,
                    ok=result.ok,
                    found=result.found,
                    fix=result.fix,
                )
            )
    return findings + [_plugin(record) for record in plugins.plugins() if record.failures]


def healthy(findings: Sequence[Finding]) -> bool:
    """Whether everything that is there works; what is absent may stay so."""
    return all(finding.ok is not False for finding in findings)


def describe(findings: Sequence[Finding]) -> dict[str, object]:
    """The findings as JSON."""
    return {"ok": healthy(findings), "findings": [asdict(finding) for finding in findings]}


def _torch() -> Finding | None:
    """What is wrong where torch cannot even be imported: then no check can run."""
    try:
        import torch  # noqa: F401 - the import is the test
    except Exception as error:
        fix = 'pip install --force-reinstall "modalign"'
        return Finding(
            name="torch", plugin="core", distribution="modalign", ok=False, found=describe_error(error), fix=fix
        )
    return None


def _tried(check: object) -> CheckResult:
    from modalign.roles import CheckResult

    try:
        found = quietly(check) if callable(check) else None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return CheckResult(ok=False, found=f"the check itself failed: {describe_error(error)}")
    if isinstance(found, CheckResult):
        return found
    return CheckResult(ok=False, found=f"the check must return a CheckResult, not {type(found).__name__}")


def _plugin(record: PluginRecord) -> Finding:
    failures = record.failures
    return Finding(
        name=f"plugin {record.name}",
        plugin=record.name,
        distribution=f"{record.distribution} {record.version}",
        ok=None if record.status == "absent" else False,
        found="; ".join(f"{one.what} ({one.got})" if one.got else one.what for one in failures),
        fix="; ".join(dict.fromkeys(one.fix for one in failures if one.fix)) or None,
    )
