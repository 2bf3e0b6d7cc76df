"""Reading: every source gives the same comparisons, by number, and what cannot be read is one clear error."""

import gzip
import json
import pickle
from pathlib import Path

import pytest

from modalign.comparison import Comparison
from modalign.config import DataConfig
from modalign.data import Data, jsonlines, parquet, read
from modalign.errors import ConfigError, DataError, MissingExtra
from modalign.testing import ask, say

ROWS = [{"prompt": f"{n} + 1 =", "chosen": f" {n + 1}", "rejected": f" {n}", "id": f"n{n}"} for n in range(7)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def _write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _parquet(path: Path, rows: list[dict[str, str]] = ROWS, group: int = 3) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=group)
    return path


def _ids(data: Data) -> list[str | None]:
    return [comparison.id for comparison in data]


IDS = [row["id"] for row in ROWS]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", LINES),
        ("rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("rows.json", json.dumps(ROWS)),
        ("rows.json", json.dumps(ROWS, indent=2)),
        ("lines.json", LINES),
        ("rows.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("crlf.jsonl", LINES.replace("\n", "\r\n")),
        ("blank.jsonl", "\n\n" + LINES.replace("\n", "\n\n")),
        ("unended.jsonl", LINES.rstrip("\n")),
        (
            "two_members.jsonl.gz",
            gzip.compress(LINES[:40].encode(), mtime=0) + gzip.compress(LINES[40:].encode(), mtime=0),
        ),
    ],
)
def test_json_files_give_their_rows(tmp_path: Path, name: str, content: str | bytes) -> None:
    data = read(_write(tmp_path / name, content))
    assert _ids(data) == IDS
    assert [data[number].id for number in (3, 0, 6, -1)] == ["n3", "n0", "n6", "n6"]
    with pytest.raises(IndexError):
        data[7]


def test_parquet_files_give_their_rows_by_number_and_in_order(tmp_path: Path) -> None:
    data = read(_parquet(tmp_path / "rows.parquet"))
    assert _ids(data) == IDS
    assert [data[number].id for number in (6, 0, 3)] == ["n6", "n0", "n3"]


def test_parquet_keeps_no_more_row_groups_than_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "KEPT", 1)
    data = read(_parquet(tmp_path / "rows.parquet"))
    assert [data[number].id for number in (6, 0, 3, 0)] == ["n6", "n0", "n3", "n0"]
    assert isinstance(data.source, parquet.Parquet)
    assert len(data.source._groups) == 1


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _parquet(tmp_path / "rows.parquet")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r'pip install "modalign\[data\]"'):
        read(path)


def test_a_folder_gives_one_split_in_order_of_its_files(tmp_path: Path) -> None:
    head, tail = ROWS[:4], ROWS[4:]
    _parquet(tmp_path / "train-00001-of-00002.parquet", tail)
    _parquet(tmp_path / "train-00000-of-00002.parquet", head)
    _parquet(tmp_path / "test-00000-of-00001.parquet", head)
    data = read(tmp_path, split="train")
    assert _ids(data) == IDS
    assert data[5].id == "n5"
    file, row = data.place(5)
    assert (Path(file).name, row) == ("train-00001-of-00002.parquet", 2)
    assert len(read(tmp_path, split="test")) == 4
    with pytest.raises(DataError, match="more than one split; found: test, train"):
        read(tmp_path)
    with pytest.raises(DataError, match="no split 'dev'"):
        read(tmp_path, split="dev")


@pytest.mark.parametrize(
    ("files", "split"),
    [
        (("train_prefs-00000-of-00001.jsonl", "test_prefs-00000-of-00001.jsonl"), "train_prefs"),
        (("train-00000-of-00001-0123456789abcdef.jsonl", "test-00000-of-00001-fedcba9876543210.jsonl"), "train"),
    ],
)
def test_the_hubs_names_of_files_say_their_split(tmp_path: Path, files: tuple[str, str], split: str) -> None:
    for name in files:
        _write(tmp_path / name, LINES)
    with pytest.raises(DataError, match=f"more than one split.* say which: split={split}$"):
        read(tmp_path)
    assert len(read(tmp_path, split=split)) == len(ROWS)


def test_data_that_have_been_read_take_no_further_settings(tmp_path: Path) -> None:
    data = read(ROWS)
    assert read(data) is data
    with pytest.raises(ConfigError, match=r"have been read.* found: limit"):
        read(data, limit=1)


