"""The oracle world as a data set: what `modalign train dpo --data oracle` reads."""

from __future__ import annotations

from typing import cast, get_args

from modalign.comparison import Comparison
from modalign.config import DataConfig
from modalign.errors import ConfigError, MissingExtra
from modalign.world.preferences import Kind, World
from modalign.world.questions import ABOUT, Questions
from modalign.world.together import TOGETHER, Together

SIZE = 1024  #: rows where no limit is given
KINDS: tuple[Kind, ...] = get_args(Kind)


def data(config: DataConfig) -> list[Comparison]:
    """Rows of the oracle world.

    config: ``split`` is `[MODALITY/]KIND[-test]`: the modality of the responses (by default that of bare words), `sft`,
        `clean` (the default), `shared-defect` or `prompts`, and `-test` for the held-out concepts. With `about/` before
        it, `about/MODALITY/KIND[-test]`, a medium of that modality stands in the prompt, which asks what it shows, and
        the responses are answers in words; `together/KIND[-test]` asks for several modalities in one response.
        ``limit`` is how many rows to make, 1024 by default. ``revision`` is the seed, 0 by default.

    >>> rows = data(DataConfig(path="oracle", split="shared-defect", limit=3))
    >>> len(rows), rows[0].kind
    (3, 'pair')
    """
    about, modality, kind, held_out = _parse(config.split or "clean")
    seed = config.revision or "0"
    if not seed.isdecimal():
        raise ConfigError(
            "the revision of the oracle world is its seed",
            where="revision",
            got=repr(seed),
            fix="give a whole number",
        )
    if modality == TOGETHER and not about:
        return together(seed=int(seed)).rows(kind, config.limit or SIZE, held_out=held_out)
    rows = questions(modality, seed=int(seed)) if about and modality else world(modality, seed=int(seed))
    return rows.rows(kind, config.limit or SIZE, held_out=held_out)


def world(modality: str | None = None, *, seed: int = 0) -> World:
    """The world as one modality shows it; by default the one that bare words are of."""
    from modalign.registry import registry

    words = words_modality()
    return World(depiction=registry.depiction(modality or words), words=words, seed=seed)


def questions(modality: str, *, seed: int = 0) -> Questions:
    """Questions about media of one modality."""
    from modalign.registry import registry

    return Questions(depiction=registry.depiction(modality), words=words_modality(), seed=seed)


def together(*, seed: int = 0) -> Together:
    """The world as all installed modalities show it at once."""
    from modalign.registry import registry

    return Together(depictions=registry.depictions(), words=words_modality(), seed=seed)


def words_modality() -> str:
    """Name of the modality whose parts are bare strings: what prompts are made of."""
    from modalign.registry import registry

    entries = registry.entries("modalities")
    for name, entry in entries.items():
        if entry.declarations.get("strings"):
            return name
    raise MissingExtra(
        "the oracle world asks in words, and no installed modality is made of words",
        got=f"registered: {', '.join(entries) or 'none'}",
        fix="install one, for example: pip install 'modalign[all]'; `modalign plugins` lists what failed",
    )


def _parse(split: str) -> tuple[bool, str | None, Kind, bool]:
    """Whether media are asked about, the modality, the kind, and whether it is of held-out concepts."""
    place, _, rest = split.rpartition("/")
    about, modality = place.split("/") if place.startswith(f"{ABOUT}/") and place.count("/") == 1 else ("", place)
    kind = rest.removesuffix("-test")
    if kind not in KINDS or "/" in modality or (about and not modality):
        raise ConfigError(
            f"the oracle world has no split {split!r}",
            where="split",
            got=repr(rest) if kind not in KINDS else repr(place),
            fix=f"one of {', '.join(KINDS)}, with -test behind it for held-out concepts, MODALITY/ before it for "
            f"responses in another modality, {TOGETHER}/ for several in one response, or {ABOUT}/MODALITY/ for "
            "questions about media of one",
        )
    if place == ABOUT:
        raise ConfigError(
            "questions about media of which modality?",
            where="split",
            got=repr(split),
            fix=f"say it: {ABOUT}/MODALITY/{rest}; `modalign plugins` lists them",
        )
    return bool(about), modality or None, cast(Kind, kind), rest.endswith("-test")
