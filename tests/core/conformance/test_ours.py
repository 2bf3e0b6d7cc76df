"""Our own plugins keep the contract that everyone's are held to."""

import pytest

from modalign.errors import PluginError
from modalign.testing import check_plugin


@pytest.mark.parametrize("name", ["text", "image", "audio", "video"])  # core is checked by modalign.testing itself
def test_our_plugins_keep_the_contract(name: str) -> None:
    assert check_plugin(name)


def test_an_unknown_plugin_is_told_with_those_that_are_installed() -> None:
    with pytest.raises(PluginError, match=r"no plugin 'smell'; found: installed: modalign:core"):
        check_plugin("smell")
