"""An evaluation ends when its time is up, also while it waits for an engine, and never while it writes an answer."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from rft_trainer.evaluate.sampler import Completion, CompletionRequest
from rft_trainer.evaluate.stopping import Stop, StoppableSampler, StoppedError
from support.scripted_engine import ScriptedSampler, complete

REQUEST = CompletionRequest(prompt="q", max_tokens=1)


class SlowEngine(ScriptedSampler):
    """Answers after an event that never comes."""

    def __init__(self, *, started: threading.Event) -> None:
        super().__init__({})
        self._started, self._never = started, threading.Event()

    def complete(self, requests: object) -> list[Completion]:
        self._started.set()
        self._never.wait(60)
        raise AssertionError("nobody stopped it")


def test_engine_is_left_in_the_middle_of_its_work_when_a_stop_is_asked_for(tmp_path: Path) -> None:
    started, stop_file = threading.Event(), tmp_path / "stop"
    stop = Stop(stop_file=stop_file, poll_seconds=0.01)

    def ask() -> None:
        started.wait(30)
        stop_file.write_text("SIGTERM")

    asker = threading.Thread(target=ask)
    asker.start()
    with stop.watching(), pytest.raises(StoppedError) as error:
        complete(StoppableSampler(SlowEngine(started=started), stop), [REQUEST])
    asker.join()
    assert error.value.reason == "asked"


def test_engine_is_left_when_the_time_is_up() -> None:
    started = threading.Event()
    stop = Stop(deadline=1.0, clock=lambda: 2.0 if started.is_set() else 0.0, poll_seconds=0.01)
    with stop.watching(), pytest.raises(StoppedError) as error:
        complete(StoppableSampler(SlowEngine(started=started), stop), [REQUEST])
    assert error.value.reason == "deadline"


def test_work_between_two_requests_is_not_broken_off() -> None:
    due = threading.Event()
    looked = threading.Event()

    def clock() -> float:
        if due.is_set():
            looked.set()
        return 2.0 if due.is_set() else 0.0

    stop = Stop(deadline=1.0, clock=clock, poll_seconds=0.01)
    with stop.watching():
        due.set()
        signal.raise_signal(signal.SIGUSR1)  # a wake-up that came too late
        assert looked.is_set()
        with pytest.raises(StoppedError):
            complete(StoppableSampler(ScriptedSampler({"q": ["a"]}), stop), [REQUEST])


def test_signal_handler_is_the_former_one_when_nobody_watches_any_more() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    stop = Stop(deadline=time.monotonic() + 60)
    with stop.watching():
        stop.check()
    assert signal.getsignal(signal.SIGUSR1) == before
