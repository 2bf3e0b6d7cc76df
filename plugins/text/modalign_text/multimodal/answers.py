"""What frozen towers returned, taken again: within a step from memory, and from a folder where there is one.

At the level of the tower, because the projector behind it may train. What a tower returned may be large: LLaVA's is
every layer's states, of which the projector reads one. A trial at load finds out which of it is read.
"""

from __future__ import annotations

import copy
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, cast, final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from modalign.batch import Medium
from modalign.caching.features import FeatureCache
from modalign.caching.memo import Memo
from modalign.caching.structure import apart, together

_LOG = logging.getLogger("modalign")
_ROOT: Final = "encoding"  #: as `FeatureCache` names a tensor

Given = dict[str, dict[str, Tensor]]  #: tensors that towers returned, by tower and name


@final
class Answers:
    """The answers of the towers of one modality, and which of them may be kept.

    ran: towers that are called for a medium of this modality, once that was learned.
    """

    def __init__(self, modality: str) -> None:
        self.modality = modality
        self.ran: set[str] = set()
        self.formless: dict[str, str] = {}  #: what an answer holds that no file can, by tower
        self.unread: dict[str, frozenset[str]] = {}  #: tensors of an answer that nobody reads, by tower
        self._fed: set[str] = set()  # towers that are given what other weights make: the medium does not decide alone

    def why_not(self, name: str) -> str:
        """Why the answers of one tower are never stored; empty where they can be."""
        if name in self._fed:
            return f"{name} is given what other weights make"
        if name in self.formless:
            return f"what {name} returns has no form for a file: {self.formless[name]}"
        return "" if name in self.ran else f"{name} is not called as a module"

    @contextmanager
    def learning(self, towers: Mapping[str, nn.Module]) -> Iterator[Given]:
        """Within it the towers are watched; gives what each returned, as leaves that take a gradient."""
        given: Given = {}

        def heard(name: str, args: tuple[object, ...], kwargs: Mapping[str, object], answer: object) -> object:
            self.ran.add(name)
            if any(one.requires_grad for one in _tensors([args, kwargs])):
                self._fed.add(name)
                return None
            try:
                tensors, rest = apart(answer, _ROOT)
            except TypeError as error:
                self.formless[name] = str(error)
                return None
            leaves = {key: one.detach() for key, one in tensors.items()}
            for one in leaves.values():
                one.requires_grad_(one.is_floating_point())
            given.setdefault(name, {}).update({key: one for key, one in leaves.items() if one.requires_grad})
            return together(rest, leaves)

        with _hooked(towers, heard):
            yield given

    def learned(self, towers: Mapping[str, nn.Module], given: Given, again: Callable[[], object]) -> None:
        """Take note of what nobody reads of an answer, proven by running ``again`` without it.

        given: what `learning` gave, but for what was read.
        """
        unread = {name: frozenset(own) for name, own in given.items() if own}

        def bare(name: str, _: object, __: object, answer: object) -> object:
            if name not in unread:
                return None
            tensors, rest = apart(answer, _ROOT, unread[name])
            return together(rest, tensors)

        try:
            with _hooked(towers, bare), torch.no_grad():
                again()
        except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
            _LOG.info("answers of towers for %s are stored whole: %s", self.modality, str(error).split("\n")[0])
            return
        self.unread = unread

    @contextmanager
    def taken(
        self,
        towers: Mapping[str, nn.Module],
        media: Sequence[Medium],
        memo: Memo | None,
        *,
        facts: Mapping[str, object],
        store: bool,
    ) -> Iterator[set[str]]:
        """Within it frozen towers answer from memory or a folder where they can; gives the names of those that ran.

        facts: what answers depend on beside weights.
        store: whether to put into the folder what is not there.
        """
        ran: set[str] = set()
        patched = {name: tower for name, tower in towers.items() if isinstance(tower, PreTrainedModel)}
        try:
            for name, tower in patched.items():
                frozen = not any(value.requires_grad for value in tower.parameters())
                known = frozen and name not in self._fed and all(medium.digest for medium in media)
                source = _Source(
                    answers=self,
                    name=name,
                    tower=tower,
                    media=media,
                    memo=memo if known else None,
                    facts=facts,
                    store=store,
                )
                tower.forward = source.answering(ran)
            yield ran if patched else {*towers}
        finally:
            for tower in patched.values():
                tower.__dict__.pop("forward", None)


@final
@dataclass(frozen=True, kw_only=True)
class _Source:
    """Where the answers of one tower to some media come from.

    memo: None where every answer is the tower's own.
    facts: what answers depend on beside weights.
    store: whether to put into the folder what is not there.
    """

    answers: Answers
    name: str
    tower: nn.Module
    media: Sequence[Medium]
    memo: Memo | None
    facts: Mapping[str, object]
    store: bool

    def answering(self, ran: set[str]) -> Callable[..., object]:
        """What stands in for the tower's forward; says in ``ran`` that the tower was run."""
        forward = cast("Callable[..., object]", self.tower.forward)
        calls = itertools.count()

        def run(*args: object, **kwargs: object) -> object:
            ran.add(self.name)
            return forward(*args, **kwargs)

        def answer(*args: object, **kwargs: object) -> object:
            if self.memo is None:
                return run(*args, **kwargs)
            key = f"{'+'.join(medium.digest for medium in self.media)}-{next(calls)}"
            known = self.memo.recall(f"tower:{self.name}", key)
            if known is None and (known := self._stored(key)) is None:
                known = run(*args, **kwargs)
            self.memo.keep(f"tower:{self.name}", key, known)
            # families write into what a tower returned: each caller gets a copy of its outermost shell
            given = copy.copy(known)
            self._put(key, known)
            return given

        return answer

    @property
    def _cache(self) -> FeatureCache | None:
        # media that went through together have one answer, which is no one's alone
        alone = len(self.media) == 1 and self.media[0].cacheable and not self.answers.why_not(self.name)
        return self.memo.cache if self.memo is not None and alone else None

    def _stored(self, key: str) -> object:
        return None if self._cache is None else self._cache.get(self.tower, key, self._facts)

    def _put(self, key: str, answer: object) -> None:
        cache = self._cache
        if cache is None or not self.store or cache.has(self.tower, key, self._facts):
            return
        try:
            cache.put(self.tower, key, answer, self._facts, without=self._unread)
        except TypeError as error:  # this medium's answer is of another form than the trial's
            self.answers.formless[self.name] = str(error)

    @property
    def _unread(self) -> frozenset[str]:
        return self.answers.unread.get(self.name, frozenset())

    @property
    def _facts(self) -> Mapping[str, object]:
        return {**self.facts, "tower": self.name, "unread": sorted(self._unread)}


@contextmanager
def _hooked(towers: Mapping[str, nn.Module], hook: Callable[..., object]) -> Iterator[None]:
    """Within it a function is told of every call of a tower, by name, and may return another answer."""
    hooks = [
        tower.register_forward_hook(lambda _, *said, name=name: hook(name, *said), with_kwargs=True)
        for name, tower in towers.items()
    ]
    try:
        yield
    finally:
        for one in hooks:
            one.remove()


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
