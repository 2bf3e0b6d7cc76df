"""The contract catches what breaks it, in modalities, formats and depictions."""

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import ClassVar, cast

import pytest
import torch
from torch import Tensor

from modalign.comparison import Comparison
from modalign.content import Part
from modalign.errors import DataError
from modalign.roles import Depiction, Format, Modality
from modalign.testing.blob import BlobModality
from modalign.testing.markup import unsafe
from modalign.world.concept import Concept

Breaks = Callable[..., str]
PROBE = "modalign.testing.blob:blobs"


class WrongName(BlobModality):
    name: ClassVar[str] = "blub"


class ClaimsMore(BlobModality):
    blocks: ClassVar[tuple[str, ...]] = ("blob", "vector")


class ForgetsPrecision(BlobModality):
    def read(self, block, *, root):
        part = super().read(block, root=root)
        assert isinstance(part.value, Tensor)
        return replace(part, value=part.value.round())


class KeyErrors(BlobModality):
    def read(self, block, *, root):
        return Part(modality="blob", value=cast(Tensor, block["blob"]))


class TakesAnything(BlobModality):
    def read(self, block, *, root):
        value = block.get("blob")
        return Part(modality="blob", value=value if isinstance(value, Tensor) else torch.zeros(4))


class WritesNothing(BlobModality):
    def save(self, part, stem):
        return stem.with_suffix(".blob")


class LoadsFromAfar(BlobModality):
    def show(self, part):
        return '<img src="https://example.org/blob.png">'


class AlwaysEmpty(BlobModality):
    def empty(self, part):
        return True


MODALITIES = {
    WrongName: "`name` must be 'blob'",
    ClaimsMore: "`blocks` must be what it declared",
    ForgetsPrecision: "must give the part back",
    KeyErrors: "must raise DataError; found: KeyError",
    TakesAnything: "must raise DataError; found: no error",
    WritesNothing: "must write one file",
    LoadsFromAfar: "loads nothing; found: src in <img>",
    AlwaysEmpty: "is not empty",
}


@pytest.mark.parametrize("thing", MODALITIES, ids=lambda one: one.__name__)
def test_a_bad_modality_is_told(thing: type[Modality], breaks: Breaks) -> None:
    found = breaks("modalities", thing, name="blob", blocks=("blob",), probe=PROBE)
    assert MODALITIES[thing] in found
    assert "plugin 'seeded' of seeded-dist 0, modality blob" in found


def test_a_good_modality_keeps_the_contract(breaks: Breaks) -> None:
    assert breaks("modalities", BlobModality, name="blob", blocks=("blob",), probe=PROBE) == ""


def test_a_modality_with_nothing_to_try_it_on_is_told(breaks: Breaks) -> None:
    assert "declare probe=" in breaks("modalities", BlobModality, name="blob", blocks=("blob",))


@pytest.mark.parametrize(
    "html",
    [
        "<script>x</script>",
        '<a href="javascript:x">',
        "<b onclick=x>",
        '<img src="/file">',
        '<p style="background: url(http://x)">',
        '<img src="data:text/html,x">',
    ],
)
def test_unsafe_markup_is_told(html: str) -> None:
    assert unsafe(html)


@pytest.mark.parametrize("html", ["&lt;script&gt;", "<b>x</b> src=x onclick=y", '<img src="data:;base64,AA==">'])
def test_safe_markup_is_let_through(html: str) -> None:
    assert unsafe(html) is None


# --- formats, depictions -------------------------------------------------------------------------


class Greedy(Format):
    def claims(self, columns, row) -> bool:
        return True

    def comparison(self, row, origin, *, root):
        raise DataError("nothing", field="prompt")


class Crashing(Greedy):
    def claims(self, columns, row):
        return "prompt" in columns

    def comparison(self, row, origin, *, root):
        return row["prompt"]


class Silent(Crashing):
    def comparison(self, row, origin, *, root):
        raise DataError("something is wrong")


class Inventive(Crashing):
    def comparison(self, row, origin, *, root):
        return Comparison.prompt_only(())


FORMATS = {
    Greedy: "must not claim a row of foreign columns",
    Crashing: "it raised; found: KeyError",
    Silent: "must name the field",
    Inventive: "must be a DataError",
}


@pytest.mark.parametrize("thing", FORMATS, ids=lambda one: one.__name__)
def test_a_bad_format_is_told(thing: type[Format], breaks: Breaks) -> None:
    assert FORMATS[thing] in breaks("formats", thing)


class Counted(Depiction):
    """A string of as many letters as there are things."""

    modality: ClassVar[str] = "smell"
    attributes: ClassVar[frozenset[str]] = frozenset({"count", "side"})

    def depict(self, concept, *, seed=0):
        return Part(
            modality="smell", value="x" * (concept.count or 1) + {"left": "l", "right": "r"}[concept.side or "left"]
        )

    def read(self, part):
        assert isinstance(part.value, str)
        body, side = part.value[:-1], {"l": "left", "r": "right"}.get(part.value[-1:])
        return Concept(count=len(body), side=side) if side and body in ("x", "xx", "xxx") else None


class Misreads(Counted):
    def read(self, part):
        found = super().read(part)
        return found and replace(found, count=1)


class Guesses(Counted):
    def read(self, part):
        return super().read(part) or Concept(count=1, side="left")


class Drifts(Counted):
    def depict(self, concept, *, seed=0):
        return Part(modality="smell", value=torch.rand(3))


DEPICTIONS = {Misreads: "must read back 'count=", Guesses: "must be unreadable", Drifts: "the same seed"}


@pytest.mark.parametrize("thing", DEPICTIONS, ids=lambda one: one.__name__)
def test_a_bad_depiction_is_told(thing: type[Depiction], breaks: Breaks) -> None:
    assert DEPICTIONS[thing] in breaks("depictions", thing, name="smell", modality="smell")


def test_a_good_depiction_keeps_the_contract(breaks: Breaks) -> None:
    assert breaks("depictions", Counted, name="smell", modality="smell") == ""


def test_a_probe_that_does_not_exist_is_told(breaks: Breaks) -> None:
    found = breaks("modalities", BlobModality, name="blob", blocks=("blob",), probe="zz_nowhere:probe")
    assert "its probe zz_nowhere:probe cannot be imported" in found


class Spelt(BlobModality):
    """Media that a language model would read as words."""

    def read(self, block, *, root):
        if not isinstance(block.get("blob"), str) or not str(block["blob"]).startswith("blob-"):
            raise DataError("no blob", field="blob", fix="write blob-...")
        return Part(modality="blob", value=str(block["blob"]))

    def block(self, part):
        return {"type": "blob", "blob": part.value}

    def save(self, part, stem):
        return Modality.save(self, part, stem)

    def show(self, part):
        return Modality.show(self, part)


def spelt() -> list[Part]:
    return [Part(modality="blob", value=f"blob-{name}") for name in "ab"]


def test_a_medium_that_is_words_is_told_and_saving_and_showing_have_defaults(
    breaks: Breaks, seeded: ModuleType
) -> None:
    seeded.__dict__["spelt"] = spelt
    found = breaks("modalities", Spelt, name="blob", blocks=("blob",), probe=f"{seeded.__name__}:spelt")
    assert "the value of a medium is no str" in found
    assert "breaks 1 of" in found
