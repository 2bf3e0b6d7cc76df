"""Converting: what is written means what was read, all of it or nothing, and nothing is overwritten or lost."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, final

import pytest
import torch
from torch import Tensor

from modalign import hookimpl
from modalign.cli.data import convert as command
from modalign.comparison import Comparison
from modalign.content import Feedback, Message, Part, Response
from modalign.data import Data, convert, parquet_out, read
from modalign.data.convert import Converted
from modalign.errors import ConfigError, DataError
from modalign.files import File
from modalign.hookspecs import Register
from modalign.registry import registry
from modalign.roles import Modality

pytest.importorskip("pyarrow")
datasets = pytest.importorskip("datasets")


@final
class Smell(Modality):
    """Numbers; in files a line of digits, and rounded to one."""

    name: ClassVar[str] = "smell"
    blocks: ClassVar[tuple[str, ...]] = ("smell",)
    columns: ClassVar[tuple[str, ...]] = ("smell", "smells")

    def read(self, block: Mapping[str, object], *, root: Path | None) -> Part:
        value = block.get("smell")
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        facts = {"strength": float(str(block["strength"]))} if "strength" in block else {}
        if isinstance(value, str) and root is not None:
            value = File(root=root, name=value)
        if not isinstance(value, bytes | File | Tensor):
            raise DataError("no smell", field="smell", got=type(value).__name__)
        return Part(modality=self.name, value=value, facts=facts)

    def block(self, part: Part) -> Mapping[str, object]:
        value = str(part.value) if isinstance(part.value, File) else part.value
        return {"type": "smell", "smell": value, **part.facts}

    def save(self, part: Part, stem: Path) -> Path:
        file = stem.with_name(f"{stem.name}.smell")
        said = part.value
        text = " ".join(str(round(one)) for one in said.tolist()) if isinstance(said, Tensor) else "saved anew"
        file.write_text(text)
        return file

    def show(self, part: Part) -> str:
        return "a smell"


class Plugin:
    @hookimpl
    def register_modalities(self, register: Register) -> None:
        register("smell", f"{__name__}:Smell", blocks=("smell",), columns=("smell", "smells"))


@pytest.fixture(autouse=True)
def smells() -> Iterator[None]:
    with registry.scoped(Plugin(), distribution="smells"):
        yield


HOLE: dict[str, object] = {"type": "smell"}
WORDS: dict[str, object] = {"type": "text", "text": "What is it?"}
ASK: dict[str, object] = {"role": "user", "content": [HOLE, WORDS, HOLE | {"strength": 2}]}
PLAIN: dict[str, object] = {"role": "user", "content": "What is it?"}
TOOL: dict[str, object] = {"role": "tool", "content": "sweet"}
CALL: dict[str, object] = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "sniff"}}]}


def _say(*content: object) -> list[dict[str, object]]:
    return [{"role": "assistant", "content": content[0] if isinstance(content[0], str) else list(content)}]


MIXED: list[dict[str, object]] = [
    {"prompt": [ASK], "chosen": _say("A rose."), "rejected": _say(HOLE, WORDS), "smells": ["a", "b", "c"], "id": "x"},
    {"prompt": [PLAIN], "chosen": _say(HOLE), "rejected": _say(HOLE), "smells": ["a"], "rejected_smells": ["b"]},
    {"prompt": [PLAIN], "chosen": _say("A rose."), "rejected": _say("Tar."), "smells": ["b"], "weight": 2.0},
    {"chosen": [PLAIN, *_say("A rose.")], "rejected": [PLAIN, *_say("Tar.")], "margin": 1.5},
    {
        "prompt": [PLAIN],
        "chosen": [CALL, {"role": "tool", "content": "sweet"}, *_say("A rose.")],
        "rejected": _say("Tar."),
    },
    {
        "prompt": [PLAIN | {"name": "ann"}],
        "chosen": "A rose.",
        "rejected": "Tar.",
        "preferences": {"truth": 0.9},
        "score_chosen": 3,
        "rejected_scores": {"truth": 0.0, "tone": None},
        "chosen_feedback": {"truth": {"critique": "short", "rationale": "true"}, "tone": None},
        "rejected_critique": "wrong",
        "rejected_refinement": "A rose.",
        "chosen_facts": {"source": "a model"},
        "facts": {"kind": "easy", "number": 3.5, "asked": True},
    },
]
SETS: dict[str, list[dict[str, object]]] = {
    "mixed": MIXED,
    "plain": [{"prompt": "It is", "chosen": " a rose", "rejected": " tar"}],
    "plain with media": [{"prompt": "It is", "chosen": " a rose", "rejected": " tar", "smells": ["a", "b"]}],
    "unpaired": [{"prompt": [ASK], "completion": "A rose.", "label": True, "smells": ["a", "b"], "critique": "short"}],
    "imitated": [{"messages": [ASK, *_say(HOLE)], "smells": ["a", "b", "c"]}],
    "group": [{"prompt": [PLAIN], "responses": [_say(HOLE), "Tar."], "rewards": [1.0, 0.5], "smells": ["c"]}],
    "prompt": [{"prompt": [PLAIN], "smell": "a"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        (tmp_path / name).write_bytes(name.encode() * 3)
    return tmp_path


def _read(folder: Path, rows: Sequence[object], **settings: object) -> Data:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return read(path, **settings)


def _meant(data: Data) -> list[Comparison]:
    return [replace(one, origin=None) for one in data]


def _digests(data: Data) -> list[list[str]]:
    return [
        [
            part.digest
            for messages in (one.prompt, *(r.messages for r in one.responses))
            for m in messages
            for part in m.parts
        ]
        for one in data
    ]


@pytest.mark.parametrize("name", SETS)
def test_what_is_written_means_what_was_read_in_either_form_and_back(folder: Path, name: str) -> None:
    data = _read(folder, SETS[name])
    convert(data, folder / "all.parquet")
    convert(read(folder / "all.parquet"), folder / "back")
    for found in (read(folder / "all.parquet"), read(folder / "back")):
        assert _meant(found) == _meant(data)
        assert _digests(found) == _digests(data)


def test_the_datasets_library_reads_the_same_rows(folder: Path) -> None:
    data = _read(folder, MIXED)
    convert(data, folder / "all.parquet")
    table = datasets.load_dataset(
        "parquet", data_files=str(folder / "all.parquet"), split="train", cache_dir=str(folder / "cache")
    )
    assert _meant(read(table)) == _meant(data)
    assert table[0]["smells"][0] == {"bytes": b"aaa", "path": "a"}


def test_a_feature_that_the_library_would_decode_is_read_as_it_is_stored(folder: Path) -> None:
    from PIL import Image

    Image.new("RGB", (2, 2), (9, 8, 7)).save(folder / "dot.png")
    data = _read(folder, [{"prompt": "It is", "completion": " a dot", "images": ["dot.png"]}])
    convert(data, folder / "all.parquet")
    table = datasets.load_dataset(
        "parquet", data_files=str(folder / "all.parquet"), split="train", cache_dir=str(folder / "cache")
    )
    assert type(table.features["images"].feature).__name__ == "Image"
    assert table[0]["images"][0].size == (2, 2)
    assert _digests(read(table)) == _digests(data)
    assert read(table).digest == read(table).digest


def test_equal_media_are_one_file_and_files_keep_their_bytes(folder: Path) -> None:
    rows = [{"prompt": "It is", "completion": f" {n}", "smells": ["a", "b"]} for n in range(3)]
    done = convert(_read(folder, rows), folder / "out")
    files = sorted(path for path in (folder / "out" / "media").rglob("*") if path.is_file())
    assert (done.rows, done.media, len(files)) == (3, 6, 2)
    assert sorted(path.read_bytes() for path in files) == [b"aaa", b"bbb"]


def test_media_in_memory_are_encoded_by_their_modality_and_counted(tmp_path: Path) -> None:
    part = Part(modality="smell", value=torch.tensor([1.2, 3.0]), facts={"strength": 2.0})
    answer = Response(messages=(Message(role="assistant", parts=(part,)),))
    prompt = (Message(role="user", parts=(Part(modality="text", value="What?"),)),)
    data = read([Comparison.unpaired(prompt, answer)])
    for target in ("all.parquet", "out"):
        assert convert(data, tmp_path / target).encoded == 1
        (found,) = read(tmp_path / target)[0].responses[0].parts()
        # what was 1.2 is 1 in a file, and the fact of the numbers in memory is none of the file's
        assert found == Part(modality="smell", value=b"1 3")


def test_rows_are_written_a_group_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.setattr(parquet_out, "GROUP_BYTES", 7)  # two media of three bytes fit, a third ends the group
    rows = [{"prompt": "It is", "completion": f" {n}", "smells": ["a"]} for n in range(7)]
    convert(_read(folder, rows), folder / "all.parquet")
    file = pq.ParquetFile(folder / "all.parquet")
    assert [file.metadata.row_group(at).num_rows for at in range(file.metadata.num_row_groups)] == [3, 3, 1]
    assert _meant(read(folder / "all.parquet")) == _meant(_read(folder, rows))


@pytest.mark.parametrize("target", ["all.parquet", "out"])
def test_what_exists_is_not_overwritten(folder: Path, target: str) -> None:
    data = _read(folder, SETS["plain"])
    (folder / target).write_text("mine")
    with pytest.raises(ConfigError, match="this exists, and is not overwritten"):
        convert(data, folder / target)
    assert (folder / target).read_text() == "mine"


BAD: list[dict[str, object]] = [
    {"prompt": "It is", "completion": " a rose", "smells": ["a"]},
    {"prompt": "It is", "completion": " tar", "smells": ["gone"]},
    {"prompt": "It is", "completion": ""},
    {"prompt": [PLAIN], "completion": "A rose."},
]


@pytest.mark.parametrize("target", ["all.parquet", "out"])
def test_bad_rows_are_all_listed_and_nothing_is_left_behind(folder: Path, target: str) -> None:
    before = {*folder.iterdir(), folder / "rows.jsonl"}
    with pytest.raises(
        DataError, match=r"3 of 4 rows.*(?s:.*):2 field=smells.*(?s:.*):3 field=compl.*(?s:.*):4 field="
    ):
        convert(_read(folder, BAD), folder / target)
    assert {*folder.iterdir()} == before


@pytest.mark.parametrize("target", ["all.parquet", "out"])
def test_bad_rows_are_left_out_where_the_policy_says_so(folder: Path, target: str) -> None:
    done = convert(_read(folder, BAD, on_bad_row="skip", max_bad_fraction=0.8), folder / target)
    assert (done.rows, [(row.row, row.field) for row in done.bad_rows]) == (
        1,
        [(2, "smells[0]"), (3, "completion"), (4, "(whole row)")],
    )
    assert "of plain strings" in (done.bad_rows[2].got or "")
    assert len(read(folder / target)) == 1
    with pytest.raises(DataError, match=r"more than max_bad_fraction=0\.5"):
        convert(_read(folder, BAD, on_bad_row="skip", max_bad_fraction=0.5), folder / "other")


@pytest.mark.parametrize("target", ["all.parquet", "out"])
def test_what_cannot_be_written_is_a_bad_row(tmp_path: Path, target: str) -> None:
    # a group's rows have a column for rewards, and none for refinements
    data = read([Comparison.group(_words("2+2?"), [replace(_answer("4"), reward=1.0, refinement="four")])])
    with pytest.raises(DataError, match="would not mean the same once written"):
        convert(data, tmp_path / target)
    assert not list(tmp_path.iterdir())


def _words(text: str) -> tuple[Message, ...]:
    return (Message(role="user", parts=(Part(modality="text", value=text),)),)


def _answer(text: str) -> Response:
    return Response(messages=(Message(role="assistant", parts=(Part(modality="text", value=text),)),))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (({"n": 1}, {"n": "one"}), r"rows.jsonl:2 .*types do not fit"),
        # side by side in one column, each would get the other's argument
        (({"n": 1}, {"m": 1}), r"2 of 2 rows(?s:.*)would not mean the same once written"),
    ],
)
def test_types_that_do_not_fit_one_file_are_bad_rows_of_parquet_only(
    folder: Path, arguments: tuple[dict[str, object], ...], says: str
) -> None:
    calls = [CALL | {"tool_calls": [{"function": {"name": "f", "arguments": one}}]} for one in arguments]
    data = _read(folder, [{"prompt": [PLAIN], "completion": [call, *_say("A rose.")]} for call in calls])
    convert(data, folder / "out")
    assert _meant(read(folder / "out")) == _meant(data)
    with pytest.raises(DataError, match=says):
        convert(data, folder / "all.parquet")


def test_a_failure_in_the_middle_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _read(folder, SETS["plain with media"])
    before = {*folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    for target in ("all.parquet", "out"):
        with pytest.raises(OSError, match="No space left"):
            convert(data, folder / target)
    assert {*folder.iterdir()} == before


def test_the_command_converts_and_lists(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _read(folder, BAD)
    listed = folder / "bad.jsonl"
    code = command(str(folder / "rows.jsonl"), folder / "out", on_bad_row="skip", max_bad_fraction=1.0, bad_rows=listed)
    shown = capsys.readouterr().out
    assert code == 0
    assert "1 rows and 1 media in" in shown
    assert shown.count("left out: ") == 3
    assert [json.loads(line)["row"] for line in listed.read_text().splitlines()] == [2, 3, 4]


def test_another_ending_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no writer for this kind of file; found: out.csv"):
        convert(_read(folder, SETS["plain"]), folder / "out.csv")


def test_feedback_and_facts_are_read_into_their_places(folder: Path) -> None:
    found = _read(folder, MIXED)[5]
    assert dict(found.chosen.feedback) == {"truth": Feedback(rationale="true", critique="short")}
    assert dict(found.facts) == {"kind": "easy", "number": 3.5, "asked": True}
    assert found.swap().rejected.facts == {"source": "a model"}


def test_a_conversion_says_what_it_did(folder: Path) -> None:
    done = convert(_read(folder, SETS["plain with media"]), folder / "out")
    assert done == Converted(path=folder / "out", rows=1, media=2, encoded=0, bad_rows=(), skipped={})
