"""One pass over all rows before training: each is encoded once, so that no bad row is met in the middle of a run."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast, final

from modalign.assembler import Sample, encode
from modalign.comparison import Comparison
from modalign.config import DataConfig
from modalign.data.badrows import BadRow, Names, judge, top
from modalign.data.data import Data
from modalign.data.sampling import permutation
from modalign.data.spread import spread
from modalign.errors import DataError, Foreign, Skipped, TooLong
from modalign.objectives.base import Needs
from modalign.roles import Preparer
from modalign.shown import located

TOO_LONG = "too long"  #: the reason of rows that are skipped because the config asks for it

_CACHED = 1024  #: samples that are kept encoded
_BYTES = 256 << 20  #: of media in the samples that are kept
_TELL = 100  #: rows between two words of progress

_CUTS: Mapping[str, Literal["prompt", "response"]] = {"truncate_prompt": "prompt", "truncate_response": "response"}


@final
class Prepared:
    """The rows of a data set that can be used, encoded when they are asked for, in an endless order.

    data: the rows.
    kept: numbers of the rows that can be used.
    tokens: of each kept row, the tokens of its longest sequence.
    skipped: how many rows were left out, by reason.
    truncated: how many of the kept rows were cut.
    bad_rows: those of the skipped rows that cannot be used; a row too long where that means skip is none of
        them, nor is one that says itself that it is not to be used.

    Rows in equal rows kept plus rows skipped, whatever the policy.
    """

    def __init__(
        self,
        data: Data,
        preparer: Preparer,
        needs: Needs,
        config: DataConfig,
        *,
        kept: Sequence[int],
        tokens: Sequence[int],
        skipped: Counter[str],
        truncated: int,
        bad_rows: Sequence[BadRow],
    ) -> None:
        if len(kept) + skipped.total() != len(data):
            msg = f"{len(data)} rows in, but {len(kept)} kept and {skipped.total()} skipped"
            raise AssertionError(msg)
        self.data, self.kept, self.tokens = data, tuple(kept), tuple(tokens)
        self.skipped, self.truncated, self.bad_rows = skipped, truncated, tuple(bad_rows)
        self._encoding = _Encoding(preparer, needs, config)
        self._cache: OrderedDict[tuple[int, int | None], Sample] = OrderedDict()
        self._bytes = 0  # of the media in it

    def __len__(self) -> int:
        return len(self.kept)

    def sample(self, position: int, seed: int) -> Sample:
        """The sample at a position of the endless order; an epoch is ``len(self)`` positions.

        Where the objective needs mismatched responses they are those of the next position of the same epoch.
        """
        row, partner = self._rows(position, seed)
        key = (row, partner)
        if (sample := self._cache.get(key)) is None:
            stranger = None if partner is None else self.data[partner]
            try:
                sample = self._encoding(self.data[row], stranger).sample
            except DataError as error:
                file, line = self.data.place(row)
                raise located(error, file=file, row=line) from error
            self._cache[key] = sample
            self._bytes += _media_bytes(sample)
            while len(self._cache) > 1 and (len(self._cache) > _CACHED or self._bytes > _BYTES):
                _, dropped = self._cache.popitem(last=False)
                self._bytes -= _media_bytes(dropped)
        self._cache.move_to_end(key)
        return sample

    def name(self, position: int, seed: int) -> str:
        """The row of the sample at a position, as messages call it."""
        file, line = self.data.place(self._rows(position, seed)[0])
        return f"{file}:{line}"

    def _rows(self, position: int, seed: int) -> tuple[int, int | None]:
        """The row at a position, and the one whose responses are laid under its prompt, where one is needed."""
        n = len(self)
        epoch, place = divmod(position, n)
        order = permutation(seed, epoch, n)
        partner = self.kept[order((place + 1) % n)] if self._encoding.needs.mismatched else None
        return self.kept[order(place)], partner

    def __getstate__(self) -> dict[str, object]:
        # a worker process fills a cache of its own
        state: dict[str, object] = dict(self.__dict__)
        state["_cache"], state["_bytes"] = OrderedDict(), 0
        return state


def _media_bytes(sample: Sample) -> int:
    media = {digest: medium for one in sample.encoded for digest, medium in one.media.items()}
    return sum(tensor.nbytes for medium in media.values() for tensor in medium.tensors.values())


def prepare(
    data: Data,
    preparer: Preparer,
    needs: Needs,
    config: DataConfig | None = None,
    progress: Callable[[int], None] | None = None,
    *,
    workers: int = 0,
) -> Prepared:
    """The rows of a data set that can be used, each encoded once to know it; or one `DataError` about all that cannot.

    preparer: of the model.
    needs: of the objective.
    config: what to do with bad and with long rows; by default the one the data were read with.
    progress: told the number of rows done, now and then.
    workers: processes that encode rows, and decode their media; what comes of it does not depend on them.
    """
    config = data.config if config is None else config
    encoding = _Encoding(preparer, needs, config)
    trials = (
        _trials(data, encoding) if workers == 0 else spread(_Trying(data, encoding), len(data), workers, data.place)
    )
    names = Names()
    kept: list[int] = []
    tokens: list[int] = []
    skipped: Counter[str] = Counter()
    bad: list[BadRow] = []
    truncated = 0
    for number, trial in enumerate(trials):
        if progress is not None and number % _TELL == 0:
            progress(number)
        result = trial.error or names.again(trial.name, data.place(number))
        if result is None:
            kept.append(number)
            tokens.append(trial.length)
            truncated += trial.truncated
            continue
        if trial.error is None:
            file, row = data.place(number)
            result = cast(DataError, located(result, file=file, row=row))
        if isinstance(result, TooLong) and config.on_too_long == "skip":
            skipped[TOO_LONG] += 1
        elif isinstance(result, Skipped):
            skipped[result.what] += 1
        elif isinstance(result, Foreign) and config.on_bad_row == "skip":
            raise result
        else:
            bad.append(BadRow.of(result))
            skipped[bad[-1].reason] += 1
    if progress is not None:
        progress(len(data))
    _judge(data, config, bad, skipped, kept)
    return Prepared(
        data,
        preparer,
        needs,
        config,
        kept=kept,
        tokens=tokens,
        skipped=skipped,
        truncated=truncated,
        bad_rows=bad,
    )


@final
@dataclass(frozen=True, kw_only=True)
class _Encoded:
    sample: Sample
    truncated: bool


@final
@dataclass(frozen=True)
class _Encoding:
    """A comparison to a sample, cut where the config says so."""

    preparer: Preparer
    needs: Needs
    config: DataConfig

    def __call__(self, comparison: Comparison, partner: Comparison | None = None) -> _Encoded:
        try:
            own = self._encode(comparison)
            truncated = False
        except TooLong:
            if (cut := _CUTS.get(self.config.on_too_long)) is None:
                raise
            own, truncated = self._encode(comparison, truncate=cut), True
        if partner is None:
            return _Encoded(sample=own, truncated=truncated)
        # apart from its own responses: a stranger too long for this prompt is cut, and must not cut them with it
        strange = self._mismatched(comparison, partner)
        return _Encoded(sample=replace(own, encoded=own.encoded + strange.encoded[own.own :]), truncated=truncated)

    def _mismatched(self, comparison: Comparison, partner: Comparison) -> Sample:
        cuts: tuple[Literal["prompt", "response"] | None, ...] = (None, "prompt")
        for cut in cuts:
            try:
                return self._encode(comparison, partner, truncate=cut)
            except TooLong:
                continue
        return self._encode(comparison, partner, truncate="response")

    def _encode(
        self,
        comparison: Comparison,
        partner: Comparison | None = None,
        truncate: Literal["prompt", "response"] | None = None,
    ) -> Sample:
        return encode(
            comparison,
            self.preparer,
            self.needs,
            partner=partner,
            max_length=self.config.max_length,
            truncate=truncate,
        )


@final
@dataclass(frozen=True, kw_only=True)
class Trial:
    """What came of encoding one row.

    name: its id.
    length: tokens of its longest sequence.
    truncated: whether it was cut.
    error: what is wrong with it, with its place.
    """

    name: str | None = None
    length: int = 0
    truncated: bool = False
    error: DataError | None = None


def _trials(data: Data, encoding: _Encoding) -> Iterator[Trial]:
    for number, found in enumerate(data.scan()):
        yield _tried(encoding, found, data.place(number))


def _tried(encoding: _Encoding, found: Comparison | DataError, place: tuple[str, int]) -> Trial:
    if isinstance(found, DataError):
        return Trial(error=found)
    try:
        encoded = encoding(found)
    except DataError as error:
        return Trial(name=found.id, error=cast(DataError, located(error, file=place[0], row=place[1])))
    return Trial(name=found.id, length=encoded.sample.length, truncated=encoded.truncated)


@final
@dataclass(frozen=True)
class _Trying:
    """Encodes rows by number, in a process of its own."""

    data: Data
    encoding: _Encoding

    def __call__(self, number: int) -> Trial:
        try:
            found: Comparison | DataError = self.data[number]
        except DataError as error:
            found = error
        return _tried(self.encoding, found, self.data.place(number))


def _judge(data: Data, config: DataConfig, bad: list[BadRow], skipped: Counter[str], kept: list[int]) -> None:
    """Raise where the policy says so."""
    judge(data.name, len(data), config, bad)
    if not kept:
        raise DataError(
            "no row is left to use", file=data.name, got=top(skipped), fix="raise max_length, or use other data"
        )
