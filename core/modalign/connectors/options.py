"""How a connector's options are checked, and how it starts from a seed of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from pydantic import Field, NonNegativeInt, ValidationError
from torch import Tensor

from modalign.config import Config
from modalign.errors import ConfigError, ShapeError


class ConnectorOptions(Config):
    """What every connector may be told."""

    seed: NonNegativeInt = Field(default=0, lt=1 << 63)
    """Of the weights it starts with: equal options give equal weights, whatever else was drawn before."""


Options = TypeVar("Options", bound=ConnectorOptions)


def checked(model: type[Options], options: Mapping[str, object]) -> Options:
    """The options as a model, or a `ConfigError` that names the wrong one."""
    try:
        return model.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(model.model_fields)
        raise ConfigError(first["msg"], where=where, got=repr(first["input"]), fix=f"options: {known}") from error


def check_widths(width: int, out: int) -> None:
    """Raise unless both widths are positive."""
    if min(width, out) < 1:
        raise ConfigError("a connector joins two positive widths", got=f"{width} to {out}")


def check_embeddings(embeddings: Tensor, width: int) -> None:
    """Raise unless the embeddings are ``m width``."""
    if embeddings.ndim != 2 or embeddings.shape[1] != width:
        raise ShapeError(f'expected "m width" with width={width}', got=tuple(embeddings.shape))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it the CPU draws from this seed; the caller's random state is untouched."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU too
        yield
