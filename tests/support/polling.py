"""Waiting in tests: poll until something holds, with a deadline, never for a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rft_operator.errors import NotFound

DEADLINE_SECONDS = 30.0
EVERY_SECONDS = 0.05

T = TypeVar("T")


async def eventually(
    look: Callable[[], Awaitable[T | None]],
    *,
    what: str,
    seconds: float = DEADLINE_SECONDS,
    every_seconds: float = EVERY_SECONDS,
) -> T:
    """Return the first truthy answer of ``look``; an object that is not there yet counts as none.

    Fails after ``seconds`` with the last answer, so that the report says how far it came.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            answer = await look()
        except NotFound:
            answer = None
        if answer:
            return answer
        if time.monotonic() > deadline:
            msg = f"waited {seconds:.0f} s for {what}; the last look gave {answer!r}"
            raise AssertionError(msg)
        await asyncio.sleep(every_seconds)
