"""Words as a modality."""

from pathlib import Path

import pytest

from modalign.content import Part
from modalign.errors import DataError
from modalign_text.modality import TextModality

WORDS = TextModality()


def _part(text: str) -> Part:
    return Part(modality="text", value=text)


def test_a_block_and_its_part_say_the_same() -> None:
    part = WORDS.read({"type": "text", "text": " a\n<b> "}, root=None)
    assert part == _part(" a\n<b> ")
    assert WORDS.block(part) == {"type": "text", "text": " a\n<b> "}


@pytest.mark.parametrize(
    ("block", "field"),
    [
        ({"type": "text"}, "text"),
        ({"type": "text", "text": 3}, "text"),
        ({"type": "text", "text": "\ud800"}, "text"),
        ({"type": "text", "text": "a", "path": "a.txt"}, "path"),
    ],
)
def test_a_block_that_is_not_words_names_its_field(block: dict[str, object], field: str) -> None:
    with pytest.raises(DataError) as caught:
        WORDS.read(block, root=None)
    assert caught.value.field == field


def test_null_fields_of_a_table_are_no_fields() -> None:
    assert WORDS.read({"type": "text", "text": "a", "path": None}, root=None) == _part("a")


def test_words_are_shown_escaped_and_saved_as_they_are(tmp_path: Path) -> None:
    part = _part("<script>&'\"\r\n é")
    assert "<script>" not in WORDS.show(part)
    assert "&lt;script&gt;&amp;&#x27;&quot;" in WORDS.show(part)
    file = WORDS.save(part, tmp_path / "v1.2")
    assert file == tmp_path / "v1.2.txt"
    assert file.read_bytes() == part.value.encode() if isinstance(part.value, str) else False


def test_white_space_is_empty() -> None:
    assert WORDS.empty(_part(" \n\u2003"))
    assert not WORDS.empty(_part("\u200b"))
    with pytest.raises(DataError, match="must be a string"):
        WORDS.show(Part(modality="text", value=b"bytes"))
