"""The door all plugins come in by: names to what plugins registered under them, with typed access.

Importing this module finds no plugin; the first question does. Our own plugins are asked first, and others only for
what ours do not have, so that a plugin's code runs when somebody uses what it registers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import EntryPoint
from threading import RLock
from typing import TYPE_CHECKING, TypeVar, cast, final

from packaging.utils import canonicalize_name

from modalign.errors import PluginError
from modalign.hookspecs import GROUP
from modalign.registration.admission import Entry, PluginRecord, Status, admit, admit_object
from modalign.registration.discovery import Found, discover
from modalign.registration.kinds import KINDS
from modalign.registration.lookup import by_modality, contested, unknown
from modalign.registration.targets import make

if TYPE_CHECKING:
    from modalign.objectives.base import Objective
    from modalign.roles import (
        Backbone,
        Check,
        Connector,
        Decoder,
        Depiction,
        Encoder,
        Format,
        Head,
        Loader,
        Modality,
        Reward,
    )

__all__ = ["Entry", "PluginRecord", "Registry", "Status", "registry"]

T = TypeVar("T")

_log = logging.getLogger(__name__)


@final
class Registry:
    """What plugins registered, by kind and name.

    entry_points: take these instead of the installed ones.

    A name is plain (`dpo`) or qualified by its distribution (`modalign:dpo`). A plain name means ours where we have
    it; where two others claim it, it means neither, and only the qualified ones work.

    >>> registry.objective("dpo").__name__
    'DPO'
    """

    def __init__(self, entry_points: Iterable[EntryPoint] | None = None) -> None:
        self._points = None if entry_points is None else tuple(entry_points)
        self._found: list[Found] | None = None
        self._records: dict[Found, PluginRecord] = {}
        self._loading: set[Found] = set()
        self._objects: dict[tuple[str, str], object] = {}  # kind and qualified name -> class, function or instance
        self._broken: dict[tuple[str, str], PluginError] = {}
        self._lock = RLock()

    # --- what there is -------------------------------------------------------------------------------

    def plugins(self) -> list[PluginRecord]:
        """Every plugin that is installed, with what it registered or why it failed; ours first."""
        return [self._with_broken(record) for record in self._load(lambda found: True)]

    def entries(self, kind: str) -> dict[str, Entry]:
        """What is registered of a kind (`objectives`), by name; nothing of it is imported.

        A name that belongs to another entry, or to nobody because two claim it, is written ``distribution:name``.
        """
        self._check_kind(kind)
        every = [one for record in self._load(lambda found: True) for one in record.entries if one.kind == kind]
        ours = {one.name for one in every if one.own}
        named: dict[str, Entry] = {}
        for entry in every:
            shared = sum(other.name == entry.name for other in every) > 1
            plain = entry.own or not (shared or entry.name in ours)
            named[entry.name if plain else entry.qualified] = entry
        return named

    def failures(self) -> list[PluginError]:
        """Why plugins, or single targets of theirs, cannot be used; an extra that nobody installed is no failure."""
        return [failure for record in self.plugins() if record.status != "absent" for failure in record.failures]

    # --- one thing by name ---------------------------------------------------------------------------

    def objective(self, name: str) -> type[Objective]:
        """The objective's class."""
        return cast("type[Objective]", self._get("objectives", name))

    def head(self, name: str) -> type[Head]:
        """The reward head's class."""
        return cast("type[Head]", self._get("heads", name))

    def encoder(self, name: str) -> type[Encoder]:
        """The encoder's class."""
        return cast("type[Encoder]", self._get("encoders", name))

    def connector(self, name: str) -> type[Connector]:
        """The connector's class."""
        return cast("type[Connector]", self._get("connectors", name))

    def backbone(self, name: str) -> type[Backbone]:
        """The backbone's class."""
        return cast("type[Backbone]", self._get("backbones", name))

    def decoder(self, name: str) -> type[Decoder]:
        """The decoder's class."""
        return cast("type[Decoder]", self._get("decoders", name))

    def loader(self, name: str) -> Loader:
        """The loader."""
        return cast("Loader", self._get("loaders", name))

    def format(self, name: str) -> Format:
        """The row format."""
        return cast("Format", self._get("formats", name))

    def modality(self, name: str) -> Modality:
        """The modality."""
        return cast("Modality", self._get("modalities", name))

    def reward(self, name: str) -> Reward:
        """The reward."""
        return cast("Reward", self._get("rewards", name))

    def op(self, name: str) -> Callable[..., object]:
        """The fused op."""
        return cast("Callable[..., object]", self._get("ops", name))

    def depiction(self, modality: str) -> Depiction:
        """How the oracle world looks in a modality: ours where we have it."""
        return cast("Depiction", self._use(self._entry("depictions", modality, by="modality")))

    # --- everything of a kind that works -------------------------------------------------------------

    def modalities(self) -> dict[str, Modality]:
        """All modalities by name."""
        return cast("dict[str, Modality]", self._all("modalities"))

    def loaders(self) -> dict[str, Loader]:
        """All loaders by name."""
        return cast("dict[str, Loader]", self._all("loaders"))

    def formats(self) -> dict[str, Format]:
        """All row formats by name, those of the highest priority first: the order in which they are asked."""
        return cast("dict[str, Format]", self._all("formats"))

    def depictions(self) -> dict[str, Depiction]:
        """All depictions by modality: ours where we have one, and none that two others claim."""
        found, names = cast("dict[str, Depiction]", self._all("depictions")), by_modality(self.entries("depictions"))
        return {modality: found[name] for modality, name in names.items() if name in found}

    def rewards(self) -> dict[str, Reward]:
        """All rewards by name."""
        return cast("dict[str, Reward]", self._all("rewards"))

    def ops(self) -> dict[str, Callable[..., object]]:
        """All fused ops by name."""
        return cast("dict[str, Callable[..., object]]", self._all("ops"))

    def checks(self) -> dict[str, Check]:
        """All checks of `modalign doctor` by name."""
        return cast("dict[str, Check]", self._all("checks"))

    # --- for tests -----------------------------------------------------------------------------------

    @contextmanager
    def scoped(self, plugin: object, *, name: str = "scoped", distribution: str = "scoped") -> Iterator[PluginRecord]:
        """Within it a plugin that is not installed, a module or an object with hooks, is there too.

        Raises what keeps it from being used.
        """
        point = EntryPoint(name=name, value=f"{distribution}:{name}", group=GROUP)
        found = Found(point=point, distribution=distribution, version="0")
        record = admit_object(found, plugin)
        if record.failures:
            raise record.failures[0]
        with self._lock:
            if found in self._find():
                raise PluginError(f"{found} is there already", fix="give this one a `name` of its own")
            self._found = [*self._find(), found]
            self._records[found] = record
        try:
            yield record
        finally:
            with self._lock:
                self._found = [one for one in self._find() if one != found]
                del self._records[found]
                for entry in record.entries:
                    self._objects.pop((entry.kind, entry.qualified), None)
                    self._broken.pop((entry.kind, entry.qualified), None)

    # --- inside --------------------------------------------------------------------------------------

    def _find(self) -> list[Found]:
        if self._found is None:
            self._found = discover(self._points)
        return self._found

    def _load(self, wanted: Callable[[Found], bool]) -> list[PluginRecord]:
        """The records of the plugins that are wanted, importing those that have not been."""
        with self._lock:
            chosen = [found for found in self._find() if wanted(found)]
            # a plugin whose import asks us a question does not wait for itself
            for found in (one for one in chosen if one not in self._records and one not in self._loading):
                self._loading.add(found)
                try:
                    self._records[found] = self._once(admit(found))
                finally:
                    self._loading.discard(found)
            return [self._records[found] for found in chosen if found in self._records]

    def _once(self, record: PluginRecord) -> PluginRecord:
        """A record whose names no earlier plugin of the same distribution has: no qualified name could tell them."""
        taken = {(entry.kind, entry.qualified): entry for one in self._records.values() for entry in one.entries}
        for entry in record.entries:
            if other := taken.get((entry.kind, entry.qualified)):
                failure = PluginError(
                    f"{entry.owner} registers the {KINDS[entry.kind].one} {entry.name!r} a second time",
                    got=f"{other.owner} has it",
                    fix=f"rename one of the two in {entry.distribution}",
                )
                return replace(record, status="failed", entries=(), failures=(failure,))
        return record

    def _with_broken(self, record: PluginRecord) -> PluginRecord:
        keys = [(entry.kind, entry.qualified) for entry in record.entries]
        broken = tuple(self._broken[key] for key in keys if key in self._broken)
        return replace(record, status="failed", failures=record.failures + broken) if broken else record

    def _check_kind(self, kind: str) -> None:
        if kind not in KINDS:
            raise PluginError(f"no kind {kind!r}", got=f"kinds: {', '.join(KINDS)}")

    def _get(self, kind: str, name: str) -> object:
        return self._use(self._entry(kind, name))

    def _all(self, kind: str) -> dict[str, object]:
        """What can be used of a kind, by name; what cannot is logged once, and kept for who asks for it."""
        entries = sorted(
            self.entries(kind).items(), key=lambda item: -cast(int, item[1].declarations.get("priority", 0))
        )
        found: dict[str, object] = {}
        for name, entry in entries:
            known = (kind, entry.qualified) in self._broken
            try:
                found[name] = self._use(entry)
            except PluginError as error:
                _log.log(logging.DEBUG if known else logging.WARNING, "left out: %s", error)
        return found

    def _entry(self, kind: str, name: str, *, by: str | None = None) -> Entry:
        self._check_kind(kind)
        owner, _, plain = name.rpartition(":")
        if owner:
            claims = self._claims(
                kind, plain, lambda found: canonicalize_name(found.distribution) == canonicalize_name(owner)
            )
        else:
            claims = self._claims(kind, plain, lambda found: found.own, by)
            claims = claims or self._claims(kind, plain, lambda found: not found.own, by)
        if not claims:
            raise unknown(kind, name, self.entries(kind), self.plugins())
        if len(claims) > 1:
            raise contested(kind, plain, claims)
        return claims[0]

    def _claims(self, kind: str, name: str, wanted: Callable[[Found], bool], by: str | None = None) -> list[Entry]:
        every = [one for record in self._load(wanted) for one in record.entries if one.kind == kind]
        return [one for one in every if (one.declarations[by] if by else one.name) == name]

    def _use(self, entry: Entry) -> object:
        key = (entry.kind, entry.qualified)
        with self._lock:
            if key in self._broken:
                failure = self._broken[key]
                raise type(failure)(failure.what, got=failure.got, fix=failure.fix) from failure
            if key not in self._objects:
                try:
                    self._objects[key] = make(entry)
                except PluginError as error:
                    self._broken[key] = error
                    raise
            return self._objects[key]


registry = Registry()  #: the plugins that are installed here
