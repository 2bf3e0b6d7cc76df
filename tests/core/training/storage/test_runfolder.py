"""A run folder has one writer, loses nothing, and keeps no secret."""

import fcntl
import json
import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest
import torch

from modalign.errors import ConfigError, ResourceError
from modalign.testing.processes import exit_code, in_child, start_child
from modalign.training.storage import runlock
from modalign.training.storage.checkpoint import save_checkpoint
from modalign.training.storage.runfolder import RunFolder
from modalign.training.storage.state import TrainState


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "runs" / "first"


def some_run(path: Path, loss: float = 1.0) -> None:
    """A run that took a step."""
    with RunFolder.open(path) as run:
        run.write_config({"loss": loss})
        run.metrics.append(1, {"loss": loss})


def holder_of(path: Path, *, until: Path) -> int:
    """A child that holds a run folder until a file is there; returns once it does."""

    def hold() -> None:
        with RunFolder.open(path, resume=True) as run:
            (run.path.parent / "held").touch()
            while not until.exists():
                time.sleep(0.01)

    pid = start_child(hold)
    while not (path.parent / "held").exists():
        time.sleep(0.01)
    (path.parent / "held").unlink()
    return pid


def test_a_new_folder_is_private_and_has_its_places(path):
    with RunFolder.open(path) as run:
        assert run.checkpoints == path / "checkpoints"
        assert run.checkpoints.is_dir()
        run.write_config({})
        run.write_run_info()
        run.metrics.append(1, {})
    for file in path.rglob("*"):
        assert file.stat().st_mode & 0o077 == 0, file
    assert path.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_not_open_cannot_be_written():
    with pytest.raises(RuntimeError, match="not open for writing"):
        _ = RunFolder("anywhere").metrics


def test_an_earlier_run_is_refused_with_the_two_ways_on(path):
    some_run(path)
    with pytest.raises(ConfigError, match="holds an earlier run") as caught, RunFolder.open(path):
        pass
    assert "resume_from_checkpoint" in str(caught.value.fix)
    assert "overwrite_output_dir" in str(caught.value.fix)


def test_resuming_keeps_everything_and_needs_no_earlier_run(path):
    with RunFolder.open(path, resume=True) as run:
        run.metrics.append(1, {"loss": 1.0})
        run.bad_rows.write_text("{}\n")
    with RunFolder.open(path, resume=True) as run:
        run.metrics.append(2, {"loss": 2.0})
        assert run.bad_rows.exists()
    assert len(run.metrics_path.read_text().splitlines()) == 2


def test_overwriting_moves_the_earlier_run_aside_and_deletes_nothing(path):
    for loss in (1.0, 2.0, 3.0):
        with RunFolder.open(path, overwrite=loss > 1) as run:
            run.metrics.append(1, {"loss": loss})
    kept = {folder.name: (folder / "metrics.jsonl").read_text() for folder in path.parent.iterdir()}
    assert kept == {
        "first.old-1": '{"step": 1, "loss": 1.0}\n',
        "first.old-2": '{"step": 1, "loss": 2.0}\n',
        "first": '{"step": 1, "loss": 3.0}\n',
    }


def test_overwriting_through_a_link_leaves_the_link(path, tmp_path):
    some_run(path)
    (tmp_path / "link").symlink_to(path)
    with RunFolder.open(tmp_path / "link", overwrite=True) as run:
        assert run.path == path
    assert (tmp_path / "link").resolve() == path
    assert (path.parent / "first.old-1" / "metrics.jsonl").exists()


def test_a_run_that_never_took_a_step_is_no_obstacle(path):
    with RunFolder.open(path) as run:
        run.write_config({})
        run.write_run_info()
        run.bad_rows.write_text("{}\n")
    with RunFolder.open(path) as run:
        assert not run.bad_rows.exists()
    assert [folder.name for folder in path.parent.iterdir()] == ["first"]


def test_a_checkpoint_without_a_log_line_is_a_run(path):
    with RunFolder.open(path) as run:
        save_checkpoint(run.checkpoints, TrainState(step=1, position=1, tensors={"w": torch.ones(1)}))
    with pytest.raises(ConfigError, match="earlier run"), RunFolder.open(path):
        pass


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_a_folder_of_other_things_is_never_touched(path, how):
    path.mkdir(parents=True)
    (path / "thesis.tex").write_text("words")
    with pytest.raises(ConfigError, match=r"no run; found: thesis\.tex"), RunFolder.open(path, **how):
        pass
    assert [file.name for file in path.iterdir()] == ["thesis.tex"]


def test_a_file_and_a_contradiction_are_refused(path):
    path.parent.mkdir()
    path.touch()
    with pytest.raises(ConfigError, match="is a file"), RunFolder.open(path):
        pass
    with pytest.raises(ConfigError, match="either resumed or written anew"):
        RunFolder.open(path, overwrite=True, resume=True).__enter__()


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_a_second_writer_is_refused_naming_the_first(path, how, tmp_path):
    some_run(path)
    pid = holder_of(path, until=tmp_path / "stop")
    with pytest.raises(ResourceError, match="in use") as caught, RunFolder.open(path, **how):
        pass
    assert caught.value.exit_code == 6
    assert f"process {pid} on host {socket.gethostname()}, started 20" in str(caught.value)
    assert RunFolder(path).metrics_path.read_text()  # a reader is not disturbed
    (tmp_path / "stop").touch()
    assert exit_code(pid) == 0
    with RunFolder.open(path, resume=True):
        pass


