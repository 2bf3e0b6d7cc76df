"""Rows encoded in worker processes: the same as in one, and a process that dies names its row."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from modalign.comparison import Comparison
from modalign.config import DataConfig
from modalign.data import prepare, read
from modalign.errors import DataError, ResourceError
from modalign.objectives import DPO
from modalign.roles import Encoded, Preparer
from modalign.testing import ask, say, toy_pairs
from modalign.testing.doubles import ToyPreparer

# the fork of a test runner that has threads
pytestmark = pytest.mark.filterwarnings("ignore:This process")


def rows(folder: Path) -> Path:
    """Good rows, and one each that is empty, no object, too long, and of an id that is taken."""
    lines = [f'{{"id": "{n}", "prompt": "say {n}", "chosen": "yes", "rejected": "no"}}' for n in range(40)]
    lines[7] = '{"id": "7", "prompt": "say", "chosen": "", "rejected": "no"}'
    lines[11] = "[]"
    lines[23] = '{"id": "23", "prompt": "' + "long " * 40 + '", "chosen": "yes", "rejected": "no"}'
    lines[31] = '{"id": "3", "prompt": "say", "chosen": "yes", "rejected": "no"}'
    path = folder / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_find_what_one_process_finds(workers: int, tmp_path: Path) -> None:
    config = DataConfig(
        path=str(rows(tmp_path)), on_bad_row="skip", max_bad_fraction=0.5, max_length=60, on_too_long="skip"
    )
    alone, spread = (prepare(read(config), ToyPreparer(), DPO.needs, workers=count) for count in (0, workers))
    assert spread.kept == alone.kept
    assert spread.tokens == alone.tokens
    assert spread.skipped == alone.skipped == Counter({"too long": 1, **dict(alone.skipped)})
    assert list(map(str, spread.bad_rows)) == list(map(str, alone.bad_rows))
    assert len(spread.bad_rows) == 3


def test_errors_name_their_rows_from_workers_too(tmp_path: Path) -> None:
    config = DataConfig(path=str(rows(tmp_path)))
    with pytest.raises(DataError, match=r"rows\.jsonl:8 field=chosen"):
        prepare(read(config), ToyPreparer(), DPO.needs, workers=2)


class Deadly(Preparer):
    """Takes its process along at one row, as a decoder's crash would."""

    def encode(
        self, comparison: Comparison, *, max_length: int | None = None, truncate: str | None = None
    ) -> tuple[Encoded, ...]:
        if comparison.id == "toy-5":
            os.kill(os.getpid(), signal.SIGKILL)
        return ToyPreparer().encode(comparison, max_length=max_length, truncate=truncate)


def test_a_process_that_dies_names_its_row() -> None:
    data = read(toy_pairs(9))
    with pytest.raises(ResourceError, match="a process that reads rows died") as caught:
        prepare(data, Deadly(), DPO.needs, workers=2)
    file, row = data.place(5)
    assert f"{file}:{row}" in str(caught.value)


def test_a_row_without_a_sample_to_give_is_an_error_in_a_worker_too() -> None:
    same = Comparison.pair(ask("say"), say("yes"), say("yes"))
    with pytest.raises(DataError, match="the same"):
        prepare(read([same]), ToyPreparer(), DPO.needs, workers=1)
