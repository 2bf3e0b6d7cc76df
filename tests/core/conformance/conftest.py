"""A plugin of one thing, made on the spot, and what the contract says of it."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import pytest

from modalign.errors import PluginError
from modalign.hookspecs import hookimpl
from modalign.registry import Registry
from modalign.testing import check_plugin

BLOB = "modalign.testing.blob"
NAME = "modalign_seeded_for_tests"  #: the module that import strings of these tests name

PLUGINS = Registry()  #: kept between tests, so that what is installed is loaded once

Breaks = Callable[..., str]


@pytest.fixture
def seeded(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An importable module to put targets into."""
    module = ModuleType(NAME)
    monkeypatch.setitem(sys.modules, NAME, module)
    return module


@pytest.fixture
def breaks(seeded: ModuleType) -> Breaks:
    """Registers one thing and returns the laws it breaks, as the contract words them; empty where it keeps all."""

    def check(hook: str, target: object, /, *, name: str = "thing", blobs: bool = False, **declared: object) -> str:
        seeded.__dict__["Thing"] = target

        def register(register) -> None:
            register(name, f"{NAME}:Thing", **declared)

        def register_modalities(register) -> None:
            register(
                "blob", "modalign.testing.blob:BlobModality", blocks=("blob",), probe="modalign.testing.blob:blobs"
            )

        hooks = {f"register_{hook}": hookimpl(register)}
        hooks |= {"register_modalities": hookimpl(register_modalities)} if blobs else {}
        with PLUGINS.scoped(SimpleNamespace(**hooks), name="seeded", distribution="seeded-dist"):
            try:
                check_plugin("seeded", PLUGINS)
            except PluginError as error:
                return str(error)
        return ""

    return check
