"""docs/data.md: every row in it is read by the format it stands under, and its code runs."""

import re
from pathlib import Path
from typing import get_args

import pytest

from modalign.comparison import Comparison, Origin
from modalign.config import DataConfig
from modalign.data import read
from modalign.registry import registry
from modalign.roles import Format
from modalign_image.samples import encode, photo

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text()
SECTIONS = re.findall(r"^### (.*?)\n(.*?)(?=^##)", PAGE, re.M | re.S)
ROWS = [(title, block) for title, body in SECTIONS for block in re.findall(r"^```json\n(.*?)^```", body, re.M | re.S)]


@pytest.mark.parametrize(("title", "block"), ROWS, ids=[title for title, _ in ROWS])
def test_the_rows_of_the_page_are_read_by_the_format_they_stand_under(tmp_path: Path, title: str, block: str) -> None:
    path = tmp_path / "rows.jsonl"
    for line in block.splitlines():
        path.write_text(line)
        for at, name in enumerate(re.findall(r'"(pictures/[\w.]+)"', line)):
            (tmp_path / "pictures").mkdir(exist_ok=True)
            (tmp_path / name).write_bytes(encode(photo(seed=at), "JPEG"))
        data = read(path)
        assert isinstance(data[0], Comparison)
        named = re.findall(r"`(\w+)`", title)
        assert not named or data.format in named


def test_every_format_has_its_rows_on_the_page() -> None:
    named = {name for title, _ in SECTIONS for name in re.findall(r"`(\w+)`", title)}
    ours = ("text", "image", "audio", "video")
    assert {name for name, entry in registry.entries("formats").items() if entry.plugin in ours} <= named


def test_every_policy_is_on_the_page() -> None:
    for name in ("max_length", "on_too_long", "on_bad_row", "max_bad_fraction"):
        values = [one for one in get_args(DataConfig.model_fields[name].annotation) if isinstance(one, str)]
        assert f"`{name}" in PAGE
        assert all(value in PAGE for value in values)


def test_the_format_of_the_page_works() -> None:
    block = next(one for one in re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S) if "class Review" in one)
    space: dict[str, object] = {"__name__": "page"}
    exec(compile(block, "docs/data.md", "exec"), space)
    made = space["Review"]
    assert isinstance(made, type)
    review = made()
    assert isinstance(review, Format)
    row = {"question": "2+2?", "answer": "4", "stars": 5}
    assert review.claims(frozenset(row), row)
    assert review.comparison(row, Origin(file="x", row=1), root=None).responses[0].reward == 5.0
