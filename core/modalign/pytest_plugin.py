"""The option of `pytest --pyargs modalign.testing --plugin NAME`; loaded by every pytest, so it imports nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--plugin``."""
    group = parser.getgroup("modalign")
    group.addoption(
        "--plugin",
        dest="modalign_plugin",
        metavar="NAME",
        default="core",
        help="the modalign plugin that modalign.testing checks (default: core)",
    )
