"""Media in rows: columns and blocks belong to the modality whose plugin claims them, and none is dropped."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, final

import pytest

from modalign import hookimpl
from modalign.content import Part
from modalign.data import read
from modalign.data.fields import string
from modalign.errors import DataError, PluginError
from modalign.hookspecs import Register
from modalign.registry import registry
from modalign.roles import Modality


@final
class Smell(Modality):
    name: ClassVar[str] = "smell"
    blocks: ClassVar[tuple[str, ...]] = ("smell",)
    columns: ClassVar[tuple[str, ...]] = ("smells",)

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        return Part(modality=self.name, value=string(block.get("smell"), "smell").encode())

    def block(self, part: Part) -> Mapping[str, object]:
        raise NotImplementedError

    def save(self, part: Part, stem: Path) -> Path:
        raise NotImplementedError

    def show(self, part: Part) -> str:
        raise NotImplementedError

    def empty(self, part: Part) -> bool:
        return part.value == b""


class Plugin:
    def __init__(self, *names: str) -> None:
        self.names = names

    @hookimpl
    def register_modalities(self, register: Register) -> None:
        for name in self.names:
            register(name, f"{__name__}:Smell", blocks=("smell",), columns=("smells",))


@pytest.fixture
def smells() -> Iterator[None]:
    with registry.scoped(Plugin("smell"), distribution="smells"):
        yield


HOLE: dict[str, object] = {"type": "smell"}
WORDS: dict[str, object] = {"type": "text", "text": "What is it?"}
ROSE, TAR = {"role": "assistant", "content": "A rose."}, {"role": "assistant", "content": "Tar."}


def _row(*content: dict[str, object], **columns: object) -> dict[str, object]:
    return {"prompt": [{"role": "user", "content": list(content)}], "chosen": [ROSE], "rejected": [TAR]} | columns


def _values(row: dict[str, object]) -> list[object]:
    return [part.value for part in read([row])[0].prompt[-1].parts]


@pytest.mark.usefixtures("smells")
def test_a_block_is_read_by_the_modality_that_claims_its_type() -> None:
    assert _values(_row(WORDS, {"type": "smell", "smell": "sweet"})) == ["What is it?", b"sweet"]


@pytest.mark.usefixtures("smells")
def test_items_of_a_claimed_column_fill_blocks_in_order() -> None:
    assert _values(_row(HOLE, WORDS, HOLE, smells=["a", "b"])) == [b"a", "What is it?", b"b"]


@pytest.mark.usefixtures("smells")
def test_without_blocks_they_come_before_the_words_of_the_user() -> None:
    assert _values(_row(WORDS, smells=["a", "b"])) == [b"a", b"b", "What is it?"]
    assert _values({"prompt": "It is", "chosen": " a rose", "rejected": " tar", "smells": "a"}) == [b"a", "It is"]


@pytest.mark.usefixtures("smells")
def test_an_implicit_prompt_takes_each_item_once() -> None:
    ask = {"role": "user", "content": [HOLE, WORDS]}
    assert _values({"chosen": [ask, ROSE], "rejected": [ask, TAR], "smells": ["a"]}) == [b"a", "What is it?"]


@pytest.mark.usefixtures("smells")
@pytest.mark.parametrize(
    ("row", "field", "says"),
    [
        (_row(HOLE, HOLE, WORDS, smells=["a"]), r"prompt\[0\].content\[1\]", "more blocks than the column has items"),
        (_row(HOLE, WORDS, smells=["a", "b"]), r"smells\[1\]", "fewer blocks than the column has items"),
        (_row(WORDS, smells=["a", 3]), r"smells\[1\].smell", "expected a string; found: a number 3"),
        (_row(HOLE, WORDS), r"prompt\[0\].content\[0\].smell", "expected a string; found: null"),
        (
            _row(WORDS) | {"chosen": [ROSE | {"smells": ["a"]}]},
            r"chosen\[0\].smells",
            "media beside a message.s content would not be seen",
        ),
        (
            _row(WORDS) | {"chosen": [ROSE | {"content": [{"type": "smell", "smell": ""}]}]},
            "chosen",
            "an empty response",
        ),
    ],
)
def test_media_that_do_not_fit_are_an_error(row: dict[str, object], field: str, says: str) -> None:
    with pytest.raises(DataError, match=rf"rows:1 field={field}: {says}"):
        read([row])[0]


def test_a_column_that_no_plugin_claims_is_never_dropped() -> None:
    with pytest.raises(DataError, match="field=smells: no format or plugin claims this column; found: a list"):
        read([_row(WORDS, smells=["a"])])[0]


def test_a_type_that_two_plugins_claim_is_an_error_that_names_both() -> None:
    with registry.scoped(Plugin("one", "two"), distribution="smells"):
        data = read([_row({"type": "smell", "smell": "a"})])
        with pytest.raises(PluginError, match="one modality; found: one, two"):
            data[0]


def test_an_unclaimed_block_names_the_command_of_a_plugin_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = SimpleNamespace(failures=[SimpleNamespace(fix='pip install "modalign-smell[nose]"')])
    monkeypatch.setattr(type(registry), "plugins", lambda _: [record])
    with pytest.raises(DataError, match=r'to mend: pip install "modalign-smell\[nose\]"'):
        read([_row(WORDS, {"type": "smell", "smell": "a"})])[0]
