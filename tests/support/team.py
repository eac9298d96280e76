"""Team budgets for tests: as users apply them, as the core takes them, and a fake cluster of several runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rft_operator.api import BUDGET_KIND
from rft_operator.api.ledger import Ledger, LedgerEntry, LedgerTotal
from rft_operator.api.team import FinetuneBudget, Reservation, TeamStatus
from rft_operator.domain.facts import Key
from rft_operator.domain.money import MICRO
from rft_operator.domain.team import Book, settle
from rft_operator.domain.team_run import TeamRun
from rft_operator.domain.team_status import Statement, statement
from rft_operator.domain.timestamps import rfc3339
from rft_operator.errors import KubeError
from rft_operator.runtime.budget_cache import BudgetCache
from rft_operator.runtime.reconciler import Reconciler
from rft_operator.runtime.sweep import KINDS
from rft_operator.runtime.team import TeamKeeper
from support.builders import NAMESPACE, resource
from support.stage import START, World

WATCHED = {*KINDS, BUDGET_KIND, "Node"}
DOLLAR = MICRO
GPU_SECOND = 1_000
"""Micro-dollars of a GPU-second at the $3.60 per GPU-hour of ``builders.SPEC``."""


def team_budget(name: str = "team", *, namespace: str = NAMESPACE, **spec: Any) -> dict[str, Any]:
    """Return a FinetuneBudget as a user applies it."""
    return {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": BUDGET_KIND,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"limitUSD": 100, **spec},
    }


def budget(
    name: str = "team", *, created: int = START, generation: int = 1, status: TeamStatus | None = None, **spec: Any
) -> FinetuneBudget:
    """Return a budget as it is read."""
    raw = team_budget(name, **spec)
    meta = {"uid": f"uid-{name}", "resourceVersion": "1", "generation": generation}
    raw["metadata"] |= {**meta, "creationTimestamp": rfc3339(created)}
    found = FinetuneBudget.parse(raw)
    return found if status is None else found.model_copy(update={"status": status})


def entry(uid: str = "pod", *, start: int, end: int | None = None, gpus: int = 1) -> LedgerEntry:
    """Return a ledger entry at $3.60 per GPU-hour."""
    return LedgerEntry(
        uid=uid,
        pod=uid,
        stage="train",
        attempt=1,
        node="node-1",
        gpus=gpus,
        micro_usd_per_gpu_hour=3_600 * GPU_SECOND,
        price_source="spec",
        start_time=rfc3339(start),
        end_time=rfc3339(end) if end is not None else None,
        end_basis="phaseWritten" if end is not None else None,
    )


def folded(gpu_seconds: int, *, until: int) -> Ledger:
    """Return a ledger in which all is folded."""
    total = LedgerTotal(stage="train", gpu_seconds=gpu_seconds, amount=str(gpu_seconds * 3_600 * GPU_SECOND))
    return Ledger(totals=[total], folded_until=rfc3339(until))


def member(name: str = "run", *, dollars: int = 10, ledger: Ledger | None = None, **change: Any) -> TeamRun:
    """Return a run that was let in and holds nothing."""
    values: dict[str, Any] = {
        "uid": f"uid-{name}",
        "name": name,
        "labels": {},
        "created_at": START,
        "generation": 1,
        "limit_micro_usd": dollars * DOLLAR,
        "ledger": ledger or Ledger(),
        "metered_until": None,
        "accepted": True,
        "asks": False,
        "started": ledger is not None,
        "final": False,
        "at_rest": False,
        "deleting": False,
    }
    return TeamRun(**{**values, **change})


def asking(name: str = "run", *, dollars: int = 10, **change: Any) -> TeamRun:
    """Return a run that waits to be let in."""
    values = {"accepted": False, "asks": True, "at_rest": True, **change}
    return member(name, dollars=dollars, **values)


def burning(start: int = START, end: int | None = None) -> Ledger:
    """A GPU that costs a thousandth dollar a second."""
    return Ledger(open=[entry(start=start)]) if end is None else Ledger(uncounted=[entry(start=start, end=end)])


def shown(found: Reservation | None) -> tuple[int, int, int] | None:
    """Micro-dollars reserved, spent, spent before."""
    if found is None:
        return None
    return found.reserved_micro_usd, found.spent_micro_usd, found.spent_before_micro_usd


class Ring:
    """Budgets and what is on record of them, settled again and again."""

    def __init__(self, *budgets: FinetuneBudget) -> None:
        self.budgets = list(budgets)
        self.books: list[Book] = []
        self.statements: list[Statement] = []

    def settle(self, *runs: TeamRun, now: int = START) -> Ring:
        """Settle once, after every run was looked at, and put the result on record."""
        runs = tuple(replace(run, metered_until=now) for run in runs)
        self.books = settle(self.budgets, runs, now=now)
        self.statements = [statement(book, now=now) for book in self.books]
        self.budgets = [
            each.model_copy(update={"status": made.status})
            for each, made in zip(self.budgets, self.statements, strict=True)
        ]
        return self

    def edit(self, index: int = 0, **spec: Any) -> None:
        """Change a budget's spec as its owner does."""
        old = self.budgets[index]
        changed = {**old.spec.model_dump(by_alias=True, exclude_none=True), **spec}
        generation = old.metadata.generation + 1
        self.budgets[index] = budget(old.metadata.name, generation=generation, status=old.status, **changed)

    def record(self, name: str, index: int = 0) -> Reservation | None:
        """Return a run's record."""
        found = self.budgets[index].status.reservations
        return next((each for each in found if each.name == name), None)

    def dollars(self, index: int = 0) -> tuple[str, str, str]:
        """Return what the columns RESERVED, SPENT and FREE show."""
        shown = self.budgets[index].status.display
        return shown.reserved, shown.spent, shown.free

    def condition(self, type_: str, index: int = 0) -> tuple[str, str]:
        """Return status and reason of a condition."""
        found = next(each for each in self.budgets[index].status.conditions if each.type == type_)
        return found.status.value, found.reason

    def reasons(self) -> list[str]:
        """Return the reasons of the Events of the last settling."""
        return [event.reason for each in self.statements for event in each.events]


