"""The family that docs/generators.md adds is a plugin that keeps the laws, by the test that the page has for it."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from modalign.registry import registry

PAGE = (Path(__file__).parent.parent / "docs/generators.md").read_text()
FILES = re.findall(r'^```python title="([^"]+)"\n(.*?)^```', PAGE, re.M | re.S)


def test_the_family_of_the_page_keeps_the_laws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(FILES) == 4
    for title, text in FILES:
        place = tmp_path / title
        place.parent.mkdir(exist_ok=True)
        place.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        plugin = importlib.import_module("modalign_aura")
        with registry.scoped(plugin, name="aura", distribution="modalign-aura"):
            told = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-c", str(tmp_path / "pytest.ini")]
            (tmp_path / "pytest.ini").write_text("[pytest]\n")
            assert pytest.main([*told, str(tmp_path / "test_aura_flow.py")]) == 0
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in ("modalign_aura", "test_aura_flow")]:
            del sys.modules[name]
