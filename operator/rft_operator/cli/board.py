"""``rft watch``: runs as they move, in a table that lives or line by line, until they are over.

Invariant: a lost connection is shown and waited out, never taken for the end of a run; a run that is deleted is said to
be, and is no success.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Protocol

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.cli.figures import summary_line
from rft_operator.client.aio import AsyncClient
from rft_operator.client.manifests import shown
from rft_operator.client.watching import Change, Happened
from rft_operator.domain.draft import is_over
from rft_operator.errors import KubeError, RunNotFound, WaitTimeout

TICK_SECONDS = 0.5
QUIET_SECONDS = 15.0
Key = tuple[str, str]


class View(Protocol):
    """Where runs are shown."""

    def show(self, runs: dict[Key, ReasoningFinetune], *, now: int) -> None:
        """Show the runs as they are; called at every change and now and then."""

    def trouble(self, words: str) -> None:
        """Say that the API server does not answer; no words: it does again."""


@dataclass(slots=True)
class Lines:
    """A line whenever a run moves, and a sign of life when none does."""

    say: Callable[[str], None]
    _began: float = field(default_factory=time.monotonic)
    _last: dict[Key, tuple[str, float]] = field(default_factory=dict)

    def show(self, runs: dict[Key, ReasoningFinetune], *, now: int) -> None:
        """Say what is new."""
        passed = time.monotonic() - self._began
        for key, run in runs.items():
            version = run.metadata.resource_version
            before, said_at = self._last.get(key, ("", 0.0))
            if version != before or (passed - said_at > QUIET_SECONDS and not is_over(run.status)):
                which = f"{key[1]}: " if len(runs) > 1 else ""
                self.say(f"{passed:5.0f} s  {which}{summary_line(run, now=now)}")
                self._last[key] = (version, passed)

    def trouble(self, words: str) -> None:
        """Say it."""
        if words:
            self.say(f"{time.monotonic() - self._began:5.0f} s  {words}")


@dataclass(slots=True)
class Objects:
    """A JSON object on one line whenever a run changes, for programs."""

    say: Callable[[str], None]
    _last: dict[Key, str] = field(default_factory=dict)

    def show(self, runs: dict[Key, ReasoningFinetune], *, now: int) -> None:
        """Say what is new."""
        for key, run in runs.items():
            if self._last.get(key) != run.metadata.resource_version:
                self._last[key] = run.metadata.resource_version
                wire = run.model_dump(mode="json", by_alias=True, exclude_none=True)
                self.say(json.dumps({"now": now, **wire}, ensure_ascii=False))

    def trouble(self, words: str) -> None:
        """A program is told nothing: the stream goes on where it was."""


@dataclass(slots=True, kw_only=True)
class Board:
    """Follows runs and shows them."""

    client: AsyncClient
    view: View
    names: frozenset[str]
    """Empty: all runs of the watch, for ever."""
    runs: dict[Key, ReasoningFinetune] = field(default_factory=dict)
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _troubles: set[str] = field(default_factory=set)

    async def follow(self, *, timeout_seconds: float | None, all_namespaces: bool, label_selector: str | None) -> None:
        """Return when all named runs are over; raises WaitTimeout, RunNotFound and what no waiting mends."""
        only = next(iter(self.names)) if len(self.names) == 1 else None
        for name in self.names if only is None else ():
            await self.client.read(name)
        changes = self.client.watch(
            only, all_namespaces=all_namespaces, label_selector=label_selector, on_trouble=self._trouble
        )
        pump = asyncio.create_task(self._pump(changes))
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self._done():
                    await self._tick(pump)
        except TimeoutError as error:
            names = ", ".join(sorted(self.names)) or "the runs"
            msg = f"{names} did not end within {timeout_seconds:.0f} s; it goes on: rft watch {' '.join(self.names)}"
            raise WaitTimeout(msg) from error
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)

    async def _tick(self, pump: asyncio.Task[None]) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), TICK_SECONDS)
        self._news.clear()
        if pump.done():
            pump.result()
        if self.runs:
            self.view.show(self.runs, now=self.client.api.clock.now())

    async def _pump(self, changes: AsyncGenerator[Change, None]) -> None:
        try:
            async with contextlib.aclosing(changes) as stream:
                async for change in stream:
                    self._take(change)
        finally:
            self._news.set()

    def _take(self, change: Change) -> None:
        run = shown(change.raw).run
        if self.names and run.metadata.name not in self.names:
            return
        if change.happened is Happened.SEEN:
            self.runs[run.key] = run
        elif self.names:
            raise RunNotFound(f"{run.metadata.namespace}/{run.metadata.name} was deleted", status=404)
        else:
            self.runs.pop(run.key, None)
        if self._troubles:
            self._troubles.clear()
            self.view.trouble("")
        self._news.set()

    def _done(self) -> bool:
        seen = {name for _, name in self.runs}
        return bool(self.names) and seen >= self.names and all(is_over(run.status) for run in self.runs.values())

    def _trouble(self, error: KubeError) -> None:
        words = f"the API server does not answer, trying again: {error}"
        if words not in self._troubles:
            self._troubles.add(words)
            self.view.trouble(words)
