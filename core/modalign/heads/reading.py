"""What our reward heads share: which state of a response they read, and how they are made again.

r rows, n tokens, d width, a responses, k numbers of a head, m tokens read.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from modalign.batch import Batch
from modalign.errors import ConfigError, ModelError
from modalign.roles import Head

Read = str | int  #: `last`, `first`, `mean`, or the id of a token

_NAMED = ("last", "first", "mean")


class ReadingHead(Head):
    """A head that reads one state of each response, and says in `settings` how it was made.

    `dimensions` names its numbers, one by one; `judged` is what they are about.

    width: of the states (d).
    dimensions: what is judged.
    read: `last` is the state at the response's last token, which has seen all of it. `first` is the one at the first
        token of the sequence, for models that attend both ways (CLS): of a causal one it is the same whatever the
        response, and training refuses it. `mean` is the mean over all tokens of prompt and response. A number is the id
        of a token: the state at its last occurrence, for a token that ends a response.
    settings: further ones of the class.
    """

    judged: tuple[str, ...]
    settings: Mapping[str, object]

    def __init__(self, width: int, dimensions: Sequence[str], read: Read, **settings: object) -> None:
        super().__init__()
        self.width, self.judged, self.read = width, _names(dimensions), _read(read)
        self.dimensions = self.judged
        self.anywhere = self.read != "last"
        self.settings = {"dimensions": list(self.judged), "read": self.read, **settings}

    @abstractmethod
    def numbers(self, state: Tensor) -> Tensor:
        """``a k`` of the states that were read, ``a d``; both in float32."""

    def answers(self, numbers: Tensor) -> dict[str, Tensor]:
        """What the numbers ``a k`` say in a person's terms, ``a`` by name: rewards, probabilities, variances."""
        return dict(zip(self.dimensions, numbers.unbind(-1), strict=True))

    def forward(self, states: Tensor, batch: Batch) -> Tensor:
        # float32 under autocast too: bf16 keeps 8 bits, and a pair's rewards often differ by less
        with torch.autocast(states.device.type, enabled=False):
            return self.numbers(self._state(states, batch).float())

    def _state(self, states: Tensor, batch: Batch) -> Tensor:
        """The state of each response, ``a d``."""
        if self.read == "last":
            rows, indices = batch.ends.unbind(-1)
            return states[rows, indices]
        paths = [_path(batch, row, index) for row, index in batch.ends.tolist()]
        owner = torch.repeat_interleave(torch.arange(len(paths)), torch.tensor([len(path) for path in paths]).long())
        row = batch.ends[:, 0].cpu()[owner]  # m
        index = torch.cat([*paths, torch.zeros(0, dtype=torch.long)])  # m
        if self.read == "mean":
            place = owner.to(states.device)
            total = states.new_zeros(len(paths), states.shape[-1], dtype=torch.float32)
            total = total.index_add(0, place, states[row.to(states.device), index.to(states.device)].float())
            return total / torch.tensor([[len(path)] for path in paths], device=states.device).reshape(-1, 1)
        ends = batch.ends.cpu()
        chosen = [
            int(path[0]) if self.read == "first" else self._occurrence(batch, int(end[0]), path)
            for end, path in zip(ends, paths, strict=True)
        ]
        return states[batch.ends[:, 0], torch.tensor(chosen, dtype=torch.long, device=states.device)]

    def _occurrence(self, batch: Batch, row: int, path: Tensor) -> int:
        """Where the token that is read lies last."""
        here = torch.eq(batch.tokens[row].cpu()[path], int(self.read)).nonzero()
        if not len(here):
            raise ModelError(
                f"a reward head reads the state at token {self.read}",
                got="a response without that token",
                fix="read `last`, or use data whose sequences hold the token",
            )
        return int(path[int(here[-1])])


def linear(width: int, numbers: int, *, bias: bool) -> nn.Linear:
    """A layer that starts as transformers' sequence classification heads do: normal, 0.02; a bias starts at zero."""
    score = nn.Linear(width, numbers, bias=bias)
    nn.init.normal_(score.weight, std=0.02)
    if bias:
        nn.init.zeros_(score.bias)
    return score


def project(score: nn.Linear, state: Tensor) -> Tensor:
    """``a k`` in float32, whatever the layer's own type."""
    bias = None if score.bias is None else score.bias.float()
    return nn.functional.linear(state, score.weight.float(), bias)


def _path(batch: Batch, row: int, index: int) -> Tensor:
    """The row's tokens that lead up to one, itself the last: those of its trunk and of its own branch."""
    node = int(batch.layout.node[row, index])
    if node < 0:
        raise ModelError("a response without any token has no state", got=f"row {row}, token {index}")
    tokens = batch.layout.tokens(node)
    return tokens[tokens <= index]


def _names(dimensions: Sequence[str]) -> tuple[str, ...]:
    names = (dimensions,) if isinstance(dimensions, str) else tuple(dimensions)
    if not names or len(set(names)) != len(names):
        raise ConfigError(
            "a reward head judges one or more dimensions, each once",
            got=", ".join(names) or "none",
            fix='dimensions=("helpfulness", "harmlessness")',
        )
    return names


def _read(read: Read) -> Read:
    if isinstance(read, str) and read.isdecimal():
        return int(read)  # a flag's value
    if isinstance(read, bool) or not isinstance(read, int | str) or (isinstance(read, str) and read not in _NAMED):
        raise ConfigError(
            "a reward head reads the state at a place that it knows",
            where="read",
            got=repr(read),
            fix=f"use {', '.join(_NAMED)}, or the id of a token",
        )
    return read
