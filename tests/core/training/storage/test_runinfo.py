"""The files that say what a run was: they read back, are replaced at once, and keep no secret."""

import json
import sys
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel
from ruamel.yaml import YAML

from modalign import failpoints
from modalign.errors import ResourceError
from modalign.training.storage.runfolder import RunFolder
from modalign.training.storage.runinfo import redact


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "run"


class Settings(BaseModel):
    rate: float = 1e-5
    name: str = "no"
    number: str = "1e3"
    none: int | None = None
    folder: Path = Path("a/b")
    several: tuple[str, ...] = ("x: y", "- z", "ünï", "")
    nested: dict[str, dict[str, float]] = {"a": {"b": 1e16}}


def test_a_config_reads_back_as_it_was(path):
    with RunFolder.open(path) as run:
        run.write_config(Settings())
        assert Settings.model_validate(YAML(typ="safe").load(run.config)) == Settings()
        run.write_config({"when": Path("x"), "one": 1})
        assert YAML(typ="safe").load(run.config) == {"when": "x", "one": 1}


def test_a_config_is_replaced_at_once(path):
    with RunFolder.open(path) as run:
        run.write_config({"a": 1})
        before = run.config.read_bytes()
        for place in ("file-open", "file-write", "file-fsync", "file-close"):
            with failpoints.active(f"{place}=raise:ENOSPC"), pytest.raises(ResourceError, match="bytes free"):
                run.write_config({"a": 2})
            assert run.config.read_bytes() == before
        assert not list(path.glob("tmp-*"))


def test_run_info_names_versions_plugins_and_command_and_keeps_earlier_starts(path, monkeypatch):
    monkeypatch.setenv("A_VERY_SECRET_NAME", "canary-value")
    monkeypatch.setattr(sys, "argv", ["modalign", "train", "--hub-token", "canary-token", "--lr=1"])
    with RunFolder.open(path) as run:
        run.write_run_info(seed=1)
        run.write_run_info(seed=2, folder=Path("x"))
        run.write_run_info(seed=3)
    text = run.run_info.read_text()
    info = json.loads(text)
    assert info["torch"] == torch.__version__
    assert info["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert info["command"] == ["modalign", "train", "--hub-token", "***", "--lr=1"]
    assert {"name": "core", "distribution": "modalign", "version": info["modalign"]} in info["plugins"]
    assert "A_VERY_SECRET_NAME" in info["environment"]
    assert "canary" not in text
    assert [one["seed"] for one in [info, *info["earlier"]]] == [3, 1, 2]


@pytest.mark.parametrize(
    ("word", "clean"),
    [
        ("--api-key=abc", "--api-key=***"),
        ("hf_abcdefghij", "***"),
        ("--x=sk-abcdefghijkl", "--x=***"),
        ("https://u:p@h/x", "https://***@h/x"),
        ("--data=rows.jsonl", "--data=rows.jsonl"),
        ("runs/hf_x", "runs/hf_x"),
        ("--num-tokens=5", "--num-tokens=5"),
    ],
)
def test_a_command_is_cleaned_of_what_looks_secret(word, clean):
    assert redact([word]) == [clean]
