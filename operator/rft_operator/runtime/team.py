"""The one writer of team budgets: settles all budgets of a namespace together, each time a run or a budget changes.

Invariant: a budget is written under the resourceVersion that was read, so two writers never promise the same dollar;
a look can be repeated at any time, also after a crash between the writes of two budgets. A namespace without budgets
costs nothing, an idle one no write.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pydantic import ValidationError

from rft_operator.api import BUDGET_KIND, KIND
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.team import FinetuneBudget
from rft_operator.domain.actions import Emit
from rft_operator.domain.facts import Key
from rft_operator.domain.partial import read_partly
from rft_operator.domain.plan import CONTROLLER_NAME
from rft_operator.domain.team import rolls_at, settle
from rft_operator.domain.team_run import TeamRun, team_run, team_run_partly
from rft_operator.domain.team_status import Statement, metered_at, statement, without_news
from rft_operator.errors import Conflict, KubeError, NotFound, Unavailable
from rft_operator.metrics import Metrics
from rft_operator.runtime.budget_cache import BudgetCache, Change
from rft_operator.runtime.cache import Cache
from rft_operator.runtime.kube import JsonObject, Kube
from rft_operator.runtime.queue import WorkQueue

log = logging.getLogger(__name__)

Emitter = Callable[..., Awaitable[None]]


class TeamKeeper:
    """Keeps the budgets of all namespaces."""

    def __init__(
        self,
        *,
        kube: Kube,
        cache: Cache,
        budgets: BudgetCache,
        now: Callable[[], int],
        wake: Callable[[Key], None],
        emit: Emitter,
        metrics: Metrics,
        refresh_seconds: int,
    ) -> None:
        """``wake`` asks for a look at a run; sums that only grow are written once in ``refresh_seconds``."""
        self.queue: WorkQueue[str] = WorkQueue()
        self._kube = kube
        self._cache = cache
        self._budgets = budgets
        self._now = now
        self._wake = wake
        self._emit = emit
        self._metrics = metrics
        self._refresh_seconds = refresh_seconds
        self._runs: dict[Key, tuple[tuple[str, str], TeamRun | None]] = {}
        """By key: uid and resourceVersion, and what it says; None for a run of another controller."""
        self._told: set[tuple[str, str]] = set()
        """Namespace and name of budgets of which it was said that they cannot be read."""

    # -- what is asked for ------------------------------------------------------------------------------------

    def nudge(self, namespace: str) -> None:
        """Ask for a look at a namespace in which a run changed."""
        if namespace in self._budgets.namespaces():
            self.queue.add_soon(namespace)

    def nudge_all(self) -> None:
        """Ask for a look at every namespace that has a budget."""
        for namespace in self._budgets.namespaces():
            self.queue.add(namespace)

    def take(self, change: Change | None) -> None:
        """Wake whom a changed budget concerns."""
        if change is None:
            return
        self.queue.add(change.namespace)
        for key in self._concerned(change):
            self._wake(key)

    def _concerned(self, change: Change) -> list[Key]:
        """Return the runs whose terms a change may touch: all that are not over, and those whose record changed."""
        before, after = change.before, change.after
        if before is not None and after is not None and _terms(before) == _terms(after):
            return []
        touched = _changed_records(before, after)
        every = before is None or after is None or before.status.window_start != after.status.window_start
        found = []
        for key in self._cache.runs_in(change.namespace):
            run = self._runs[key][1] if key in self._runs else None
            if every or run is None or not run.final or run.uid in touched:
                found.append(key)
        return found

    # -- the loop ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Settle until cancelled."""
        while True:
            namespace, _ = await self.queue.get()
            try:
                await self._attempt(namespace)
            finally:
                self.queue.done(namespace)

    async def _attempt(self, namespace: str) -> None:
        fields = {"namespace": namespace}
        try:
            again = await self.settle(namespace)
        except Conflict:
            result = "conflict"
            await self._read_again(namespace)
            self.queue.failed(namespace)
        except KubeError as error:
            result = "error"
            after = error.retry_after_seconds or 0.0
            self.queue.failed(namespace, at_least_seconds=after)
            log.warning("team budgets cannot be settled", extra={**fields, "error": f"{error}"})
        except Exception:
            result = "crash"
            self.queue.failed(namespace)
            log.exception("settling team budgets crashed", extra=fields)
        else:
            result = "ok"
            self.queue.succeeded(namespace)
            if again is not None:
                self.queue.add_after(namespace, again)
        self._metrics.reconciles.labels(result).inc()

    async def _read_again(self, namespace: str) -> None:
        """Somebody else wrote first: read the budgets instead of waiting for the watch."""
        try:
            for raw in await self._kube.list(kind=BUDGET_KIND, namespace=namespace):
                self.take(self._budgets.put(raw))
        except KubeError:
            return

    async def settle(self, namespace: str) -> float | None:
        """Settle the budgets of a namespace once; return in how many seconds to look again, or None."""
        await self._tell_unreadable(namespace)
        budgets = self._budgets.of(namespace)
        if not budgets:
            for key in [key for key in self._runs if key.namespace == namespace]:
                del self._runs[key]
            return None
        await self._look_for_lost_runs(namespace, budgets)
        runs = self._team(namespace)
        now = self._now()
        due = [at for budget in budgets if (at := rolls_at(budget, now)) is not None]
        books = settle(budgets, [run for run in runs.values() if run is not None], now=now)
        statements = [(book.budget, statement(book, now=now)) for book in books]
        later = [self._not_before(budget, new, now=now) for budget, new in statements]
        due += [at for at in later if at is not None]
        writes = [it for it, at in zip(statements, later, strict=True) if it[1].changed and at is None]
        self._expect(namespace, budgets, writes)
        for budget, new in writes:
            await self._write(budget, new)
        return max(0, min(due) - now) if due else None

    async def _tell_unreadable(self, namespace: str) -> None:
        """Say once of each budget that cannot be read that it cannot."""
        names = self._budgets.unreadable(namespace)
        self._told = {place for place in self._told if place[0] != namespace or place[1] in names}
        for name in names:
            if (namespace, name) not in self._told:
                self._told.add((namespace, name))
                await self._announce(namespace, name, Emit(type="Warning", reason="Unreadable", message=UNREADABLE))

    def _not_before(self, budget: FinetuneBudget, new: Statement, *, now: int) -> int | None:
        """Return when a budget's status is due, if it is to be written, and not yet."""
        due = metered_at(budget.status) + self._refresh_seconds
        return due if new.changed and not new.is_news and now < due else None

    def _expect(
        self, namespace: str, budgets: Sequence[FinetuneBudget], writes: Sequence[tuple[FinetuneBudget, Statement]]
    ) -> None:
        """Let no run count on what is about to be taken from it; wake all where what failed to be taken stays."""
        coming = {budget.metadata.name: new.status for budget, new in writes}
        names = [each.metadata.name for each in budgets]
        failed = [name for name in names if self._budgets.expect(namespace, name, coming.get(name))]
        if not coming.keys() >= set(failed):
            for key in self._cache.runs_in(namespace):
                self._wake(key)

    async def _write(self, budget: FinetuneBudget, new: Statement) -> None:
        """Write a budget's status."""
        meta = budget.metadata
        try:
            written = await self._kube.apply_status(
                kind=BUDGET_KIND,
                namespace=meta.namespace,
                name=meta.name,
                status=new.status.to_wire(),
                resource_version=meta.resource_version,
            )
        except NotFound:
            return
        self.take(self._budgets.put({**written, "kind": BUDGET_KIND}))
        for event in new.events:
            await self._announce(meta.namespace, meta.name, event)

    async def _announce(self, namespace: str, name: str, event: Emit) -> None:
        log.info("%s: %s", event.reason, event.message, extra={"namespace": namespace, "budget": name})
        regarding = self._budgets.raw(namespace, name)
        if regarding is not None:
            await self._emit(regarding=regarding, type_=event.type, reason=event.reason, message=event.message)

    # -- runs -------------------------------------------------------------------------------------------------

    def _team(self, namespace: str) -> Mapping[Key, TeamRun | None]:
        """Return every run of a namespace, read anew where it changed."""
        versions = self._cache.runs_in(namespace)
        for key in [key for key in self._runs if key.namespace == namespace and key not in versions]:
            del self._runs[key]
        for key, version in versions.items():
            known = self._runs.get(key)
            if known is None or known[0] != version:
                self._runs[key] = (version, _digest(self._cache.resource(key)))
        return {key: self._runs[key][1] for key in versions}

    async def _look_for_lost_runs(self, namespace: str, budgets: Sequence[FinetuneBudget]) -> None:
        """Ask the API server for runs that have a record and are not known: only one that is gone is booked."""
        known = {uid for uid, _ in self._cache.runs_in(namespace).values()}
        lost = {each.uid: each.name for budget in budgets for each in budget.status.reservations}
        for uid in lost.keys() - known:
            try:
                raw = await self._kube.get(kind=KIND, namespace=namespace, name=lost[uid])
            except NotFound:
                continue
            if raw["metadata"]["uid"] != uid:
                continue
            found = self._cache.put({**raw, "kind": KIND})
            for key in found:
                self._wake(key)
            if not found:
                msg = f"run {namespace}/{lost[uid]} was seen to go, and is still there"
                raise Unavailable(msg)


UNREADABLE = "This team budget does not fit the operator's schema, so no run starts beside it; apply the CRD again."


def _digest(raw: JsonObject | None) -> TeamRun | None:
    if raw is None:
        return None
    try:
        resource = ReasoningFinetune.parse(dict(raw))
        run = team_run(resource)
    except ValidationError:
        found = read_partly(raw)
        resource, run = found.resource, team_run_partly(found)
    return run if resource.spec.managed_by in (None, CONTROLLER_NAME) else None


def _terms(budget: FinetuneBudget) -> object:
    """Return all of a budget that a run reads."""
    return budget.spec, without_news(budget.status)


def _changed_records(before: FinetuneBudget | None, after: FinetuneBudget | None) -> set[str]:
    """Return the uids of runs whose record is another one now."""
    old = {each.uid: each for each in without_news(before.status).reservations} if before is not None else {}
    new = {each.uid: each for each in without_news(after.status).reservations} if after is not None else {}
    return {uid for uid in old.keys() | new.keys() if old.get(uid) != new.get(uid)}
