"""Preparing: every row is judged once, the counts add up, and a sample depends on its position alone."""

import pickle
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.comparison import Comparison
from modalign.config import DataConfig
from modalign.content import Message, Response
from modalign.data import Prepared, permutation, prepare, read, write_bad_rows
from modalign.errors import DataError, TooLong
from modalign.objectives.base import Needs
from modalign.roles import Encoded, Preparer


@final
class Letters(Preparer):
    """A token for each letter; case is lost, so that pairs can be equal once encoded."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(
        self, comparison: Comparison, *, max_length: int | None = None, truncate: str | None = None
    ) -> tuple[Encoded, ...]:
        self.calls += 1
        return tuple(self._one(comparison.prompt, one, max_length, truncate) for one in comparison.responses)

    def _one(
        self, prompt: tuple[Message, ...], response: Response, max_length: int | None, truncate: str | None
    ) -> Encoded:
        asked, said = _codes(prompt), _codes(response.messages)
        over = len(asked) + len(said) - (max_length or 10**9)
        if over > 0:
            if truncate is None or (truncate == "prompt" and over >= len(asked)) or over >= len(said) + len(asked):
                raise TooLong("a sample is too long", got=f"{len(asked) + len(said)} tokens", fix="raise max_length")
            asked, said = (asked[over:], said) if truncate == "prompt" else (asked, said[: len(said) - over])
            if not said:
                raise TooLong("the prompt leaves no room", got=f"{len(asked)} tokens", fix="raise max_length")
        return Encoded(tokens=asked + said, prompt=len(asked))


def _codes(messages: tuple[Message, ...]) -> tuple[int, ...]:
    return tuple(ord(one) for message in messages for part in message.parts for one in str(part.value).lower())


PAIR = Needs(pairing="pair")
KTO = Needs(pairing="label", mismatched=True)


def _rows(count: int) -> list[dict[str, object]]:
    return [{"prompt": f"{n:03d}=", "chosen": f"{n:03d}", "rejected": "no", "id": f"n{n}"} for n in range(count)]


SAME = {"prompt": "a", "chosen": "Yes", "rejected": "yes"}
EMPTY = {"prompt": "a", "chosen": "", "rejected": "yes"}
LONG = {"prompt": "a" * 30, "chosen": "b" * 30, "rejected": "c"}
OnTooLong = Literal["error", "skip", "truncate_prompt", "truncate_response"]


def _prepare(rows: Sequence[Mapping[str, object]], needs: Needs = PAIR, **settings: object) -> Prepared:
    return prepare(read(rows, **settings), Letters(), needs)


def test_good_rows_are_all_kept_with_their_lengths() -> None:
    found = _prepare(_rows(5))
    assert list(found.kept) == [0, 1, 2, 3, 4]
    assert list(found.tokens) == [7] * 5  # four of the prompt, three of the longer response
    assert (found.skipped, found.truncated, found.bad_rows) == (Counter(), 0, ())


def test_error_is_the_default_and_lists_every_bad_row() -> None:
    with pytest.raises(DataError) as caught:
        _prepare([*_rows(2), SAME, EMPTY, *_rows(0), {"prompt": "a", "chosen": "b", "rejected": 3}])
    said = str(caught.value)
    assert "3 of 5 rows of rows cannot be used" in said
    assert "rows:3 field=rejected: chosen and rejected are the same once encoded" in said
    assert "rows:4 field=chosen: an empty response" in said
    assert "rows:5 field=rejected: expected" in said
    assert "on_bad_row: skip" in said


def test_no_more_than_twenty_bad_rows_are_listed_and_all_are_counted() -> None:
    with pytest.raises(DataError) as caught:
        _prepare([*_rows(2), *[EMPTY] * 30])
    assert str(caught.value).count("an empty response; found") == 20
    assert "and 10 more" in str(caught.value)
    assert "an empty response (30)" in str(caught.value)


def test_bad_rows_within_the_budget_are_skipped_and_counted(tmp_path: Path) -> None:
    found = _prepare([*_rows(8), SAME, EMPTY], on_bad_row="skip", max_bad_fraction=0.2)
    assert list(found.kept) == list(range(8))
    assert found.skipped == {
        "an empty response": 1,
        "chosen and rejected are the same once encoded, so the pair says nothing": 1,
    }
    assert [(row.file, row.row, row.field) for row in found.bad_rows] == [
        ("rows", 9, "rejected"),
        ("rows", 10, "chosen"),
    ]
    write_bad_rows(tmp_path / "bad_rows.jsonl", found.bad_rows)
    assert read(tmp_path / "bad_rows.jsonl", format="preference").source.row(1) == {
        "file": "rows",
        "row": 10,
        "field": "chosen",
        "what": "an empty response",
        "got": "nothing but white space",
        "fix": "remove the row",
        "reason": "an empty response",
    }


def test_a_breach_of_the_budget_gives_the_five_commonest_reasons() -> None:
    others = [{"prompt": "a", "chosen": "b", "rejected": "c", name: 1} for name in ("x", "y")]
    odd = [
        *[EMPTY] * 4,
        *others,
        {"prompt": 1, "chosen": "b", "rejected": "c"},
        {"prompt": " ", "chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": "b", "rejected": "c", "weight": -1},
        {"prompt": "a", "chosen": "b", "rejected": "c", "margin": "x"},
    ]
    with pytest.raises(
        DataError, match=r"10 of 20 rows cannot be used, more than max_bad_fraction=0.1; found: "
    ) as got:
        _prepare([*_rows(10), *odd], on_bad_row="skip", max_bad_fraction=0.1)
    assert "found: an empty response (4), no format or plugin claims this column (2), " in str(got.value)
    assert (got.value.got or "").count("(") == 5


def test_the_budget_is_a_share_that_may_be_reached() -> None:
    assert len(_prepare([*_rows(9), EMPTY], on_bad_row="skip", max_bad_fraction=0.1)) == 9


@pytest.mark.parametrize(
    ("policy", "kept", "truncated", "skipped"),
    [("skip", 4, 0, 1), ("truncate_prompt", 5, 1, 0), ("truncate_response", 5, 1, 0)],
)
def test_rows_too_long_are_cut_or_skipped_as_asked(policy: OnTooLong, kept: int, truncated: int, skipped: int) -> None:
    found = _prepare([*_rows(4), LONG], max_length=40, on_too_long=policy, max_bad_fraction=0.0)
    assert (len(found), found.truncated, found.skipped["too long"]) == (kept, truncated, skipped)
    assert max(found.tokens) <= 40
    assert found.bad_rows == ()  # asked for, so it does not count against the budget


def test_a_row_too_long_is_an_error_by_default_and_counts_as_bad_where_those_are_skipped() -> None:
    with pytest.raises(DataError, match=r"rows:5 field=\(whole row\): a sample is too long; found: 60 tokens"):
        _prepare([*_rows(4), LONG], max_length=40)
    found = _prepare([*_rows(4), LONG], max_length=40, on_bad_row="skip", max_bad_fraction=0.2)
    assert (found.skipped, len(found.bad_rows)) == ({"too long": 1}, 1)


def test_a_pair_that_is_equal_after_the_cut_is_a_bad_row() -> None:
    row = {"prompt": "a", "chosen": "bbbbc", "rejected": "bbbbd"}
    assert len(_prepare([row], max_length=6)) == 1
    with pytest.raises(DataError, match="the same once encoded"):
        _prepare([row], max_length=5, on_too_long="truncate_response")


def test_an_id_that_occurs_twice_is_a_bad_row() -> None:
    with pytest.raises(DataError, match=r"rows:3 field=id: an id that an earlier row has; found: 'n0', also of rows:1"):
        _prepare([*_rows(2), *_rows(1)])


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no row is left to use; found: too long \(1\)"):
        _prepare([LONG], max_length=10, on_too_long="skip")


KINDS = st.sampled_from(["good", "same", "empty", "long"])


@settings(max_examples=60, deadline=None)
@given(kinds=st.lists(KINDS, min_size=1, max_size=30), policy=st.sampled_from(["error", "skip", "truncate_prompt"]))
def test_rows_in_are_rows_kept_and_rows_skipped_by_reason(kinds: list[str], policy: str) -> None:
    rows = {"good": _rows(1)[0] | {"id": None}, "same": SAME, "empty": EMPTY, "long": LONG}
    settings = {"on_bad_row": "skip", "max_bad_fraction": 1.0, "on_too_long": policy, "max_length": 40}
    try:
        found = _prepare([rows[kind] for kind in kinds], **settings)
    except DataError as error:
        assert error.what == "no row is left to use"  # noqa: PT017 - only where nothing is kept
        assert not {"good"} & set(kinds)
        return
    assert len(found) + found.skipped.total() == len(kinds)
    usable = {"good", "long"} if policy == "truncate_prompt" else {"good"}
    assert list(found.kept) == [at for at, kind in enumerate(kinds) if kind in usable]
    assert len(found.bad_rows) == sum(
        kind in ("same", "empty") or (kind, policy) == ("long", "error") for kind in kinds
    )


def test_a_sample_is_the_row_that_the_permutation_names() -> None:
    found = _prepare([*_rows(4), EMPTY, *_rows(9)[5:]], on_bad_row="skip", max_bad_fraction=0.5)
    n = len(found)
    for position in range(3 * n):
        order = permutation(7, position // n, n)
        row = found.kept[order(position % n)]
        assert found.sample(position, 7).comparison == found.data[row]
    for epoch in range(3):
        ids = {found.sample(epoch * n + place, 7).comparison.id for place in range(n)}
        assert ids == {found.data[row].id for row in found.kept}


def test_the_mismatched_partner_is_the_row_at_the_next_position() -> None:
    found = _prepare(_rows(6), KTO)
    for position in range(12):
        sample = found.sample(position, 3)
        start = position - position % 6
        following = found.sample(start + (position + 1) % 6, 3)
        assert following.comparison.id != sample.comparison.id
        assert sample.own == 2
        said = _codes(following.comparison.chosen.messages)
        mismatched = sample.encoded[2]
        assert mismatched.tokens == _codes(sample.comparison.prompt) + said


def test_a_partner_too_long_is_cut_and_cuts_nothing_else() -> None:
    rows = [{"prompt": "p" * 20, "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "c" * 20, "rejected": "d"}]
    found = _prepare(rows, KTO, max_length=25)
    for position in range(2):
        sample = found.sample(position, 0)
        alone = Letters().encode(sample.comparison)
        assert sample.encoded[:2] == alone
        assert all(len(one.tokens) <= 25 for one in sample.encoded)
    assert found.truncated == 0


def test_a_sample_is_encoded_once_while_it_is_remembered() -> None:
    preparer = Letters()
    found = prepare(read(_rows(5)), preparer, PAIR)
    before = preparer.calls
    first = [found.sample(position, 0) for position in range(5)]
    assert preparer.calls == before + 5
    assert [found.sample(position, 0) for position in range(5)] == first
    assert preparer.calls == before + 5


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modalign.data.prepared._CACHED", 3)
    found = _prepare(_rows(10))
    for position in range(20):
        found.sample(position, 0)
    assert len(found._cache) == 3


def test_a_copy_in_another_process_gives_the_same_samples(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "d", "chosen": "e", "rejected": "f"}\n'
    )
    found = prepare(read(path), Letters(), PAIR)
    copy = pickle.loads(pickle.dumps(found))
    assert [copy.sample(at, 5) for at in range(6)] == [found.sample(at, 5) for at in range(6)]


def test_progress_tells_every_hundred_rows_and_the_end() -> None:
    told: list[int] = []
    prepare(read(_rows(250)), Letters(), PAIR, progress=told.append)
    assert told == [0, 100, 200, 250]


def test_another_config_than_the_datas_may_be_given() -> None:
    data = read([*_rows(4), LONG])
    assert len(prepare(data, Letters(), PAIR, DataConfig(path="memory", max_length=40, on_too_long="skip"))) == 4


def test_data_of_another_shape_than_the_objective_needs_are_bad_rows() -> None:
    with pytest.raises(DataError, match=r"rows:1 field=\(whole row\): this objective needs a chosen and a rejected"):
        _prepare([{"prompt": "a", "completion": "b"}])


def test_comparisons_in_memory_are_prepared_like_rows() -> None:
    made = [replace(read(_rows(3))[at], origin=None) for at in range(3)]
    found = prepare(read(made), Letters(), PAIR)
    assert [found.sample(at, 0).comparison.id for at in range(3)] == [
        made[permutation(0, 0, 3)(at)].id for at in range(3)
    ]
