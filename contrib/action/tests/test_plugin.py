"""The contract of plugins, and what is registered under which name."""

from modalign.registry import registry
from modalign.testing import check_plugin


def test_the_plugin_keeps_the_contract():
    kept = check_plugin("action")
    assert "modality action: a bad block is a clear error" in kept
    assert "loader action-expert: new adapters change nothing, and are saved" in kept
    assert "decoder action-bins: no score sees what it predicts" in kept
    assert "encoder action: saving and loading give the same, bit for bit" in kept
    assert len(kept) > 45


def test_it_is_found_as_anybody_s_is():
    (record,) = [one for one in registry.plugins() if one.name == "action"]
    assert (record.distribution, record.status, record.own) == ("modalign-action", "ok", False)
