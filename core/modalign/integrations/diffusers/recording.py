"""Calls of a network and of methods, written down while a pipeline runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import cast

from torch import Tensor, nn


@contextmanager
def noted(owner: object, name: str) -> Iterator[list[tuple[object, object]]]:
    """Within it the first argument and the result of every call of a method."""
    found: list[tuple[object, object]] = []
    method = cast("Callable[..., object]", getattr(owner, name))

    def noting(*args: object, **kwargs: object) -> object:
        result = method(*args, **kwargs)
        found.append((args[0] if args else next(iter(kwargs.values())), result))
        return result

    setattr(owner, name, noting)
    try:
        yield found
    finally:
        delattr(owner, name)


@contextmanager
def recorded(module: nn.Module) -> Iterator[list[tuple[Tensor, Mapping[str, object]]]]:
    """Within it the calls of a module, with what they gave and every argument by its name."""
    calls: list[tuple[Tensor, Mapping[str, object]]] = []
    signature = inspect.signature(cast("Callable[..., object]", module.forward))

    def note(_: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], output: object) -> None:
        given = signature.bind(*args, **kwargs).arguments
        copied = {name: one.clone() if isinstance(one, Tensor) else one for name, one in given.items()}
        first = output[0] if isinstance(output, tuple) else cast("Mapping[str, Tensor]", output)["sample"]
        calls.append((cast(Tensor, first).clone(), copied))

    handle = module.register_forward_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()
