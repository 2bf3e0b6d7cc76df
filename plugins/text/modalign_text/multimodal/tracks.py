"""What else the file of a medium holds, as media of its own that follow it: the sound of a clip."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from modalign.batch import Medium
from modalign.content import Part
from modalign.registry import registry
from modalign.roles import Content, MediaSettings

TRACKS: Final = "tracks"  #: of a medium's `extra`: the modalities of what follows it
_OF: Final = "track_of"  #: fact of such a part: the modality of the medium whose file holds it


def decoded(
    part: Part, settings: Mapping[str, MediaSettings], rate: Callable[[str], float | None]
) -> dict[Part, Content]:
    """A medium and its tracks, by the parts that mean them, of which the given one is one.

    rate: samples per second that a modality's encoder takes.
    """
    whole = _whole(part)
    name = whole.modality
    content = registry.modality(name).decode(whole, settings[name], rate=rate(name))
    found = {whole: content}
    for name, track in content.tracks.items():
        heard = Part(modality=name, value=track.tensor, facts={"sampling_rate": float(track.rate or 0)})
        found[_track(whole, name)] = registry.modality(name).decode(heard, settings[name], rate=rate(name))
    return found


def behind(part: Part, medium: Medium) -> tuple[Part, ...]:
    """The parts that follow a medium."""
    names = medium.extra.get(TRACKS, ())
    return tuple(_track(part, str(name)) for name in names) if isinstance(names, tuple) else ()


def _track(part: Part, name: str) -> Part:
    # the same file, taken for something else: so its digest follows from the medium's, and samples need not be kept
    return Part(modality=name, value=part.value, facts={**part.facts, _OF: part.modality})


def _whole(part: Part) -> Part:
    """The medium whose file a part means."""
    if _OF not in part.facts:
        return part
    facts = {name: value for name, value in part.facts.items() if name != _OF}
    return Part(modality=str(part.facts[_OF]), value=part.value, facts=facts)
