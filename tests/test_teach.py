"""The command that makes what the quickstart starts from: it runs from nothing, and writes what the plugins ship."""

from __future__ import annotations

from pathlib import Path

import pytest

import modalign
import teach
from modalign.registry import registry
from modalign.world.packed import unpack
from modalign.world.together import Together

MODALITIES = ("text", *teach.PAINTERS)


def files(plugins: Path) -> set[str]:
    """What a folder of plugins ships."""
    found = [one for name in MODALITIES for one in (plugins / name / f"modalign_{name}" / "taught").rglob("*")]
    return {str(one.relative_to(plugins)) for one in found if one.is_file()}


@pytest.mark.timeout(300)
def test_the_command_teaches_from_nothing_and_packs_what_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(teach, "PAINTERS", dict.fromkeys(teach.PAINTERS, 1))
    monkeypatch.setattr(teach, "PLUGINS", tmp_path / "plugins")
    for name in MODALITIES:
        (tmp_path / "plugins" / name / f"modalign_{name}").mkdir(parents=True)
    arguments = ["teach.py", "--folder", str(tmp_path / "runs"), "--tower_steps", "1", "--steps", "2", "--pack"]
    monkeypatch.setattr("sys.argv", arguments)
    teach.main()
    assert "1 loss" in capsys.readouterr().out
    plugins = Path(teach.__file__).resolve().parent.parent / "plugins"
    assert files(tmp_path / "plugins") == files(plugins)
    for name in MODALITIES:
        unpack(tmp_path / "plugins" / name / f"modalign_{name}" / "taught", tmp_path / "whole")
    model = modalign.load(tmp_path / "whole")
    (row,) = Together(depictions=registry.depictions(), words="text").rows("prompts", 1)
    (answer,) = model.generate([row.prompt], max_new_tokens=4, max_media=1, num_inference_steps=1)
    assert list(answer.parts())