def test_the_same_process_cannot_open_a_folder_twice(path):
    with RunFolder.open(path), pytest.raises(ResourceError, match="in use"), RunFolder.open(path, resume=True):
        pass


def test_the_folder_of_a_killed_run_is_taken_over_with_a_warning_and_swept(path, tmp_path, caplog):
    pid = holder_of(path, until=tmp_path / "never")
    for name in ("checkpoints/tmp-3-ab", "checkpoints/trash-1-ab"):
        (path / name).mkdir()
    (path / "tmp-run.json-ab").touch()
    os.kill(pid, signal.SIGKILL)
    assert exit_code(pid) == -9
    with RunFolder.open(path, resume=True) as run:
        assert not list(run.checkpoints.iterdir())
        assert not list(path.glob("tmp-*"))
    assert f"process {pid} on host" in caplog.text
    caplog.clear()
    with RunFolder.open(path, resume=True):
        pass
    assert not caplog.text  # that run ended in order


def test_a_forked_worker_that_outlives_its_killed_parent_does_not_hold_the_folder(path, tmp_path):
    def parent() -> None:
        with RunFolder.open(path):
            worker = start_child(lambda: time.sleep(60))
            (tmp_path / "worker").write_text(str(worker))
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(parent) == -9
    worker = int((tmp_path / "worker").read_text())
    os.kill(worker, 0)  # it lives
    with RunFolder.open(path, resume=True):
        pass
    os.kill(worker, signal.SIGKILL)


def test_a_forked_worker_cannot_release_its_parents_lock(path):
    with RunFolder.open(path) as run:
        lock = next(iter(runlock._held))
        assert in_child(lock.release) == 0
        assert json.loads((run.path / "run.lock").read_text())["pid"] == os.getpid()
        with pytest.raises(ResourceError), RunFolder.open(path, resume=True):
            pass


def test_a_note_of_another_host_is_believed(path):
    some_run(path)
    note = {"host": "elsewhere", "pid": 12, "boot_id": "x", "started": "2026-01-01T00:00:00+00:00"}
    (path / "run.lock").write_text(json.dumps(note))
    with (
        pytest.raises(ResourceError, match="process 12 on host elsewhere") as caught,
        RunFolder.open(path, resume=True),
    ):
        pass
    assert "if that process is gone, remove" in str(caught.value.fix)
    (path / "run.lock").unlink()
    with RunFolder.open(path, resume=True):
        pass


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b"\xff" * 100, b'{"host": 1}'])
def test_a_note_that_cannot_be_read_is_no_holder(path, note):
    some_run(path)
    (path / "run.lock").write_bytes(note)
    with RunFolder.open(path, resume=True):
        pass


def test_a_lock_of_a_folder_that_was_moved_aside_meanwhile_is_not_taken_for_the_new_ones(path, monkeypatch):
    some_run(path)
    flock, moved = fcntl.flock, []

    def late(file, how):
        flock(file, how)
        if not moved:  # between opening and locking, another process starts anew
            moved.append(path.rename(path.with_name("aside")))
            path.mkdir()

    monkeypatch.setattr(fcntl, "flock", late)
    with RunFolder.open(path, resume=True):
        assert json.loads((path / "run.lock").read_text())["pid"] == os.getpid()
    assert (path.with_name("aside") / "run.lock").read_bytes() == b""


@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_racing_processes_exactly_one_wins(tmp_path, overwrite):
    chance = random.Random(1)
    for race in range(20):
        path, stop = tmp_path / f"{race}" / "run", tmp_path / f"{race}" / "stop"
        some_run(path)
        start = time.monotonic() + 0.03

        def racer(wait: float, path=path, start=start, stop=stop) -> None:
            time.sleep(max(0.0, start + wait - time.monotonic()))
            try:
                with RunFolder.open(path, overwrite=overwrite, resume=not overwrite) as run:
                    run.metrics.append(2, {"pid": os.getpid()})
                    while not stop.exists():
                        time.sleep(0.002)
            except ResourceError as error:
                os._exit(6 if "in use" in str(error) or "same moment" in str(error) else 1)

        pids = [start_child(lambda wait=wait: racer(wait)) for wait in (0.0, chance.random() * 0.004)]
        loser, status = os.waitpid(-1, 0)  # the winner holds on until the other has given up
        assert os.waitstatus_to_exitcode(status) == 6
        stop.touch()
        winner = next(pid for pid in pids if pid != loser)
        assert exit_code(winner) == 0
        assert f'"pid": {winner}' in (path / "metrics.jsonl").read_text()
        assert sum("loss" in file.read_text() for file in path.parent.rglob("metrics.jsonl")) == 1
        shutil.rmtree(path.parent)
