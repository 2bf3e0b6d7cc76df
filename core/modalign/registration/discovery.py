"""Finds the plugins that are installed and what keeps one from being used, without importing any."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution, distributions
from typing import final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from modalign.errors import MissingExtra, PluginError
from modalign.hookspecs import API, GROUP

OWN = "modalign"  #: our own distribution: what it registers is never shadowed


@final
@dataclass(frozen=True, kw_only=True)
class Found:
    """One entry point, read from a distribution's metadata.

    point: the entry point.
    distribution, version: whose it is.
    """

    point: EntryPoint
    distribution: str
    version: str

    @property
    def own(self) -> bool:
        """Whether it is one of ours."""
        return canonicalize_name(self.distribution) == OWN

    @property
    def install(self) -> str:
        """The command that installs the distribution with the extras that this plugin needs."""
        extras = f"[{','.join(self.point.extras)}]" if self.point.extras else ""
        return f'pip install --upgrade "{self.distribution}{extras}"'

    def __str__(self) -> str:
        return f"plugin {self.point.name!r} of {self.distribution} {self.version}"


def discover(points: Iterable[EntryPoint] | None = None) -> list[Found]:
    """The plugins of every API version: ours first, then by distribution; those that need no extra before the others.

    Of one that is there for several versions, the one for ours.

    points: take these entry points instead of the installed ones.
    """
    found = list(_installed() if points is None else (_found(point, point.dist) for point in points))
    fits = {_key(one) for one in found if one.point.group == GROUP}
    # a plugin that is written for several versions of the contract is here as the one that this modalign has
    return sorted((one for one in found if one.point.group == GROUP or _key(one) not in fits), key=_rank)


def _key(found: Found) -> tuple[str, str]:
    return found.distribution, found.point.name


def _rank(found: Found) -> tuple[bool, str, bool, str]:
    return (not found.own, canonicalize_name(found.distribution), bool(found.point.extras), found.point.name)


def _installed() -> Iterator[Found]:
    seen: set[str] = set()
    for installed in distributions():
        try:
            points = [point for point in installed.entry_points if _ours(point.group)]
            if not points:
                continue
            name = canonicalize_name(installed.metadata["Name"])
        except Exception:  # noqa: S112 - metadata that cannot be read belongs to no plugin, and must not stop the others
            continue
        if name not in seen:  # an earlier folder of sys.path wins, as it does for imports
            seen.add(name)
            yield from (_found(point, installed) for point in points)


def _ours(group: str) -> bool:
    return group == OWN or group.startswith(f"{OWN}.")


def _found(point: EntryPoint, owner: Distribution | None) -> Found:
    name = "unknown" if owner is None else owner.metadata["Name"]
    return Found(point=point, distribution=name, version=(owner and owner.version) or "0")


def obstacle(found: Found) -> PluginError | None:
    """Why a plugin cannot be used, as far as metadata tells; None where nothing speaks against it."""
    if found.point.group != GROUP:
        return PluginError(
            f"{found} was written for another plugin API",
            got=f"entry-point group {found.point.group!r}; this modalign has {GROUP!r}",
            fix=f"{found.install} (a version for API {API}), or pip uninstall {found.distribution}",
        )
    if missing := _missing(found.point.dist, frozenset(found.point.extras)):
        return MissingExtra(
            f"{found} needs packages that are not installed", got="; ".join(missing), fix=_plain(found.install)
        )
    return None


def absent(found: Found) -> bool:
    """Whether some package of a plugin's extras is not there at all: nobody installed the extra.

    Others of its packages may be there, as extras share them.
    """
    wanted = _required(found.point.dist, frozenset(found.point.extras))
    return any(_version(requirement.name) is None for requirement in wanted)


def unmet(requirement: Requirement) -> str | None:
    """What is wrong with the installed version of a requirement; None where it is met."""
    version = _version(requirement.name)
    if version is None:
        return f"{requirement.name} is missing"
    if not requirement.specifier.contains(version, prereleases=True):
        return f"{requirement.name} {version} is not {requirement.specifier}"
    return None


def own_requirement(package: str) -> Requirement | None:
    """What modalign itself, in whichever of its extras, asks of a package; None where it asks nothing."""
    try:
        lines = distribution(OWN).requires or []
    except PackageNotFoundError:
        return None
    asked = (Requirement(line) for line in lines)
    return next((one for one in asked if canonicalize_name(one.name) == canonicalize_name(package)), None)


def _plain(command: str) -> str:
    """Without `--upgrade`, which would also move packages that are right."""
    return command.replace(" --upgrade", "")


def _missing(owner: Distribution | None, extras: frozenset[str]) -> list[str]:
    """Each thing that an extra asks for and this environment does not have."""
    if owner is None or not extras:
        return []
    provided = {canonicalize_name(extra) for extra in owner.metadata.get_all("Provides-Extra") or ()}
    unknown = [f"it has no extra {extra!r}" for extra in sorted(extras) if canonicalize_name(extra) not in provided]
    return unknown + [problem for one in _required(owner, extras) if (problem := unmet(one))]


def _required(
    owner: Distribution | None, extras: frozenset[str], seen: frozenset[tuple[str, str]] = frozenset()
) -> Iterator[Requirement]:
    """The requirements that extras add, here and on this Python; through extras of extras too."""
    for line in (owner.requires if owner else None) or ():
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}):
            continue  # asked for without any extra, so pip has it
        if not any(marker.evaluate({"extra": canonicalize_name(extra)}) for extra in extras):
            continue
        yield requirement
        for extra in sorted(requirement.extras):
            link = (canonicalize_name(requirement.name), extra)
            if link not in seen and (inner := _distribution(requirement.name)) is not None:
                yield from _required(inner, frozenset({extra}), seen | {link})


def _distribution(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _version(name: str) -> str | None:
    found = _distribution(name)
    return None if found is None else found.version
