"""The contract as tests: `pytest --pyargs modalign.testing --plugin NAME`."""

from pathlib import Path

import pytest

from modalign.testing.case import Case
from modalign.testing.conformance import cases


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test per law and registered thing."""
    found = cases(str(metafunc.config.getoption("modalign_plugin", default="core")))
    metafunc.parametrize("law", found, ids=[one.name for one in found])


def test_the_plugin_keeps_the_contract(law: Case, tmp_path: Path) -> None:
    """Each law holds."""
    law.run(tmp_path)
