"""All parts of a running operator, and the order in which they start and stop.

Start: price file, authority, probes; then watches; then, as the leader, a first sweep, and only then the workers: no
run is judged before everything of it was seen. Stop: workers end where they are (every step can be repeated), watches
end, the lease is released.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rft_operator.api import BUDGET_KIND
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.config import Config
from rft_operator.domain.facts import Key, Settings
from rft_operator.domain.observe import KIND
from rft_operator.domain.partial import read_partly
from rft_operator.errors import Conflict, KubeError, NamespacesChanged, Unavailable
from rft_operator.metrics import Metrics
from rft_operator.run_metrics import RunCollector
from rft_operator.runtime.budget_cache import BudgetCache, Change
from rft_operator.runtime.cache import Cache
from rft_operator.runtime.event_queue import EventQueue
from rft_operator.runtime.kube_client import KubeClient
from rft_operator.runtime.namespaces import LEFT_OUT, look
from rft_operator.runtime.price_file import PriceFile
from rft_operator.runtime.queue import WorkQueue
from rft_operator.runtime.reconciler import Reconciler, describe
from rft_operator.runtime.sweep import list_budgets, sweep
from rft_operator.runtime.team import TeamKeeper
from rft_operator.team_metrics import TeamCollector

log = logging.getLogger(__name__)

TICK_SECONDS = 5.0
LAG_SECONDS = 0.5


def is_wish(type_: str | None, raw: Mapping[str, Any]) -> bool:
    """Tell whether a resource's event is a user's wish that was not looked at yet, and no mere news of progress."""
    metadata = raw["metadata"]
    seen = (raw.get("status") or {}).get("observedGeneration")
    return type_ == "DELETED" or "deletionTimestamp" in metadata or metadata.get("generation") != seen


class Runtime:
    """The operator's state and its loops."""

    def __init__(self, config: Config, kube: KubeClient, metrics: Metrics, *, barred: Sequence[str] = ()) -> None:
        """``barred`` are namespaces that were to be watched, too, and cannot be read."""
        self.config = config
        self.barred = tuple(barred)
        self.kube = kube
        self.metrics = metrics
        self.cache = Cache()
        self.queue: WorkQueue[Key] = WorkQueue()
        self.events = EventQueue(kube, busy=lambda: len(self.queue) > config.workers)
        self.prices = PriceFile(config.prices_file, metrics)
        self.progress_ca: str | None = None
        self.elected = False
        """This replica holds the lease; it leads once its first sweep is done."""
        self.leading = False
        self.alive_at = time.monotonic()
        self.swept_at = time.monotonic()
        self.budgets = BudgetCache()
        self.team = TeamKeeper(
            kube=kube,
            cache=self.cache,
            budgets=self.budgets,
            now=kube.clock.now,
            wake=self.wake,
            emit=self.events.emit,
            metrics=metrics,
            refresh_seconds=config.progress_write_seconds,
        )
        self.reconciler = Reconciler(
            kube=kube,
            cache=self.cache,
            settings=self.settings,
            catalogue=lambda: self.prices.catalogue,
            now=kube.clock.now,
            metrics=metrics,
            emit=self.events.emit,
            budgets=self.budgets,
        )
        metrics.registry.register(TeamCollector(self.budgets, now=kube.clock.now, shown=lambda: self.leading))
        metrics.registry.register(
            RunCollector(
                resources=lambda: self._parsed() if self.leading else [],  # a standby would count every run twice
                nodes=self.cache.nodes,
                catalogue=lambda: self.prices.catalogue,
                now=kube.clock.now,
            )
        )

    def settings(self) -> Settings:
        """Return the settings that manifests and plans depend on."""
        config = self.config
        reachable = config.progress_url is not None and self.progress_ca is not None
        return Settings(
            trainer_image=config.trainer_image,
            image_pull_policy=config.image_pull_policy,
            progress_url=config.progress_url if reachable else None,
            progress_ca=self.progress_ca,
            progress_write_seconds=config.progress_write_seconds,
            restart_backoff_seconds=config.restart_backoff_seconds,
            node_lost_seconds=config.node_lost_seconds,
            expected_startup_seconds=config.expected_startup_seconds,
        )

    def _parsed(self) -> list[ReasoningFinetune]:
        runs = []
        for raw in self.cache.resources():
            try:
                runs.append(ReasoningFinetune.parse(dict(raw)))
            except ValidationError:
                found = read_partly(raw)  # its bill goes on being shown
                if found.ledger_known and found.resource.status.start_time is not None:
                    runs.append(found.resource)
        return runs

    def saw(self, kind: str, type_: str | None, raw: Mapping[str, Any]) -> None:
        """Take a watch event in."""
        self.metrics.watch_events.labels(kind).inc()
        obj = {**raw, "kind": kind}
        if kind == BUDGET_KIND:
            change = self.budgets.drop(obj) if type_ == "DELETED" else self.budgets.put(obj)
            self._budget_changed(change)
            return
        changed = self.cache.drop(obj) if type_ == "DELETED" else self.cache.put(obj)
        for key in changed if self.leading else ():
            if kind == KIND:
                self.queue.add(key, prompt=is_wish(type_, obj))
            else:
                self.queue.add_soon(key)
        if kind == KIND and self.leading:
            self.team.nudge(obj["metadata"]["namespace"])

    def _budget_changed(self, change: Change | None) -> None:
        if self.leading:
            self.team.take(change)

    def wake(self, key: Key) -> None:
        """Ask for a reconcile; a standby needs none: its first sweep as the leader looks at every run."""
        if self.leading:
            self.queue.add(key)

    async def lead(self) -> None:
        """Reconcile until cancelled: the first sweep, then workers and sweeps.

        Return when other namespaces can be read than before.
        """
        self.elected = True
        try:
            await self._first_sweep()
            self.leading = True
            for key in self.cache.known_keys():  # also what the watches told of while the sweep listed
                self.queue.add(key)
            self.team.nudge_all()
            self.metrics.leader.set(1)
            async with asyncio.TaskGroup() as group:
                for _ in range(self.config.workers):
                    group.create_task(self._work())
                group.create_task(self.team.run())
                group.create_task(self.events.run())
                group.create_task(self._sweep_again())
        except* NamespacesChanged as changed:
            log.warning("starting anew: %s", changed.exceptions[0])
        finally:
            self.elected = self.leading = False
            self.metrics.leader.set(0)
            self.queue.close()
            self.team.queue.close()

    async def _first_sweep(self) -> None:
        delay = 1.0
        while True:
            try:
                await self._check_namespaces()  # a standby may have looked long ago
                await self._sweep()
            except KubeError as error:
                log.warning("the first sweep failed, trying again", extra=describe(error))
                await asyncio.sleep(delay)
                delay = min(30.0, delay * 2)
            else:
                return

    async def _sweep(self) -> None:
        namespaces = self.config.watch_namespaces
        await sweep(self.kube, self.cache, self.queue, namespaces=namespaces)
        for change in await list_budgets(self.kube, self.budgets, namespaces=namespaces):
            self._budget_changed(change)
        self.team.nudge_all()
        self.swept_at = time.monotonic()
        self.metrics.swept_at.set(self.kube.clock.now())

    async def _sweep_again(self) -> None:
        while True:
            await asyncio.sleep(self.config.sweep_seconds * random.uniform(0.9, 1.1))  # noqa: S311 - jitter
            try:
                await self._check_namespaces()
                await self._sweep()
            except KubeError as error:
                log.warning("a sweep failed", extra=describe(error))

    async def _check_namespaces(self) -> None:
        """Raise NamespacesChanged when a namespace went, or one that was left out can be read: start anew, then."""
        found = await look(self.kube, (*self.config.watch_namespaces, *self.barred))
        for name in self.barred:
            log.error(LEFT_OUT, extra={"namespace": name})
        if found.barred != self.barred:
            raise NamespacesChanged(f"namespaces that cannot be read now: {', '.join(found.barred) or 'none'}")

    async def follow_prices(self) -> None:
        """Read the prices again when they change. So does a standby: it may lead at any time, and its series speak of
        them, too."""
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self.prices.reload():
                for key in self.cache.known_keys():
                    self.wake(key)

    async def _work(self) -> None:
        while True:
            key, waited = await self.queue.get()
            self.metrics.queue_seconds.observe(waited)
            self.metrics.queue_depth.set(len(self.queue))
            try:
                await self._reconcile(key)
            finally:
                self.queue.done(key)

    async def _reconcile(self, key: Key) -> None:
        with self.metrics.reconcile_seconds.time():
            try:
                again = await self.reconciler.reconcile(key)
            except Conflict as error:
                result = "conflict"
                await self._refresh(key)
                self.queue.failed(key, wish_seconds=error.look_again_seconds)
            except KubeError as error:
                result = "error"
                after = error.retry_after_seconds if isinstance(error, Unavailable) else None
                wish = error.look_again_seconds
                delay = self.queue.failed(key, at_least_seconds=after or 0.0, wish_seconds=wish)
                fields = {"namespace": key.namespace, "finetune": key.name, "again_in_seconds": round(delay, 1)}
                log.warning("reconcile failed", extra={**fields, **describe(error)})
            except Exception:
                # A run that meets a bug must not take the operator down, and every other run with it.
                result = "crash"
                self.queue.failed(key)
                log.exception("reconcile crashed", extra={"namespace": key.namespace, "finetune": key.name})
            else:
                result = "ok"
                self.queue.succeeded(key)
                if again is not None:
                    self.queue.add_after(key, again)
        self.metrics.reconciles.labels(result).inc()

    async def _refresh(self, key: Key) -> None:
        """Somebody else wrote first: read the resource again instead of waiting for the watch."""
        try:
            self.cache.put(await self.kube.get(kind="ReasoningFinetune", namespace=key.namespace, name=key.name))
        except KubeError:
            return

    async def watch_loop_lag(self) -> None:
        """Measure how late the event loop wakes up, and prove by it that the process lives."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self.alive_at = loop.time()
            self.metrics.loop_lag.set(max(0.0, self.alive_at - due))
            self.metrics.clock_offset.set(self.kube.clock.offset_seconds)