def test_a_folder_of_shards_without_splits_is_read_whole(tmp_path: Path) -> None:
    _write(tmp_path / "b.jsonl", LINES)
    _write(tmp_path / "a.jsonl", json.dumps(ROWS[0] | {"id": "first"}))
    assert _ids(read(tmp_path)) == ["first", *IDS]


def test_a_split_in_two_kinds_of_file_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "train.jsonl", LINES)
    _parquet(tmp_path / "train.parquet")
    with pytest.raises(DataError, match="several kinds"):
        read(tmp_path, split="train")


def test_shards_with_other_columns_are_refused(tmp_path: Path) -> None:
    _parquet(tmp_path / "train-0.parquet")
    _parquet(tmp_path / "train-1.parquet", [{"chosen": "a", "rejected": "b"}])
    with pytest.raises(DataError, match=r"train-1.parquet field=id: files of one data set with different columns"):
        read(tmp_path)


def test_rows_in_memory_comparisons_and_datasets_are_read() -> None:
    datasets = pytest.importorskip("datasets")
    assert _ids(read(ROWS)) == IDS
    assert _ids(read(datasets.Dataset.from_list(ROWS))) == IDS
    made = [Comparison.pair(ask("a"), say(str(n)), say("no")) for n in range(3)]
    data = read(made)
    assert [comparison.chosen for comparison in data] == [comparison.chosen for comparison in made]
    assert len({comparison.key for comparison in data}) == 3  # so that each has draws of its own
    assert read(data) is data


def test_a_dict_of_datasets_needs_a_split() -> None:
    datasets = pytest.importorskip("datasets")
    both = datasets.DatasetDict({name: datasets.Dataset.from_list(ROWS) for name in ("train", "test")})
    assert len(read(both, split="test")) == 7
    with pytest.raises(DataError, match="several splits; found: train, test"):
        read(both)


def test_a_stream_is_refused() -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(DataError, match="streaming=True"):
        read(datasets.Dataset.from_list(ROWS).to_iterable_dataset())
    with pytest.raises(DataError, match="list"):
        read(iter(ROWS))


def test_an_id_on_the_hub_is_asked_for_only_if_no_file_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    asked: list[tuple[str, object, object]] = []

    def load(name: str, *, split: str | None, revision: str | None) -> object:
        asked.append((name, split, revision))
        if split is None:
            raise ConnectionError("cannot reach the hub\n at all")
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.chdir(tmp_path)
    assert _ids(read("someone/pairs", split="train", revision="abc")) == IDS
    assert asked == [("someone/pairs", "train", "abc")]
    with pytest.raises(DataError, match=r"^someone/pairs: no such file, and .*ConnectionError: cannot reach the hub;"):
        read("someone/pairs")
    _write(tmp_path / "someone" / "pairs" / "train.jsonl", LINES)
    assert _ids(read("someone/pairs")) == IDS
    assert len(asked) == 2


def test_a_hub_id_without_the_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtra, match=r'pip install "modalign\[data\]"'):
        read("someone/pairs")


def test_the_limit_takes_the_first_rows() -> None:
    assert _ids(read(ROWS, limit=2)) == IDS[:2]
    assert len(read(ROWS, limit=100)) == 7


def test_a_config_is_a_source(tmp_path: Path) -> None:
    config = DataConfig(path=str(_write(tmp_path / "rows.jsonl", LINES)), limit=3)
    assert len(read(config)) == 3
    assert len(read(config, limit=2)) == 2
    with pytest.raises(ConfigError, match="settings are path, format"):
        read(ROWS, limits=3)


def test_a_byte_order_mark_is_skipped_and_said(tmp_path: Path) -> None:
    for name, content in (("a.jsonl", LINES), ("a.json", json.dumps(ROWS))):
        data = read(_write(tmp_path / name, b"\xef\xbb\xbf" + content.encode()))
        assert _ids(data) == IDS
        assert "byte-order mark" in data.notes[0]


def test_long_lines_and_separators_of_unicode_are_content(tmp_path: Path) -> None:
    long = "x" * (1 << 20)
    rows = [{"prompt": "a", "chosen": f" {long}", "rejected": " b"}, {"prompt": "p\u2028\u0085q", "completion": "\x00"}]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    data = read(_write(tmp_path / "long.jsonl", text), format="preference")
    assert data[0].chosen.messages[0].parts[0].value == f" {long}"
    assert len(data) == 2


