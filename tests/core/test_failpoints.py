"""Failpoints do nothing when off, and exactly what was asked for when on."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from modalign import failpoints
from modalign.errors import ConfigError
from modalign.failpoints import active, fired, hit, traced
from modalign.testing.processes import in_child


def test_a_place_nobody_named_does_nothing():
    hit("anything")
    with active("other=raise:ENOSPC"):
        hit("anything")
        assert not fired()


def test_an_error_is_raised_at_the_hit_asked_for_and_at_no_other():
    with active("here=raise:ENOSPC@3"):
        hit("here")
        hit("here")
        with pytest.raises(OSError, match="failpoint here") as caught:
            hit("here")
        assert caught.value.errno == errno.ENOSPC
        hit("here")
        assert fired() == {"here": 1}


def test_without_a_number_every_hit_counts():
    with active("here=raise:EIO; there=sleep:0"):
        for _ in range(3):
            with pytest.raises(OSError, match="failpoint"):
                hit("here")
            hit("there")
        assert fired() == {"here": 3, "there": 3}
    hit("here")


def test_sleeping_takes_its_time():
    start = time.monotonic()
    with active("here=sleep:0.05"):
        hit("here")
    assert time.monotonic() - start >= 0.05


def test_a_kill_is_a_kill():
    def victim():
        with active("here=kill@2"):
            hit("here")
            hit("here")

    assert in_child(victim) == -signal.SIGKILL


def test_a_signal_is_sent_to_the_process_itself():
    seen = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: seen.append(number))
    try:
        with active("here=signal:SIGUSR2"):
            hit("here")
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == [signal.SIGUSR2]


def test_places_are_traced_in_order_beside_actions():
    with traced() as names, active("b=raise:EIO"):
        hit("a")
        with pytest.raises(OSError, match="failpoint b"):
            hit("b")
        hit("a")
    hit("c")
    assert names == ["a", "b", "a"]


@pytest.mark.parametrize(
    "spec", ["here", "=kill", "here=", "here=explode", "here=kill:9", "here=raise:ENOPE", "here=kill@0", "here=sleep:x"]
)
def test_a_misspelt_failpoint_is_an_error_that_names_it(spec):
    with pytest.raises(ConfigError, match="cannot read the failpoint"), active(spec):
        pass


def test_the_environment_variable_reaches_a_fresh_process():
    code = "from modalign.failpoints import hit; hit('a'); hit('a'); print('alive')"
    environment = os.environ | {failpoints.VARIABLE: "a=kill@2"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-9, "")


def test_an_idle_failpoint_costs_less_than_a_microsecond():
    def run() -> float:
        start = time.perf_counter()
        for _ in range(20_000):
            hit("here")
        return (time.perf_counter() - start) / 20_000

    assert min(run() for _ in range(5)) < 1e-6  # the best of five: other processes only ever add
