"""The work queue: keys, never events; a key never runs twice at once, and events while it runs mean one more run.

The semantics are those of client-go's workqueue (queue, dirty, processing). Delayed keys are one timer each: a sooner
wish replaces a later one, a later one is dropped; a run that succeeded says anew when it wants to be woken, so its old
timer goes. There are two lanes: what a user asked for and what a clock asked for (a stop line, above all) pass what
merely tells of progress, so a burst of new runs is answered at once; every tenth turn is the other lane's, so neither
starves. Invariant: no key sleeps longer than it asked for, and nothing is kept of a key that asks for nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

BATCH_SECONDS = 0.2
"""The Job controller, for the same reason, waits a second."""
ORDINARY_TURN = 10
"""Every so many turns an ordinary key goes first."""
BACKOFF_FIRST_SECONDS = 1.0
BACKOFF_MOST_SECONDS = 300.0


class WorkQueue(Generic[K]):
    """A de-duplicating queue of keys for many workers of one event loop."""

    def __init__(self) -> None:
        self._prompt: dict[K, None] = {}
        self._ordinary: dict[K, None] = {}
        self._ready = asyncio.Semaphore(0)
        self._turn = 0
        self._dirty: dict[K, float] = {}
        self._prompted: set[K] = set()
        self._processing: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._batches: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        """Return how many keys wait."""
        return len(self._dirty)

    def add(self, key: K, *, prompt: bool = False) -> None:
        """Ask for a run of ``key``, once, however often it is asked for; a ``prompt`` wish passes the ordinary ones."""
        batch = self._batches.pop(key, None)
        if batch is not None:
            batch.cancel()
        if prompt:
            self._prompted.add(key)
        if key not in self._dirty:
            self._dirty[key] = asyncio.get_running_loop().time()
            if key not in self._processing:
                self._put(key)
        elif prompt and key in self._ordinary:
            del self._ordinary[key]
            self._prompt[key] = None

    def _put(self, key: K) -> None:
        lane = self._prompt if key in self._prompted else self._ordinary
        lane[key] = None
        self._ready.release()

    def add_soon(self, key: K) -> None:
        """Ask for a run of ``key`` that may wait for others who ask for it: pods change several times at once."""
        if key not in self._dirty and key not in self._batches:
            self._batches[key] = asyncio.get_running_loop().call_later(BATCH_SECONDS, self.add, key)

    def add_after(self, key: K, delay_seconds: float) -> None:
        """Ask for a run of ``key`` in ``delay_seconds``, unless a sooner one is already asked for."""
        if delay_seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_seconds
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(due, self._fire, key)

    def _fire(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key, prompt=True)

    async def get(self) -> tuple[K, float]:
        """Wait for a key and take it; return it with the seconds it waited."""
        await self._ready.acquire()
        self._turn = (self._turn + 1) % ORDINARY_TURN
        lane = self._ordinary if self._turn == 0 and self._ordinary else self._prompt or self._ordinary
        key = next(iter(lane))
        del lane[key]
        self._prompted.discard(key)
        since = self._dirty.pop(key)
        self._processing.add(key)
        return key, asyncio.get_running_loop().time() - since

    def done(self, key: K) -> None:
        """Give a taken key back; if it was asked for meanwhile it is ready again."""
        self._processing.discard(key)
        if key in self._dirty:
            self._put(key)

    def failed(self, key: K, *, at_least_seconds: float = 0.0, wish_seconds: float | None = None) -> float:
        """Ask for a repeat after a failure, later each time; return the delay in seconds.

        However long a server asks to be left alone, a key never sleeps much longer than BACKOFF_MOST_SECONDS, and
        never past the time for which it asked itself (``wish_seconds``); at once is no such time.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay: float = min(BACKOFF_MOST_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(failures, 16))
        delay *= random.uniform(0.75, 1.25)  # noqa: S311 - jitter
        if wish_seconds is not None and wish_seconds > 0:
            delay = min(delay, max(BACKOFF_FIRST_SECONDS, wish_seconds))
        delay = max(delay, min(BACKOFF_MOST_SECONDS, at_least_seconds))
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: K) -> None:
        """Forget the failures of a key and its timer."""
        self._failures.pop(key, None)
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def close(self) -> None:
        """Cancel all timers."""
        for timers in (self._timers, self._batches):
            for timer in timers.values():
                timer.cancel()
            timers.clear()
