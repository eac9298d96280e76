"""What runs become, as a stream that outlives connections, time-outs and compacted versions.

Invariant: no change of state is lost: after a break the stream goes on where it was, and where the server no longer
knows that (410) everything is listed again and what differs is told, deletions included.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from rft_operator.api import KIND
from rft_operator.client.api import UserApi
from rft_operator.errors import KubeError, NotFound, Unavailable

GONE = 410
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0


class Happened(StrEnum):
    """What became of an object."""

    SEEN = "seen"
    """It is there, or has changed."""
    DELETED = "deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An object at a moment."""

    happened: Happened
    raw: Mapping[str, Any]


@dataclass(slots=True, kw_only=True)
class Watch:
    """A resilient watch of one kind."""

    api: UserApi
    namespace: str | None
    selectors: Mapping[str, str]
    on_trouble: Callable[[KubeError], None] = lambda _: None
    """Told of each break that is waited out."""
    kind: str = KIND
    must_exist: bool = False
    """Nothing at the first look is an error, not something to wait for."""
    _known: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """By uid."""
    _version: str = ""
    _listed: bool = False
    _pause: float = FIRST_PAUSE_SECONDS

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Yield what is there, then every change; raises what waiting cannot mend, and any error of the first look."""
        while True:
            try:
                if not self._version:
                    for change in await self._list():
                        yield change
                async with contextlib.aclosing(self._events()) as events:
                    async for change in events:
                        yield change
            except KubeError as error:
                if error.status == GONE:
                    self._version = ""
                    continue
                if not self._listed or not isinstance(error, Unavailable) or error.status == 401:
                    raise
                self.on_trouble(error)
                await asyncio.sleep(max(self._pause, error.retry_after_seconds or 0))
                self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            else:  # the server ends every watch in time; one that ends all at once is not asked in a tight loop
                await asyncio.sleep(FIRST_PAUSE_SECONDS)

    async def _list(self) -> list[Change]:
        items, self._version = await self.api.listing(
            kind=self.kind, namespace=self.namespace, selectors=self.selectors
        )
        if self.must_exist and not self._listed and not items:
            raise NotFound(f"no {self.kind} with {dict(self.selectors)}", status=404)
        now = {str(each["metadata"]["uid"]): each for each in items}
        gone = [each for uid, each in self._known.items() if uid not in now]
        new = [each for uid, each in now.items() if _version_of(each) != _version_of(self._known.get(uid))]
        self._known, self._listed = dict(now), True
        self._pause = FIRST_PAUSE_SECONDS
        return [
            *(Change(happened=Happened.DELETED, raw=each) for each in gone),
            *(Change(happened=Happened.SEEN, raw=each) for each in new),
        ]

    async def _events(self) -> AsyncGenerator[Change, None]:
        stream = self.api.watch(
            kind=self.kind, namespace=self.namespace, version=self._version, selectors=self.selectors
        )
        async with contextlib.aclosing(stream) as events:
            async for event in events:
                type_, raw = event.get("type"), event.get("object") or {}
                if type_ == "ERROR":
                    status = int(raw.get("code") or 0)
                    msg = f"watch {self.kind}: {status}: {raw.get('message')}"
                    raise KubeError(msg, status=GONE) if status == GONE else Unavailable(msg, status=status)
                self._version = str(raw["metadata"]["resourceVersion"])
                self._pause = FIRST_PAUSE_SECONDS
                if type_ == "BOOKMARK":
                    continue
                uid = str(raw["metadata"]["uid"])
                if type_ == "DELETED":
                    self._known.pop(uid, None)
                    yield Change(happened=Happened.DELETED, raw=raw)
                else:
                    self._known[uid] = raw
                    yield Change(happened=Happened.SEEN, raw=raw)


def _version_of(raw: Mapping[str, Any] | None) -> str | None:
    return None if raw is None else str(raw["metadata"]["resourceVersion"])
