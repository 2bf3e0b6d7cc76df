"""A page that is walked: its files and rows in a folder, and a tiny model for each that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tiny_hub import at_home, fill


@pytest.fixture(scope="module")
def there(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a module's `PAGE`."""
    folder = tmp_path_factory.mktemp("page")
    fill(folder, request.module.PAGE)
    return folder


@pytest.fixture
def walked(there: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In that folder."""
    with at_home(there, monkeypatch):
        yield
