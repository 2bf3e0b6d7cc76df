"""Metrics are written line by line, survive a kill, and say what is wrong where they cannot be read."""

import errno
import json
import math
import os
import resource
from typing import Any

import numpy as np
import pytest
import torch

from modalign import failpoints
from modalign.errors import DataError, ResourceError
from modalign.testing.processes import in_child
from modalign.training.storage.metricslog import MetricsLog, read_metrics


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def test_lines_come_back_as_they_were(path):
    with MetricsLog(path) as log:
        log.append(1, {"loss": 0.1, "epoch": 1e-9})
        odd: dict[str, Any] = {"loss": torch.tensor(0.25), "num_tokens": np.int64(7), "flag": True}
        log.append(2, odd)
    assert list(read_metrics(path)) == [
        {"step": 1, "loss": 0.1, "epoch": 1e-9},
        {"step": 2, "loss": 0.25, "num_tokens": 7.0, "flag": 1},
    ]


def test_a_number_that_is_none_is_strict_json_and_comes_back(path):
    with MetricsLog(path) as log:
        log.append(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    assert json.loads(path.read_text()) == {"step": 1, "a": "NaN", "b": "Infinity", "c": "-Infinity"}
    record = next(read_metrics(path))
    assert math.isnan(record["a"])
    assert (record["b"], record["c"]) == (math.inf, -math.inf)


@pytest.mark.parametrize("value", ["words", None, [1.0], torch.zeros(2)])
def test_a_metric_that_is_no_number_is_refused_and_writes_nothing(path, value):
    with MetricsLog(path) as log, pytest.raises(TypeError, match="'loss' is no number"):
        log.append(1, {"loss": value})
    assert path.read_bytes() == b""


def test_a_line_is_there_before_the_log_is_closed(path):
    log = MetricsLog(path)
    log.append(1, {"loss": 1.0})
    assert len(list(read_metrics(path))) == 1
    log.close()
    log.close()


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_last_line_cut_anywhere_is_removed_and_the_rest_goes_on(path, cut, caplog):
    with MetricsLog(path) as log:
        log.append(1, {"loss": 1.0})
        log.append(2, {"loss": 2.0})
    os.truncate(path, path.stat().st_size - cut)
    assert [record["step"] for record in read_metrics(path)] == [1]  # a reader is not disturbed
    with MetricsLog(path) as log:
        log.append(2, {"loss": 2.5})
    assert "cut off" in caplog.text
    assert list(read_metrics(path)) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.5}]


def test_a_resumed_run_drops_later_lines_and_leaves_neither_gap_nor_double(path):
    with MetricsLog(path) as log:
        for step in (1, 2, 2, 3, 4):
            log.append(step, {"loss": float(step)})
        assert log.truncate_after(2) == 2
        assert log.truncate_after(2) == 0
        log.append(3, {"loss": 33.0})
    assert [(record["step"], record["loss"]) for record in read_metrics(path)] == [(1, 1), (2, 2), (2, 2), (3, 33)]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("place", ["file-open", "file-write", "file-fsync", "file-close", "folder-fsync"])
def test_a_kill_while_lines_are_dropped_leaves_the_old_or_the_new(path, place):
    with MetricsLog(path) as log:
        for step in range(4):
            log.append(step, {"loss": 1.0})

        def victim():
            with failpoints.active(f"{place}=kill"):
                log.truncate_after(1)

        assert in_child(victim) == -9
    assert [record["step"] for record in read_metrics(path)] in ([0, 1, 2, 3], [0, 1])


def test_a_full_disk_is_said_and_half_a_line_does_not_stay(path):
    with MetricsLog(path) as log:
        log.append(1, {"loss": 1.0})
        for place in ("metrics-append", "file-write"):
            with failpoints.active(f"{place}=raise:ENOSPC"), pytest.raises(ResourceError, match="bytes free"):
                log.append(2, {"loss": 2.0})

    def victim():
        with MetricsLog(path) as log:
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 5, resource.RLIM_INFINITY))
            with pytest.raises(ResourceError, match=os.strerror(errno.EFBIG)):
                log.append(2, {"loss": 2.0})
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            log.append(3, {"loss": 3.0})

    assert in_child(victim) == 0
    assert [record["step"] for record in read_metrics(path)] == [1, 3]


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"step": 1.5}', '{"step": 1, "loss": NaN}', '{"step": 1, "a": "x"}'])
def test_a_line_that_makes_no_sense_is_named(path, line):
    path.write_text('{"step": 1}\n' + line + '\n{"step": 3}\n')
    with pytest.raises(DataError) as caught:
        list(read_metrics(path))
    assert (caught.value.file, caught.value.row) == (str(path), 2)
