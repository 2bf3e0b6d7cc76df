"""Which registered thing each part of a saved composition is, and which distribution it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, final

from pydantic import Field

from modalign.config import Config
from modalign.errors import PluginError
from modalign.registration.admission import Entry
from modalign.registration.discovery import OWN
from modalign.registration.kinds import KINDS
from modalign.registry import registry

_NAME: Final = r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"  #: of a distribution, https://peps.python.org/pep-0508


@final
class Origin(Config):
    """What a part was registered as, and by whom."""

    kind: str
    """The hook's name without `register_`: `encoders`."""

    name: str
    """The registered name."""

    distribution: str = Field(pattern=f"^{_NAME}$")
    """The distribution that registered it."""

    version: str
    """Of the distribution, when the model was saved."""

    plugin: str
    """The entry point of the distribution."""

    @property
    def install(self) -> str:
        """The command that installs it."""
        if self.distribution != OWN:
            return f"pip install {self.distribution}"
        extra = "" if self.plugin == "core" or not re.fullmatch(_NAME, self.plugin) else f"[{self.plugin}]"
        return f'pip install "{OWN}{extra}"' if extra else f"pip install {OWN}"


def origin(kind: str, name: str) -> Origin | None:
    """Of what is registered by a name; None where nothing is."""
    entry = registry.entries(kind).get(name)
    return None if entry is None else _origin(entry)


def check_origins(origins: Mapping[str, Origin], where: Path) -> None:
    """Raise where something that a saved model is made of is not here; nothing of it is imported.

    origins: by the part: `encoders.NAME`, `connectors.NAME`, `decoders.NAME`, `modalities.NAME`.
    """
    for part, one in origins.items():
        entries = registry.entries(one.kind) if one.kind in KINDS else {}
        if one.name in entries or f"{one.distribution}:{one.name}" in entries:
            continue
        records = [record for record in registry.plugins() if record.distribution == one.distribution]
        failed = [failure for record in records if record.name == one.plugin for failure in record.failures]
        what = KINDS[one.kind].one if one.kind in KINDS else one.kind
        found = f"no {what} {one.name!r}; " + (
            f"{failed[0].what}{f' ({failed[0].got})' if failed[0].got else ''}"
            if failed
            else f"{one.distribution} is here, but without it"
            if records
            else f"{one.distribution} is not installed"
        )
        kind = type(failed[0]) if failed else PluginError
        raise kind(
            f"this model is made of plugin {one.plugin!r} of {one.distribution} {one.version}, which is not here",
            where=f"{where}: {part}",
            got=found,
            fix=(failed[0].fix if failed else None) or one.install,
        ) from (failed[0] if failed else None)


def _origin(entry: Entry) -> Origin:
    return Origin(
        kind=entry.kind,
        name=entry.name,
        distribution=entry.distribution,
        version=entry.version,
        plugin=entry.plugin,
    )
