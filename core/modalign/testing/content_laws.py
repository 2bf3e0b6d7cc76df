"""Laws of what reads and shows content: modalities, row formats, depictions of the oracle world."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import cast

import torch
from torch import Tensor

from modalign.comparison import Comparison, Origin
from modalign.content import Part
from modalign.errors import DataError
from modalign.files import File
from modalign.registration.admission import Entry
from modalign.registration.targets import resolve
from modalign.registry import Registry
from modalign.testing.case import Case, case, refuses, require
from modalign.testing.markup import unsafe
from modalign.world.concept import Concept, concepts, match

_SAMPLES = 24  #: concepts per depiction
_HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
_ORIGIN = Origin(file="rows.jsonl", row=1)


def examples(plugins: Registry, modality: str, count: int = 3) -> list[Part]:
    """Some parts of a modality: its depictions of the oracle world, else what its probe makes; else none."""
    if depiction := plugins.depictions().get(modality):
        return [depiction.depict(one) for one in _concepts(depiction.attributes, count)]
    entry = plugins.entries("modalities").get(modality)
    if entry is None or "probe" not in entry.declarations:
        return []
    made = _probe(entry)()
    require(
        isinstance(made, list) and made and all(isinstance(one, Part) for one in made),
        "a modality's probe is a function of nothing that returns a list of parts",
        got=made,
    )
    return cast("list[Part]", made)[:count]


def modality_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    """Reading, saving and showing are honest inverses, and bad blocks are clear errors."""

    def modality():
        return plugins.modality(entry.qualified)

    def parts() -> list[Part]:
        found = examples(plugins, entry.name)
        fix = f"register a depiction of {entry.name}, or declare probe='package.module:function' that returns parts"
        require(found, "there is nothing to try it on", got="no depiction and no probe", fix=fix)
        return found

    def declared(_: Path) -> None:
        one = modality()
        require(one.name == entry.name, f"its `name` must be {entry.name!r}", got=repr(one.name))
        for key in ("blocks", "columns"):
            said, has = entry.declarations.get(key, ()), getattr(one, key)
            require(
                set(cast("tuple[str, ...]", said)) == set(has), f"its `{key}` must be what it declared: {said}", got=has
            )

    def round_trip(_: Path) -> None:
        for part in parts():
            block = modality().block(part)
            require(block.get("type") in modality().blocks, "a block's `type` must be one it claims", got=dict(block))
            again = modality().read(block, root=None)
            require(
                again == part, "reading the block of a part must give the part back", got=f"another {again.modality}"
            )

    def no_words(_: Path) -> None:
        loose = [part for part in parts() if isinstance(part.value, str)]
        fix = "give bytes or a tensor; or declare strings=True, where parts are words"
        require(not loose, "the value of a medium is no str, which a language model would read as words", fix=fix)

    def bad_blocks(folder: Path) -> None:
        part = parts()[0]
        block = dict(modality().block(part))
        kind = {"type": block.pop("type")}
        with refuses("a block without content", DataError):
            modality().read(kind, root=None)
        for key in block:
            # a fact may be left out, and may be a number
            for wrong in (*(() if key in part.facts else (None, 3.5)), object(), ["x"], {"a": 1}):
                with refuses(f"a block whose {key!r} is {type(wrong).__name__}", DataError):
                    modality().read({**kind, **block, key: wrong}, root=None)
            if not entry.declarations.get("strings"):
                inside, outside = folder / "root", folder / "outside.bin"
                inside.mkdir(exist_ok=True)
                outside.write_bytes(b"secret")
                for path in ("../outside.bin", str(outside), "missing.bin"):
                    with refuses(f"a file outside the root, {path}", DataError):
                        modality().read({**kind, key: path}, root=inside)

    def saved(folder: Path) -> None:
        for number, part in enumerate(parts()):
            file = modality().save(part, folder / f"part-{number}")
            require(file.is_file() and file.parent == folder, "save must write one file at the stem", got=file)
            require(file.suffix, "save must give the file a suffix of its own", got=file.name)

    def shown(_: Path) -> None:
        tried = parts()
        if entry.declarations.get("strings"):
            tried.append(Part(modality=entry.name, value=_HOSTILE))
        for part in tried:
            html = modality().show(part)
            require(html, "show must give HTML", got="nothing")
            require(not (found := unsafe(html)), "show must give escaped HTML that loads nothing", got=found)

    def emptiness(_: Path) -> None:
        for part in parts():
            require(not modality().empty(part), "a part that shows something is not empty")
        if entry.declarations.get("strings"):
            require(modality().empty(Part(modality=entry.name, value=" \n")), "white space is empty")

    yield case(entry, "its class says what was declared", declared)
    yield case(entry, "reading is the inverse of writing a block", round_trip)
    if not entry.declarations.get("strings"):
        yield case(entry, "a medium is no words", no_words)
    yield case(entry, "a bad block is a clear error", bad_blocks)
    yield case(entry, "saving writes one file", saved)
    yield case(entry, "showing is self-contained and escaped", shown)
    yield case(entry, "it knows what is empty", emptiness)


def format_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    """A format claims only its own rows, and says which field of a row is wrong."""
    rows = _rows(entry)

    def foreign(_: Path) -> None:
        one = plugins.format(entry.qualified)
        for row in ({}, {"zz_unknown": 1}, {"zz_a": "x", "zz_b": [1, 2]}):
            require(one.claims(frozenset(row), row) is False, "it must not claim a row of foreign columns", got=row)

    def bad(_: Path) -> None:
        one = plugins.format(entry.qualified)
        for row in ({}, {"zz_unknown": 1}, *_damaged(rows)):
            try:
                found = one.comparison(row, _ORIGIN, root=None)
            except DataError as error:
                require(error.field, "a DataError must name the field", got=str(error), fix="DataError(..., field=...)")
            else:
                require(isinstance(found, Comparison) and rows, "a row of foreign columns must be a DataError", got=row)

    def own(_: Path) -> None:
        one = plugins.format(entry.qualified)
        for row in rows:
            require(one.claims(frozenset(row), row) is True, "it must claim the rows of its probe", got=row)
            before = repr(row)
            comparison = one.comparison(row, _ORIGIN, root=None)
            require(isinstance(comparison, Comparison), "it must give a Comparison", got=type(comparison).__name__)
            require(comparison.origin == _ORIGIN, "a comparison must keep the row it came from", got=comparison.origin)
            require(repr(row) == before, "it must not change the row", got=row)

    yield case(entry, "it claims nothing foreign", foreign)
    yield case(entry, "a bad row is an error that names the field", bad)
    if rows:
        yield case(entry, "it reads its own rows", own)


def depiction_cases(plugins: Registry, entry: Entry) -> Iterator[Case]:
    """What is depicted is read back exactly; what is unreadable is None and never a guess."""
    modality = cast(str, entry.declarations["modality"])

    def depiction():
        return plugins.depiction(entry.qualified)  # its own: of the modality another's may be taken

    def exact(_: Path) -> None:
        one = depiction()
        require(one.modality == modality, f"its `modality` must be {modality!r}, as declared", got=repr(one.modality))
        for seed, concept in enumerate(_concepts(one.attributes, _SAMPLES)):
            part = one.depict(concept, seed=seed)
            require(part.modality == modality, f"it must depict parts of {modality}", got=part.modality)
            require(part == one.depict(concept, seed=seed), "the same seed must give the same part", got=concept.key)
            found = one.read(part)
            require(found == concept, f"it must read back {concept.key!r}", got=None if found is None else found.key)

    def partial(_: Path) -> None:
        one, random = depiction(), Random(0)
        for concept in _concepts(one.attributes, _SAMPLES):
            names = random.sample(concept.attributes, random.randint(1, len(concept.attributes)))
            asked = concept.only(names)
            found = one.read(one.depict(asked))
            right = match(asked, found)
            require(all(right.values()), f"it must read back {asked.key!r}", got=None if found is None else found.key)

    def noise(_: Path) -> None:
        one = depiction()
        for concept in _concepts(one.attributes, 4):
            part = one.depict(concept)
            for what, value, readable in _noisy(part.value):
                found = one.read(Part(modality=modality, value=value))
                allowed = (None, concept) if readable else (None,)
                shown = None if found is None else found.key
                require(found in allowed, f"{what} of {concept.key!r} must be unreadable, never a guess", got=shown)

    yield case(entry, "what it depicts it reads back exactly", exact)
    yield case(entry, "what is asked for is shown, whatever is left open", partial)
    yield case(entry, "what is unreadable is None", noise)


def _concepts(names: frozenset[str], count: int) -> list[Concept]:
    every = list(concepts(names))
    return Random(0).sample(every, min(count, len(every)))


def _noisy(value: str | bytes | File | Tensor) -> Iterator[tuple[str, str | bytes | Tensor, bool]]:
    """Damaged values: what was done, the value, and whether the concept may still be in it."""
    random, made = Random(0), torch.Generator().manual_seed(0)
    match value:
        case str():
            yield "a shuffle of the letters", "".join(random.sample(value, len(value))), False
            yield "a half", value[: len(value) // 2] + " qzx", False
            yield "nothing", "", False
        case bytes():
            yield "random bytes instead", random.randbytes(len(value)), False
            yield "the first half", value[: len(value) // 2], True
        case Tensor():
            noise = torch.rand(value.shape, generator=made)
            top = 255 if value.dtype == torch.uint8 else 1
            yield "pure noise instead", (noise * top).to(value.dtype), False
            yield "nothing but zeros instead", torch.zeros_like(value), False
        case _:
            pass


def _probe(entry: Entry):
    return cast("type[object]", resolve(cast(str, entry.declarations["probe"])))


def _rows(entry: Entry) -> list[Mapping[str, object]]:
    if "probe" not in entry.declarations:
        return []
    made = _probe(entry)()
    require(
        isinstance(made, list) and all(isinstance(row, Mapping) for row in made),
        f"{entry.owner}: the probe of the format {entry.name!r} is a function of nothing that returns a list of rows",
        got=made,
    )
    return cast("list[Mapping[str, object]]", made)


def _damaged(rows: list[Mapping[str, object]]) -> Iterator[Mapping[str, object]]:
    """Each row without one of its columns, or with something in it that does not belong there."""
    for row in rows:
        for column in row:
            yield {key: value for key, value in row.items() if key != column}
            for wrong in (None, 3.5, [3], {"role": 1}, [{"role": "user"}], ""):
                yield {**row, column: wrong}
