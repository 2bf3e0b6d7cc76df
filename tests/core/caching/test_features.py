"""The feature cache: what a frozen encoder gave comes back from disk, and nothing else ever does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modalign.caching.features import FeatureCache
from modalign.objectives import DPO
from modalign.testing import toy_model, toy_pairs
from modalign.testing.doubles import ToyEncoder
from modalign.training import Trainer


def passes(folder: Path) -> list[float]:
    return [json.loads(line)["encoder/blob/passes"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run(folder: Path, cache: Path | None, *, frozen: bool = True) -> list[float]:
    model = toy_model()
    model.encoders.requires_grad_(not frozen)
    Trainer(
        model=model,
        objective=DPO(),
        data=toy_pairs(4, blobs=True),
        output_dir=folder,
        max_steps=4,
        per_device_train_batch_size=2,
        feature_cache=cache,
    ).train()
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_cached_medium_is_encoded_once_for_all_epochs_and_runs(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", None)
    first = run(tmp_path / "first", tmp_path / "cache")
    second = run(tmp_path / "second", tmp_path / "cache")
    assert passes(tmp_path / "plain") == [4, 4, 4, 4]  # 2 pairs of 2 blobs a step, for policy and reference together
    assert passes(tmp_path / "first") == [4, 4, 0, 0]
    assert passes(tmp_path / "second") == [0, 0, 0, 0]
    assert plain == first == second


def test_an_encoder_that_trains_is_cached_for_its_reference_only(tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", None, frozen=False)
    cached = run(tmp_path / "cached", tmp_path / "cache", frozen=False)
    assert passes(tmp_path / "plain") == [8, 8, 8, 8]  # policy and reference each: their weights differ after a step
    assert passes(tmp_path / "cached") == [8, 8, 4, 4]  # the reference never changes
    assert plain == cached


def test_other_weights_and_other_settings_have_other_entries(tmp_path: Path) -> None:
    cache, encoder = FeatureCache(tmp_path), ToyEncoder()
    cache.put(encoder, "ab" * 32, torch.ones(2, 16))
    assert cache.get(encoder, "ab" * 32) is not None
    assert cache.get(ToyEncoder(), "ab" * 32) is None
    alike = ToyEncoder()
    alike.load_state_dict(encoder.state_dict())
    assert cache.get(alike, "ab" * 32) is not None
    assert cache.get(alike, "ab" * 32, {"frames": 8}) is None


def test_a_damaged_entry_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache, encoder = FeatureCache(tmp_path), ToyEncoder()
    cache.put(encoder, "cd" * 32, torch.ones(2, 16))
    (entry,) = tmp_path.rglob("*.safetensors")
    entry.write_bytes(entry.read_bytes()[:-7])
    assert cache.get(encoder, "cd" * 32) is None
    assert "cannot be read" in caplog.text
    cache.put(encoder, "cd" * 32, torch.full((2, 16), 3.0))
    found = cache.get(encoder, "cd" * 32)
    assert isinstance(found, torch.Tensor)
    assert bool((found == 3).all())


def test_an_entry_of_before_encodings_had_structure_is_read(tmp_path: Path) -> None:
    cache, encoder = FeatureCache(tmp_path), ToyEncoder()
    cache.put(encoder, "ab" * 32, torch.ones(2, 16))
    (entry,) = tmp_path.rglob("*.safetensors")
    save_file({"encoding": torch.full((2, 16), 5.0)}, entry)
    found = cache.get(encoder, "ab" * 32)
    assert isinstance(found, torch.Tensor)
    assert bool((found == 5).all())


def test_names_differ_while_files_are_written_by_processes_of_one_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # containers that share a folder count their processes alike: each may write as number 7
    monkeypatch.setattr("os.getpid", lambda: 7)
    written: list[Path] = []

    def note(tensors: dict[str, torch.Tensor], place: Path, metadata: dict[str, str]) -> None:
        written.append(place)
        save_file(tensors, place, metadata=metadata)

    monkeypatch.setattr("modalign.caching.features.save_file", note)
    cache, encoder = FeatureCache(tmp_path), ToyEncoder()
    for _ in range(2):
        cache.put(encoder, "ab" * 32, torch.ones(2, 16))
    assert len({place.name for place in written}) == 2
    assert cache.get(encoder, "ab" * 32) is not None


def test_an_encoder_that_trains_says_once_that_nothing_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path / "run", tmp_path / "cache", frozen=False)
    assert caplog.text.count("the feature cache keeps nothing of blob: its weights train") == 1
    caplog.clear()
    run(tmp_path / "frozen", tmp_path / "cache")
    assert "keeps nothing" not in caplog.text


_WRITER = """
import sys, torch
from pathlib import Path
from modalign.caching.features import FeatureCache
from modalign.testing.doubles import ToyEncoder
torch.manual_seed(0)
cache, encoder = FeatureCache(Path(sys.argv[1])), ToyEncoder()
for turn in range(60):
    for name in range(10):
        digest = f"{name:02x}" * 32
        found = cache.get(encoder, digest)
        assert found is None or bool((found == name).all()), found
        cache.put(encoder, digest, torch.full((64, 64), float(name)))
"""


def test_processes_that_write_at_once_leave_whole_entries(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", _WRITER, str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    writers = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) for _ in range(3)]
    for writer in writers:
        _, said = writer.communicate(timeout=120)
        assert writer.returncode == 0, said.decode()[-2000:]
    entries = list(tmp_path.rglob("*"))
    assert sum(entry.suffix == ".safetensors" for entry in entries) == 10
    assert not [entry for entry in entries if entry.name.startswith(".")]