class TeamWorld(World):
    """Several runs and the budgets that they share, over a fake API server."""

    def __init__(self, *budgets: Mapping[str, Any], names: tuple[str, ...] = ("a", "b"), **spec: Any) -> None:
        self.names = names
        super().__init__()
        self.kube.remove("ReasoningFinetune", NAMESPACE, self.key.name)
        for each in budgets:
            self.kube.put(each)
        for name in names:
            self.apply(name, **spec)
        if names:
            self.at(names[0])

    def apply(self, name: str, **spec: Any) -> None:
        """Create a run."""
        self.kube.put(resource(name, **spec))
        self.now += 1

    def at(self, name: str) -> TeamWorld:
        """Let what follows speak of this run."""
        self.key = Key(NAMESPACE, name)
        return self

    def restart_operator(self) -> None:
        self.budgets = BudgetCache()
        super().restart_operator()
        for raw in self.kube.find(BUDGET_KIND):
            self.budgets.put(raw)
        self.reconciler = Reconciler(
            kube=self.kube,
            cache=self.cache,
            settings=lambda: self.settings,
            catalogue=lambda: self.catalogue,
            now=lambda: self.now,
            metrics=self.metrics,
            budgets=self.budgets,
        )
        self.keeper = TeamKeeper(
            kube=self.kube,
            cache=self.cache,
            budgets=self.budgets,
            now=lambda: self.now,
            wake=lambda _: None,
            emit=self.kube.emit,
            metrics=self.metrics,
            refresh_seconds=self.settings.progress_write_seconds,
        )

    def _watch(self, kind: str, type_: str, obj: Mapping[str, Any]) -> None:
        if kind != BUDGET_KIND:
            super()._watch(kind, type_, obj)
        else:
            self.keeper.take(self.budgets.drop(obj) if type_ == "DELETED" else self.budgets.put(obj))

    async def settle(self, most: int = 60) -> int:
        """Look at every run and at the budgets until nothing is written any more; return the number of writes."""
        total = 0
        for _ in range(most):
            before = self.kube.writes
            for name in self.names:
                await self._look(Key(NAMESPACE, name))
            await self._look(None)
            written = self.kube.writes - before
            total += written
            if written == 0:
                return total
        raise AssertionError("the runs do not come to rest")

    async def _look(self, key: Key | None) -> None:
        try:
            await (self.keeper.settle(NAMESPACE) if key is None else self.reconciler.reconcile(key))
        except KubeError:
            self.kube.writes += 1

    def budget(self, name: str = "team") -> FinetuneBudget:
        """Return a budget as it is stored."""
        return FinetuneBudget.parse(self.kube.objects[BUDGET_KIND, NAMESPACE, name])

    def promised(self, name: str = "team") -> int:
        """Return micro-dollars that are promised or booked."""
        status = self.budget(name).status
        return status.closed_micro_usd + sum(each.reserved_micro_usd for each in status.reservations)
