"""The logs of all ranks of a run as one stream: in order of time, over attempts, breaks and pods that come and go.

Invariant: what was written before the call is told in the order of its timestamps; what comes while it is followed is
told within a moment, ordered among the lines of that moment. A pod whose log cannot be read is named, not left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from rft_operator.api import KIND
from rft_operator.client.api import UserApi
from rft_operator.client.log_lines import Cursor, LogLine, LogQuery, Origin
from rft_operator.client.manifests import parsed
from rft_operator.client.watching import Happened, Watch
from rft_operator.domain.draft import is_over
from rft_operator.errors import KubeError, NotFound, Rejected, Unavailable

MOMENT_SECONDS = 0.25
"""Lines that arrive within so long are ordered among themselves."""
RETRY_SECONDS = 1.0
TRIES_AT_THE_END = 5
"""The log of a pod that has ended is asked for so often: its node may not answer any more."""
ENDED = ("Succeeded", "Failed")


@dataclass(slots=True, kw_only=True)
class LogReader:
    """The logs of one run."""

    api: UserApi
    namespace: str
    name: str
    query: LogQuery
    on_note: Callable[[str], None] = lambda _: None
    """Told once what cannot be read, and why."""
    _cursors: dict[str, Cursor] = field(default_factory=dict)
    """By the pod's uid."""
    _noted: set[str] = field(default_factory=set)

    async def written(self, *, quiet: bool = False) -> AsyncGenerator[LogLine, None]:
        """Yield all lines that are there, in order of time; ``quiet`` leaves pods without a log to be tried again."""
        streams = [self._read(self.cursor(each), quiet=quiet) for each in await self.origins()]
        async for line in _merged(streams):
            yield line

    async def followed(self) -> AsyncGenerator[LogLine, None]:
        """Yield all lines that are there, then those to come, until the run is over."""
        async for line in self.written(quiet=True):
            yield line
        queue: asyncio.Queue[LogLine] = asyncio.Queue(maxsize=10_000)
        work = asyncio.create_task(_Follower(self, queue).run())
        try:
            while not (work.done() and queue.empty()):
                for line in await _moment(queue, work):
                    yield line
            work.result()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def origins(self) -> list[Origin]:
        """Return the pods that there are now."""
        pods, _ = await self.api.listing(kind="Pod", namespace=self.namespace, selectors=self.selectors)
        origins = [each for each in map(Origin.of, pods) if self.query.takes(each)]
        return sorted(origins, key=lambda each: each.order)

    @property
    def selectors(self) -> dict[str, str]:
        """Return what selects the pods in a list or a watch."""
        return {"labelSelector": self.query.selector(self.name)}

    def cursor(self, origin: Origin) -> Cursor:
        """Return how far a pod's log was read."""
        return self._cursors.setdefault(origin.uid, Cursor(origin))

    def note(self, origin: Origin, error: KubeError) -> None:
        """Say once why a pod's log cannot be read."""
        words = f"{origin.pod}: {str(error).partition(': ')[2] or error}"
        if words not in self._noted:
            self._noted.add(words)
            self.on_note(words)

    async def _read(self, cursor: Cursor, *, quiet: bool) -> AsyncGenerator[LogLine, None]:
        try:
            async for line in self.lines(cursor, follow=False):
                yield line
        except KubeError as error:
            if error.status == 403:
                raise
            if not quiet:
                self.note(cursor.origin, error)

    async def lines(self, cursor: Cursor, *, follow: bool) -> AsyncGenerator[LogLine, None]:
        """Yield the lines of one pod that were not read before; raises KubeError."""
        query = cursor.query(self.query, follow=follow)
        stream = self.api.log(namespace=self.namespace, pod=cursor.origin.pod, query=query)
        async with contextlib.aclosing(stream) as raw_lines:
            async for raw in raw_lines:
                line = cursor.take(raw)
                if line is not None:
                    yield line

    async def is_finished(self) -> bool:
        """Return whether nothing more can come: the run, or the one attempt that is asked for, is over."""
        try:
            run = parsed(await self.api.get(kind=KIND, namespace=self.namespace, name=self.name))
        except NotFound:
            return True
        except Unavailable:
            return False
        wanted = (self.query.stage, self.query.attempt)
        asked = [each for each in run.status.attempts if (each.stage, each.number) == wanted]
        return is_over(run.status) or any(each.end_time is not None for each in asked)


