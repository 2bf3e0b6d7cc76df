"""Reads all of a data set once and reports every row that cannot be used, with statistics of those that can."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import final

from modalign.comparison import Comparison
from modalign.content import Message, digest
from modalign.data.badrows import BadRow, Names
from modalign.data.data import Data
from modalign.data.fields import METADATA
from modalign.data.ordering import outvoted
from modalign.errors import DataError, Skipped
from modalign.files import File
from modalign.roles import Preparer
from modalign.shown import located, printable

_BIDIRECTIONAL = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

_SHA256 = "sha256"  #: the fact of a part that its encoded content must agree with

_TELL = 1000  #: rows between two words of progress


@final
@dataclass(frozen=True, kw_only=True)
class Lengths:
    """How long something is over all rows.

    least, mean, median, p95, most: of the lengths; p95 is exceeded by a row in twenty.
    """

    least: int
    mean: float
    median: int
    p95: int
    most: int

    @classmethod
    def of(cls, values: Sequence[int]) -> Lengths | None:
        """Of these lengths; None of none."""
        if not values:
            return None
        ordered = sorted(values)
        last = len(ordered) - 1
        return cls(
            least=ordered[0],
            mean=round(sum(ordered) / len(ordered), 1),
            median=ordered[last // 2],
            p95=ordered[round(0.95 * last)],
            most=ordered[-1],
        )


@final
@dataclass(frozen=True, kw_only=True)
class Report:
    """What a data set holds, and what is wrong with it.

    name, format, digest: of the data.
    rows, good: how many there are, and how many can be used.
    bad_rows: each row that cannot.
    skipped: by reason, rows that say themselves that they are not to be used; they are not bad.
    kinds, modalities: of the good rows: comparisons by kind, parts by modality.
    lengths: of prompts and responses, in characters of their words and, if there was a preparer, in tokens.
    ignored: columns that are allowed and read by nobody, with the rows that have them.
    warnings: what is allowed and suspicious.
    notes: what was found and put up with while the data were opened.
    """

    name: str
    format: str | None
    digest: str
    rows: int
    good: int
    bad_rows: tuple[BadRow, ...]
    skipped: dict[str, int]
    kinds: dict[str, int]
    modalities: dict[str, int]
    lengths: dict[str, Lengths]
    ignored: dict[str, int]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def reasons(self) -> Counter[str]:
        """How many rows are bad, by reason."""
        return Counter(row.reason for row in self.bad_rows)


def check(
    data: Data,
    preparer: Preparer | None = None,
    *,
    max_length: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """A report on every row.

    preparer: of a model: rows are encoded too, which finds what is too long or the same once encoded.
    max_length: most tokens of prompt and response together.
    progress: told the number of rows done, now and then.
    """
    survey = _Survey(preparer, max_length, data.config.preference_weights or {})
    columns: Counter[str] = Counter()
    for number, found in enumerate(data.scan(columns)):
        if progress is not None and number % _TELL == 0:
            progress(number)
        survey.add(found, data.place(number))
    if progress is not None:
        progress(len(data))
    ignored = {name: count for name, count in columns.most_common() if name in METADATA}
    return survey.report(data, ignored)


class _Survey:
    """What is known after some of the rows."""

    def __init__(self, preparer: Preparer | None, max_length: int | None, weights: Mapping[str, float]) -> None:
        self._preparer, self._max_length, self._weights = preparer, max_length, weights
        self._outvoted: Counter[str] = Counter()
        self._names = Names()
        self._bad: list[BadRow] = []
        self._skipped: Counter[str] = Counter()
        self._kinds: Counter[str] = Counter()
        self._modalities: Counter[str] = Counter()
        self._lengths: dict[str, list[int]] = {}
        self._content: dict[bytes, str] = {}  # what was judged -> where it was first
        self._verdicts: dict[bytes, tuple[bytes, str]] = {}  # the same without the verdict -> verdict, and where
        self._repeated: list[str] = []
        self._contradicted: list[str] = []
        self._control = 0

    def add(self, found: Comparison | DataError, place: tuple[str, int]) -> None:
        if isinstance(found, Skipped):
            self._skipped[found.what] += 1
            return
        error = found if isinstance(found, DataError) else self._names.repeated(found, place)
        encoded: list[tuple[int, int]] = []
        if error is None and isinstance(found, Comparison):
            try:
                _verify(found)
                encoded = self._encoded(found)
            except DataError as raised:
                error = raised
        if error is not None:
            self._bad.append(BadRow.of(located(error, file=place[0], row=place[1])))
        elif isinstance(found, Comparison):
            self._count(found)
            self._compare(found, f"{printable(place[0])}:{place[1]}")
            for prompt, response in encoded:
                self._lengths.setdefault("prompt tokens", []).append(prompt)
                self._lengths.setdefault("response tokens", []).append(response)

    def report(self, data: Data, ignored: dict[str, int]) -> Report:
        lengths = {name: Lengths.of(values) for name, values in sorted(self._lengths.items())}
        warnings = (
            _warning("rows repeat an earlier one", self._repeated),
            _warning("rows contradict an earlier one: the same responses, judged the other way", self._contradicted),
            *(f"{count} pairs are ordered against {name}" for name, count in self._outvoted.items()),
            f"{self._control} rows hold control characters, which are kept" if self._control else None,
        )
        return Report(
            name=data.name,
            format=data.format,
            digest=data.digest,
            rows=len(data),
            good=self._kinds.total(),
            bad_rows=tuple(self._bad),
            skipped=dict(self._skipped),
            kinds=dict(self._kinds),
            modalities=dict(self._modalities),
            lengths={name: found for name, found in lengths.items() if found is not None},
            ignored=ignored,
            warnings=tuple(warning for warning in warnings if warning),
            notes=data.notes,
        )

    def _encoded(self, comparison: Comparison) -> list[tuple[int, int]]:
        """Tokens of the prompt and of each response; none without a preparer."""
        if self._preparer is None or not comparison.responses:
            return []
        every = self._preparer.encode(comparison, max_length=self._max_length)
        if comparison.kind == "pair" and every[0].tokens == every[1].tokens and not (every[0].media or every[1].media):
            raise DataError(
                "chosen and rejected are the same once encoded, so the pair says nothing",
                field="rejected",
                got=f"{len(every[0].tokens)} equal tokens",
                fix="remove the row",
            )
        return [(one.prompt, len(one.tokens) - one.prompt) for one in every]

    def _count(self, comparison: Comparison) -> None:
        self._kinds[comparison.kind] += 1
        self._outvoted.update(outvoted(comparison, self._weights))
        prompt = _words(comparison.prompt)
        responses = [_words(response.messages) for response in comparison.responses]
        self._lengths.setdefault("prompt characters", []).append(len(prompt))
        self._lengths.setdefault("response characters", []).extend(map(len, responses))
        for messages in (comparison.prompt, *(response.messages for response in comparison.responses)):
            self._modalities.update(part.modality for message in messages for part in message.parts)
        self._control += any(_unprintable(text) for text in (prompt, *responses))

    def _compare(self, comparison: Comparison, place: str) -> None:
        """Whether an earlier row says the same, or says the opposite."""
        prompt = _fingerprint(comparison.prompt)
        answers = [_fingerprint(response.messages) for response in comparison.responses]
        verdict = b"".join(answers) if comparison.kind == "pair" else repr(_labels(comparison)).encode()
        matter = prompt + b"".join(sorted(answers) if comparison.kind == "pair" else answers)
        first = self._content.setdefault(matter + verdict, place)
        if first != place:
            self._repeated.append(f"{place} of {first}")
            return
        judged, where = self._verdicts.setdefault(matter, (verdict, place))
        if judged != verdict:
            self._contradicted.append(f"{place} of {where}")


def _verify(comparison: Comparison) -> None:
    """Read every medium once: a file that cannot be read, or is not the one the row means, is found here."""
    for messages in (comparison.prompt, *(response.messages for response in comparison.responses)):
        for part in (part for message in messages for part in message.parts if not isinstance(part.value, str)):
            wanted, found = part.facts.get(_SHA256), part.digest
            if wanted is not None and (found := digest(part.value)) != wanted:
                raise DataError(
                    "a file that is not the one the row means",
                    field=_SHA256,
                    got=f"{part.value if isinstance(part.value, File) else 'bytes'} of SHA-256 {found}",
                    fix=f"fetch it again, or correct the row, which says {wanted}",
                )


def _labels(comparison: Comparison) -> list[object]:
    return [(response.label, response.reward) for response in comparison.responses]


def _warning(what: str, places: list[str], most: int = 3) -> str | None:
    if not places:
        return None
    more = ", ..." if len(places) > most else ""
    return f"{len(places)} {what} ({', '.join(places[:most])}{more})"


def _words(messages: Iterable[Message]) -> str:
    return "".join(part.value for message in messages for part in message.parts if isinstance(part.value, str))


def _unprintable(text: str) -> bool:
    """Whether there is a control or bidirectional character among the words, line ends and tabs aside."""
    return not text.isprintable() and any(
        (one < " " and one not in "\n\r\t") or "\x7f" <= one < "\xa0" or one in _BIDIRECTIONAL for one in text
    )


def _fingerprint(messages: Iterable[Message]) -> bytes:
    sha = hashlib.blake2b(digest_size=16)
    for message in messages:
        sha.update(message.role.encode() + b"\0")
        for part in message.parts:
            content = (
                part.value.encode("utf-8", "surrogatepass") if isinstance(part.value, str) else part.digest.encode()
            )
            content += repr(part.spans).encode() if part.spans else b""
            sha.update(part.modality.encode() + len(content).to_bytes(8, "little") + content)
        if message.extra:
            sha.update(repr(sorted(message.extra.items())).encode("utf-8", "surrogatepass"))
    return sha.digest()
