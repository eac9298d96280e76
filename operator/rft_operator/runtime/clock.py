"""The API server's clock, read from the ``Date`` header of its answers.

Ledger timestamps are the API server's; so must be the ``now`` of open records (docs/metering.md M9).
Invariant: the reading never runs ahead of the API server by more than it can know.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

HEADER_RESOLUTION_SECONDS = 1.0


class ServerClock:
    """An estimate of the API server's time: bounds on the offset, narrowed by every answer.

    A ``Date`` of second D that arrives at the local time L says that the server's time then lies in [D, D+1) minus
    the travel; each answer narrows the interval, and one that contradicts it (a stepped clock) starts it anew.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._monotonic = monotonic
        self._wall = wall
        offset = wall() - monotonic()
        self._low, self._high = offset, offset
        self._seen = False

    def observe(self, date: str, *, sent: float, received: float) -> None:
        """Take a ``Date`` header into account; ``sent`` and ``received`` are monotonic seconds."""
        try:
            second = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return
        low, high = second - received, second + HEADER_RESOLUTION_SECONDS - sent
        if self._seen and low <= self._high and high >= self._low:
            self._low, self._high = max(self._low, low), min(self._high, high)
        else:
            self._low, self._high, self._seen = low, high, True

    @property
    def offset_seconds(self) -> float:
        """Return how far the API server's clock is ahead of this machine's."""
        return self._monotonic() + (self._low + self._high) / 2 - self._wall()

    def now(self) -> int:
        """Return the API server's time in whole seconds since the epoch."""
        return int(self._monotonic() + self._low)