@dataclass(slots=True)
class _Follower:
    """Follows every pod of a run, from the moment it is seen."""

    reader: LogReader
    queue: asyncio.Queue[LogLine]
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)
    """Uids of pods that will write no more."""

    async def run(self) -> None:
        """Work until the run is over and every line is told; raises KubeError."""
        try:
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(self._watch(group))
                while not await self.reader.is_finished():  # noqa: ASYNC110 - the API server is asked
                    await asyncio.sleep(RETRY_SECONDS)
                for origin in await self._last_origins():
                    self._begin(origin, group)
                await asyncio.gather(*self._running.values())
                watching.cancel()
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from errors

    async def _last_origins(self) -> list[Origin]:
        """Return all pods: the watch may not have seen the last ones yet."""
        while True:
            try:
                return await self.reader.origins()
            except Unavailable as error:
                if error.status == 401:
                    raise
                await asyncio.sleep(RETRY_SECONDS)

    async def _watch(self, group: asyncio.TaskGroup) -> None:
        reader = self.reader
        watch = Watch(api=reader.api, namespace=reader.namespace, selectors=reader.selectors, kind="Pod")
        async with contextlib.aclosing(watch.changes()) as changes:
            async for change in changes:
                origin = Origin.of(change.raw)
                if change.happened is Happened.DELETED or _phase(change.raw) in ENDED:
                    self._ended.add(origin.uid)
                if reader.query.takes(origin) and change.happened is Happened.SEEN:
                    self._begin(origin, group)

    def _begin(self, origin: Origin, group: asyncio.TaskGroup) -> None:
        if origin.uid not in self._running:
            self._running[origin.uid] = group.create_task(self._follow(origin))

    async def _follow(self, origin: Origin) -> None:
        """Tell a pod's lines until it has ended; a break, or a container that waits, is tried again."""
        cursor, tries_left = self.reader.cursor(origin), TRIES_AT_THE_END
        while True:
            was_ended = origin.uid in self._ended
            try:
                async for line in self.reader.lines(cursor, follow=not was_ended):
                    await self.queue.put(line)
                if was_ended:
                    return
            except NotFound:
                return
            except KubeError as error:
                if error.status in (401, 403):
                    raise
                tries_left -= was_ended
                if not tries_left or (was_ended and isinstance(error, Rejected)):  # its node is lost, or it never ran
                    self.reader.note(origin, error)
                    return
            await asyncio.sleep(RETRY_SECONDS)


def _phase(raw: Any) -> str:
    return str((raw.get("status") or {}).get("phase", ""))


async def _merged(streams: list[AsyncGenerator[LogLine, None]]) -> AsyncIterator[LogLine]:
    """Merge streams that are each in order; at equal times the earlier stream comes first."""
    async with contextlib.AsyncExitStack() as stack:
        for stream in streams:
            await stack.enter_async_context(contextlib.aclosing(stream))
        # All have answered before one that failed is told: a stream that is still being read cannot be closed.
        firsts = await asyncio.gather(*(anext(stream, None) for stream in streams), return_exceptions=True)
        heap = []
        for index, line in enumerate(firsts):
            if isinstance(line, BaseException):
                raise line
            if line is not None:
                heap.append((line.nanos, index, line))
        heapq.heapify(heap)
        while heap:
            _, index, line = heap[0]
            yield line
            following = await anext(streams[index], None)
            if following is None:
                heapq.heappop(heap)
            else:
                heapq.heapreplace(heap, (following.nanos, index, following))


async def _moment(queue: asyncio.Queue[LogLine], work: asyncio.Task[None]) -> list[LogLine]:
    """Return the lines that arrive within a moment of the first, in order; none if the work ends."""
    getting = asyncio.create_task(queue.get())
    await asyncio.wait({getting, work}, return_when=asyncio.FIRST_COMPLETED)
    if not getting.done():
        getting.cancel()
        await asyncio.gather(getting, return_exceptions=True)
        return []
    lines = [getting.result()]
    if not work.done():
        await asyncio.sleep(MOMENT_SECONDS)
    while not queue.empty():
        lines.append(queue.get_nowait())
    return sorted(lines, key=lambda each: each.nanos)
