"""Media in rows: columns and blocks belong to the modality whose plugin claims them, and none is dropped."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar, final

import pytest

from modalign import hookimpl
from modalign.content import Part
from modalign.data import check, read
from modalign.data.fields import string
from modalign.errors import DataError, PluginError
from modalign.files import File
from modalign.hookspecs import Register
from modalign.registry import registry
from modalign.roles import Modality


@final
class Smell(Modality):
    name: ClassVar[str] = "smell"
    blocks: ClassVar[tuple[str, ...]] = ("smell",)
    columns: ClassVar[tuple[str, ...]] = ("smells",)

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        said = string(block.get("smell"), "smell")
        facts = {"strength": 2.0} if "strength" in block else {}
        facts |= {"sha256": str(block["sha256"])} if "sha256" in block else {}
        if root is not None and said.startswith("file:"):
            return Part(modality=self.name, value=File(root=root, name=said.removeprefix("file:")), facts=facts)
        return Part(modality=self.name, value=said.encode(), facts=facts)

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
        (
            _row(HOLE, HOLE, WORDS, HOLE, smells=["a"]),
            r"prompt\[0\].content\[1\]",
            "more blocks than the column has items; found: 3 blocks of type 'smell', 1 items in smells",
        ),
        (
            _row(HOLE, WORDS, smells=["a", "b"]),
            r"smells\[1\]",
            "fewer blocks than the column has items; found: 1 blocks of type 'smell', 2 items in smells",
        ),
        (
            _row(HOLE, WORDS, smells=[]),
            r"prompt\[0\].content\[0\]",
            "more blocks than the column has items; found: 1 blocks of type 'smell', 0 items in smells",
        ),
        (_row(WORDS, smells=[None]), r"smells\[0\]", "a medium that is null"),
        (
            _row(WORDS, smells=["a"], rejected_smells=["b"]),
            r"rejected_smells\[0\]",
            "fewer blocks in the rejected response than the .*; found: 0 blocks .*, 1 items in rejected_smells",
        ),
        (
            _row(HOLE, WORDS, smells=["a"], rejected_smells=[]) | {"rejected": [TAR | {"content": [HOLE]}]},
            r"rejected\[0\].content\[0\]",
            "more blocks than the column has items; found: 1 blocks of type 'smell', 0 items in rejected_smells",
        ),
        (
            {"prompt": "It is", "completion": " a rose", "rejected_smells": ["b"]},
            r"rejected_smells\[0\]",
            "fewer blocks in the rejected response",
        ),
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


def _both(row: dict[str, object]) -> list[list[object]]:
    return [[part.value for part in one.parts()] for one in read([row])[0].responses]


ANSWERS: dict[str, object] = {"chosen": [ROSE | {"content": [HOLE]}], "rejected": [TAR | {"content": [HOLE]}]}


@pytest.mark.usefixtures("smells")
def test_items_go_on_into_the_responses_in_reading_order() -> None:
    row = _row(HOLE, WORDS, smells=["a", "b", "c"]) | ANSWERS
    assert _values(row) == [b"a", "What is it?"]
    assert _both(row) == [[b"b"], [b"c"]]


@pytest.mark.usefixtures("smells")
def test_the_rejected_response_may_have_media_of_its_own() -> None:
    row = _row(HOLE, WORDS, smells=["a", "b"], rejected_smells=["z"]) | ANSWERS
    assert _values(row) == [b"a", "What is it?"]
    assert _both(row) == [[b"b"], [b"z"]]
    conversation = [{"role": "user", "content": [HOLE, WORDS]}]
    whole: dict[str, object] = {
        side: [*conversation, *answer] for side, answer in ANSWERS.items() if isinstance(answer, list)
    }
    assert _both(whole | {"smells": ["a", "b"], "rejected_smells": ["z"]}) == [[b"b"], [b"z"]]


@pytest.mark.usefixtures("smells")
def test_without_blocks_in_prompt_or_chosen_the_shared_items_are_the_prompts() -> None:
    row = _row(WORDS, smells=["a"], rejected_smells=["z"]) | {"rejected": ANSWERS["rejected"]}
    assert _values(row) == [b"a", "What is it?"]
    assert _both(row) == [["A rose."], [b"z"]]


@pytest.mark.usefixtures("smells")
def test_a_block_that_says_facts_but_no_content_takes_an_item_with_its_facts() -> None:
    found = read([_row(HOLE | {"strength": 2}, WORDS, smells=["a"])])[0].prompt[0].parts[0]
    assert (found.value, dict(found.facts)) == (b"a", {"strength": 2.0})


@pytest.mark.usefixtures("smells")
def test_a_missing_file_is_a_bad_row_and_all_are_listed_in_one_pass(tmp_path: Path) -> None:
    (tmp_path / "there.bin").write_bytes(b"a")
    names = ["file:there.bin", "file:gone.bin", "file:../there.bin", "file:gone.bin"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(_row(HOLE, WORDS, smells=[name]))}\n" for name in names))
    found = check(read(path))
    assert [(row.row, row.field) for row in found.bad_rows] == [(number, "smells[0]") for number in (2, 3, 4)]
    assert "no such file in the data root" in found.bad_rows[0].what
    assert found.bad_rows[0].file == str(path)


@pytest.mark.usefixtures("smells")
def test_a_file_that_is_not_the_one_the_row_means_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    right = hashlib.sha256(b"a").hexdigest()
    rows = [_row(HOLE | {"sha256": sha}, WORDS, smells=["file:a.bin"]) for sha in (right, "0" * 64)]
    found = check(read(rows, root=tmp_path))
    assert [(row.row, row.field) for row in found.bad_rows] == [(2, "sha256")]
    assert right in (found.bad_rows[0].got or "")
