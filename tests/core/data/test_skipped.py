"""Rows that say themselves that they are not to be used: left out, counted under their reason, and no bad rows."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from modalign.cli.data import check as command
from modalign.comparison import Comparison, Origin
from modalign.data import check, prepare, read
from modalign.errors import Skipped
from modalign.objectives.base import Needs
from modalign.registry import registry
from modalign.roles import Format
from modalign.testing import ask, say
from modalign.testing.doubles import ToyPreparer


class Asked(Format):
    """Prompts of which one says that it is not to be used."""

    def claims(self, columns: frozenset[str], row: Mapping[str, object]) -> bool:
        return "asked" in columns

    def comparison(self, row: Mapping[str, object], origin: Origin, *, root: Path | None) -> Comparison:
        if row["asked"] == "nothing":
            raise Skipped("nobody preferred either", field="asked", got="nothing")
        return Comparison.unpaired(ask(str(row["asked"])), say("a"))


ROWS = [{"asked": "x"}, {"asked": "nothing"}, {"asked": "y"}]


def test_rows_that_say_so_themselves_are_left_out_counted_and_not_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "format", lambda _: Asked())
    data = read(ROWS, format="asked", on_bad_row="error")
    found = prepare(data, ToyPreparer(), Needs(pairing="response"))
    assert (len(found), found.skipped, found.bad_rows) == (2, {"nobody preferred either": 1}, ())
    report = check(data)
    assert (report.good, report.bad_rows, report.skipped) == (2, (), {"nobody preferred either": 1})
    with pytest.raises(Skipped, match=r"rows:2 field=asked: nobody preferred either"):
        data[1]


def test_the_command_counts_them_and_ends_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "format", lambda _: Asked())
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f'{{"asked": "{row["asked"]}"}}\n' for row in ROWS))
    assert command(str(path), format="asked") == 0
    shown = capsys.readouterr().out
    assert "3: 2 good, 0 bad, 1 skipped" in shown
    assert "nobody preferred either 1" in shown