def test_a_line_beyond_the_cap_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "MAX_LINE", 1000)
    path = _write(tmp_path / "long.jsonl", LINES + "y" * 1001)
    with pytest.raises(DataError, match=r"long.jsonl:8 field=\(whole row\): a line of more than"):
        read(path)


def test_a_gzip_bomb_is_refused_before_it_unfolds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonlines, "FLOOR", 1 << 20)
    bomb = _write(tmp_path / "bomb.jsonl.gz", gzip.compress(b" " * (8 << 20), mtime=0))  # a ratio of about 1000
    with pytest.raises(DataError, match="grows beyond reason"):
        read(bomb)
    monkeypatch.setattr(jsonlines, "MAX_UNPACKED", 200)
    with pytest.raises(DataError, match="grows beyond reason"):
        read(_write(tmp_path / "rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("empty.jsonl", b"", "the file is empty"),
        ("blank.jsonl", b"\n \n", "no rows"),
        ("empty.json", b"[]", "no rows"),
        ("empty.jsonl.gz", gzip.compress(b"", mtime=0), "the file is empty"),
        ("cut.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:60], "broken or cut off"),
        ("not.jsonl.gz", b"hello, I am no gzip file", "broken or cut off"),
        ("broken.json", b'[{"prompt": 1}, {"pro', "not valid JSON"),
        ("broken.parquet", b"PAR1 and then nothing", "a parquet file that cannot be read"),
        ("empty.parquet", b"", "a parquet file that cannot be read"),
        ("rows.csv", b"prompt,chosen", "no reader for this kind of file"),
        ("utf16.jsonl", LINES.encode("utf-16"), "not valid UTF-8"),
        ("number.json", b"[1, 2]", "expected an object"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_error_that_names_it(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    with pytest.raises(DataError, match=says) as caught:
        read(_write(tmp_path / name, content))
    assert name in str(caught.value)


def test_a_missing_file_lists_what_is_there(tmp_path: Path) -> None:
    _write(tmp_path / "pairs.jsonl", LINES)
    with pytest.raises(DataError, match=r"no such file or folder; found: in that folder: pairs.jsonl"):
        read(tmp_path / "pair.jsonl")
    with pytest.raises(DataError, match="no such folder"):
        read(tmp_path / "nowhere" / "pair.jsonl")
    with pytest.raises(DataError, match="no data files in the folder"):
        read(_write(tmp_path / "sub" / "x.txt", "").parent)


def test_columns_that_no_format_claims_list_the_formats() -> None:
    with pytest.raises(
        DataError, match=r"rows:1 field=\(whole row\): no format claims .* answer, question.*preference"
    ):
        read([{"question": "a", "answer": "b"}])


def test_one_odd_row_at_the_start_does_not_choose_the_format() -> None:
    data = read([{"prompt": "odd"}, *ROWS])
    assert data.format == "preference"
    with pytest.raises(DataError, match="rows:1 field=chosen"):
        data[0]


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    one, other = _write(tmp_path / "a.jsonl", LINES), _write(tmp_path / "b.jsonl", LINES)
    assert read(one).digest == read(other).digest
    assert read(one).digest != read(_write(tmp_path / "c.jsonl", LINES + "\n")).digest
    assert read(ROWS).digest == read([dict(reversed(row.items())) for row in ROWS]).digest
    assert read(ROWS).digest != read(ROWS[1:]).digest
    made = [Comparison.pair(ask("a"), say("b"), say("c"))]
    assert read(made).digest == read(list(made)).digest != read([made[0].swap()]).digest


def test_the_origin_does_not_depend_on_the_folder(tmp_path: Path) -> None:
    one, other = (read(_write(tmp_path / name / "rows.jsonl", LINES)) for name in ("x", "y"))
    assert one[2].origin == other[2].origin
    assert str(one[2].origin) == "rows.jsonl:3"


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_data_can_be_sent_to_another_process(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        _parquet(path)
    else:
        content = json.dumps(ROWS) if kind == "json" else LINES
        _write(path, gzip.compress(content.encode(), mtime=0) if kind.endswith("gz") else content)
    data = read(path)
    assert data[4].id == "n4"
    assert pickle.loads(pickle.dumps(data))[4].id == "n4"


def test_a_file_that_shrinks_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.jsonl", LINES)
    data = read(path)
    path.write_text(LINES[:30])
    with pytest.raises(DataError, match=r"rows.jsonl:7 field=\(whole row\): the file has become shorter"):
        data[6]
