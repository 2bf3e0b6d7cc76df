"""What is said when a name belongs to nobody, or to two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from modalign.errors import PluginError
from modalign.registration.discovery import OWN
from modalign.registration.kinds import KINDS

if TYPE_CHECKING:
    from modalign.registration.admission import Entry, PluginRecord


def by_modality(known: Mapping[str, Entry]) -> dict[str, str]:
    """For each modality the one name that declares it: ours where we have it, none where two others do."""
    claims: dict[str, list[str]] = {}
    for name, entry in known.items():
        claims.setdefault(str(entry.declarations["modality"]), []).append(name)
    chosen = {modality: [name for name in names if known[name].own] or names for modality, names in claims.items()}
    return {modality: names[0] for modality, names in chosen.items() if len(names) == 1}


def contested(kind: str, name: str, claims: Sequence[Entry]) -> PluginError:
    """Two or more distributions claim one name: whoever asks must say which."""
    return PluginError(
        f"more than one plugin registers the {KINDS[kind].one} {name!r}",
        got="; ".join(f"{claim.qualified!r} by {claim.owner}" for claim in claims),
        fix=f"ask for one of them by its qualified name, such as {claims[0].qualified!r}",
    )


def unknown(kind: str, name: str, known: Mapping[str, Entry], plugins: Sequence[PluginRecord]) -> PluginError:
    """Nobody registers the name: what there is, what is close, and every failed plugin that might have had it.

    Where one of these surely had it, the error is of that failure's class, and has it as its cause.
    """
    failed = [(record, failure) for record in plugins for failure in record.failures if not record.entries]
    owner, _, plain = name.rpartition(":")
    culprits = [
        failure for record, failure in failed if (owner and owner == record.distribution) or plain == record.name
    ]
    culprit = culprits[0] if culprits else failed[0][1] if len(failed) == 1 else None
    found = [f"registered: {', '.join(known) or 'none'}"]
    found += [f"not usable: {failure.what}{f' ({failure.got})' if failure.got else ''}" for _, failure in failed]
    close = get_close_matches(name, known, n=1)
    mends = [f"did you mean {close[0]!r}?"] if close else []
    mends += [failure.fix for _, failure in failed if failure.fix and (not culprits or failure in culprits)]
    if not any(record.own for record in plugins):
        mends.append(f"{OWN} itself is not installed as a distribution here: pip install -e .")
    error = (type(culprits[0]) if culprits else PluginError)(
        f"no {KINDS[kind].one} {name!r}",
        got="; ".join(found),
        fix="; or ".join(dict.fromkeys(mends)) or "install the plugin that has it, or correct the name",
    )
    error.__cause__ = culprit
    return error
