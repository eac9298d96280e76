"""Events are written beside the reconciles: a slow API server must not hold a run up for what people read later.

As client-go's recorder does: one writer, in the order things happened, a few repeats, and what does not fit is dropped.
While runs wait for the API server, Events let them pass, but for a few a second.
Invariant: nothing depends on an Event; what must not be lost is in status before its Event is asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import NamedTuple

from rft_operator.errors import KubeError, Unavailable
from rft_operator.runtime.kube import JsonObject, Kube

log = logging.getLogger(__name__)

EVENTS_KEPT = 10_000
REPEAT_SECONDS = (1.0, 5.0, 15.0)
PATIENCE_SECONDS = 0.2
"""How long an Event lets waiting runs pass."""
FLUSH_SECONDS = 2.0
"""How long a stopping operator goes on writing."""


class _Event(NamedTuple):
    regarding: JsonObject
    type_: str
    reason: str
    message: str


class EventQueue:
    """Takes Events at once and writes them one after the other."""

    def __init__(self, kube: Kube, *, busy: Callable[[], bool] = lambda: False) -> None:
        """``busy`` tells whether runs wait."""
        self._kube = kube
        self._busy = busy
        self._waiting: asyncio.Queue[_Event] = asyncio.Queue(EVENTS_KEPT)

    async def emit(self, *, regarding: JsonObject, type_: str, reason: str, message: str) -> None:
        """Take an Event; it is written later, or dropped when too many wait."""
        meta = regarding["metadata"]
        slim = {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "metadata": {name: meta[name] for name in ("namespace", "name", "uid")},
        }
        try:
            self._waiting.put_nowait(_Event(slim, type_, reason, message))
        except asyncio.QueueFull:
            _dropped(_Event(slim, type_, reason, message), "too many wait")

    async def run(self) -> None:
        """Write until cancelled; then, but not for long, what was under way (nobody saw its answer) and what waits."""
        under_way: _Event | None = None
        try:
            while True:
                if self._busy():
                    await asyncio.sleep(PATIENCE_SECONDS)
                under_way = await self._waiting.get()
                await self._write(under_way)
                under_way = None
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_SECONDS):
                    if under_way is not None:
                        await self._write(under_way)
                    while not self._waiting.empty():
                        await self._write(self._waiting.get_nowait())

    async def _write(self, event: _Event) -> None:
        for delay in (*REPEAT_SECONDS, None):
            try:
                await self._kube.emit(
                    regarding=event.regarding, type_=event.type_, reason=event.reason, message=event.message
                )
            except Unavailable as error:
                if delay is None:
                    _dropped(event, str(error))
                    return
                await asyncio.sleep(delay)
            except KubeError as error:
                _dropped(event, str(error))
                return
            else:
                return


def _dropped(event: _Event, why: str) -> None:
    meta = event.regarding["metadata"]
    fields = {"namespace": meta["namespace"], "finetune": meta["name"], "reason": event.reason, "error": why}
    log.warning("an Event is dropped", extra=fields)
