"""The first signal asks, the second leaves; afterwards everything is as before."""

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest

from modalign.testing.processes import exit_code, start_child
from modalign.training.signals import SIGNALS, Stop


class Victim:
    """A child that waits for a signal, says its name, and goes on with something.

    what it says comes by `said`; what it writes to its standard error is in `words` once it has ended.
    """

    def __init__(self, after: Callable[[], object]) -> None:
        saying, writing = os.pipe()
        errors, self._errors = os.pipe()

        def work() -> None:
            os.dup2(self._errors, 2)
            with Stop() as stop:
                os.write(writing, b"ready\n")
                while not stop.requested:
                    time.sleep(0.01)
                os.write(writing, f"{stop.name}\n".encode())
                after()

        self.pid = start_child(work)
        for end in (writing, self._errors):
            os.close(end)
        self._said, self._words = open(saying), open(errors)  # noqa: SIM115 - closed by `end`
        assert self.said() == "ready"

    def said(self) -> str:
        return self._said.readline().strip()

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> tuple[int, str]:
        """Its exit code, and its last words."""
        code = exit_code(self.pid)
        with self._said, self._words:
            return code, self._words.read()


def stuck() -> None:
    """Wait in C for ever, as in a collective whose other rank is gone: no handler of Python runs."""
    library, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_only_sets_a_flag(number):
    with Stop() as stop:
        assert (stop.requested, stop.name) == (False, None)
        signal.raise_signal(number)
        assert (stop.requested, stop.name) == (True, signal.Signals(number).name)


def test_handlers_and_wakeup_descriptor_are_put_back():
    def mine(number, frame):
        raise AssertionError

    before = {number: signal.signal(number, mine) for number in SIGNALS}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    wakeup = signal.set_wakeup_fd(writing)
    threads = threading.active_count()
    try:
        with pytest.raises(KeyError), Stop():
            raise KeyError
        assert all(signal.getsignal(number) is mine for number in SIGNALS)
        assert signal.set_wakeup_fd(wakeup) == writing
        assert threading.active_count() == threads
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def test_one_block_after_another_starts_afresh():
    for _ in range(3):
        with Stop() as stop:
            assert not stop.requested
            signal.raise_signal(signal.SIGTERM)
            assert stop.requested


def test_a_process_that_was_asked_saves_and_ends_as_it_likes():
    victim = Victim(lambda: os._exit(75))
    victim.send(signal.SIGTERM)
    assert victim.said() == "SIGTERM"
    assert victim.end() == (75, "")


@pytest.mark.parametrize("after", [stuck, lambda: time.sleep(60)], ids=["stuck in C", "in Python"])
@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        (signal.SIGTERM, signal.SIGTERM, 75),
        (signal.SIGUSR1, signal.SIGTERM, 75),
        (signal.SIGINT, signal.SIGINT, 130),
        (signal.SIGTERM, signal.SIGINT, 130),
    ],
)
def test_a_second_signal_leaves_within_a_second(first, second, code, after):
    victim = Victim(after)
    victim.send(first)
    assert victim.said() == first.name
    time.sleep(0.4)
    start = time.monotonic()
    victim.send(second)
    ended, words = victim.end()
    assert time.monotonic() - start < 1
    assert ended == code
    assert f"second signal ({second.name})" in words


def test_a_signal_that_a_launcher_passes_on_is_one_request():
    victim = Victim(lambda: (time.sleep(0.8), os._exit(3)))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        victim.send(number)
    assert victim.said() in ("SIGINT", "SIGTERM")  # the kernel may deliver them in another order
    assert victim.end() == (3, "")


def test_outside_the_main_thread_handlers_stay_and_a_request_works():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def work():
        with Stop() as stop:
            found.append(signal.getsignal(signal.SIGTERM))
            stop.request("callback")
            stop.request("later")
            found.append((stop.requested, stop.name))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before, (True, "callback")]


def test_a_worker_ends_on_sigterm_and_its_parent_is_not_asked():
    with Stop() as stop:
        for _ in range(2):
            worker = start_child(lambda: time.sleep(60))
            time.sleep(0.1)
            os.kill(worker, signal.SIGTERM)
            assert exit_code(worker) == -signal.SIGTERM
            time.sleep(0.4)  # longer than what counts as one request
        assert not stop.requested


def test_a_worker_leaves_ctrl_c_to_its_parent():
    with Stop() as stop:
        worker = start_child(lambda: time.sleep(0.5))
        time.sleep(0.1)
        os.kill(worker, signal.SIGINT)
        assert exit_code(worker) == 0
        assert not stop.requested


def test_a_block_left_by_a_forked_worker_does_not_touch_the_parent():
    with Stop() as stop:
        worker = start_child(lambda: stop.__exit__(None, None, None))
        assert exit_code(worker) == 0
        signal.raise_signal(signal.SIGUSR1)
        assert stop.requested
