"""Ends an evaluation when its time is up or when the pod is asked to stop, also in the middle of a long answer.

Invariant: only waiting for an engine is interrupted, never the writing of an answer, so what is on the volume is whole.
A watcher looks at clock and stop file; it wakes the main thread by a signal, for engines wait in C code or in locks.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Literal

from rft_trainer.evaluate.sampler import AroundSampler, Completion, CompletionRequest, Sampler, Window

POLL_SECONDS = 0.25
Reason = Literal["deadline", "asked"]


class StoppedError(Exception):
    """The evaluation must end now, with what it has."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Stop:
    """Knows when an evaluation has to end."""

    def __init__(
        self,
        *,
        deadline: float = float("inf"),
        stop_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._deadline, self._stop_file, self._clock, self._poll_seconds = deadline, stop_file, clock, poll_seconds
        self._waiting = False

    @property
    def reason(self) -> Reason | None:
        """Why to end; None while there is no reason."""
        if self._stop_file is not None and self._stop_file.exists():
            return "asked"
        return "deadline" if self._clock() >= self._deadline else None

    def check(self) -> None:
        """Raise :class:`StoppedError` when there is a reason to end."""
        reason = self.reason
        if reason is not None:
            raise StoppedError(reason)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What happens inside may be broken off; only within :meth:`watching`, on the main thread."""
        self.check()
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look out for a reason until the block ends; outside of the main thread only between two requests."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        done, main = threading.Event(), threading.get_ident()

        def watch() -> None:
            while not done.wait(self._poll_seconds):
                if self._waiting and self.reason is not None:
                    signal.pthread_kill(main, signal.SIGUSR1)

        former = signal.signal(signal.SIGUSR1, self._wake)
        thread = threading.Thread(target=watch, name="stop-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            signal.signal(signal.SIGUSR1, former)

    def _wake(self, _number: int, _frame: FrameType | None) -> None:
        reason = self.reason
        if self._waiting and reason is not None:
            self._waiting = False
            raise StoppedError(reason)


class StoppableSampler(AroundSampler):
    """An engine whose work may be broken off, and which begins nothing when there is no more time for it."""

    def __init__(self, sampler: Sampler, stop: Stop) -> None:
        super().__init__(sampler)
        self._stop = stop

    def window(self) -> Window:
        """The engine's, for as long as there is time."""
        return _StoppableWindow(self._sampler.window(), self._stop)


class _StoppableWindow:
    def __init__(self, window: Window, stop: Stop) -> None:
        self._window, self._stop = window, stop

    def put(self, ticket: int, request: CompletionRequest) -> None:
        self._stop.check()
        self._window.put(ticket, request)

    def get(self) -> Sequence[tuple[int, Completion]]:
        with self._stop.waiting():
            return self._window.get()

    def close(self) -> None:
        self._window.close()
