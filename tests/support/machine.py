"""An operator's process over a living cluster that has a witness.

The process is driven as ``runtime.app`` drives it: a watch event or a timer asks for a reconcile, a failure asks again
later. It has had its chance when it is up, its watches deliver, and no write is about to fail.
"""

from __future__ import annotations

import math
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from rft_operator.api import KIND
from rft_operator.domain.facts import Key
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.errors import Conflict, KubeError
from rft_operator.runtime.sweep import sweep
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE, resource
from support.cluster import NODE_PRICES
from support.stage import WATCHED
from support.witness import WitnessedCluster

T = TypeVar("T")
MOST_RECONCILES = 40
"""In one instant; ten are enough unless writes fail."""
MOST_ROUNDS = 40
"""Of controllers and operator answering each other in one instant."""
PRICES = "version: 1\nprices:\n" + "".join(
    f'- {{name: {name}, match: {{instanceType: {name}}}, usdPerHour: "{price}"}}\n'
    for name, price in NODE_PRICES.items()
)


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that the fake API server never keeps waiting."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("the operator waits for something that the fake API server does not know")


class Wishes:
    """Stands in for the work queue: a sweep asks for a reconcile."""

    def __init__(self) -> None:
        self.asked = False

    def add(self, _: Key) -> None:
        self.asked = True


class OperatedCluster(WitnessedCluster):
    """A cluster with the operator in it."""

    def __init__(self, **spec: Any) -> None:
        self.up = True
        self.deaf: set[str] = set()
        """Kinds whose watch events are lost."""
        self.dirty = True
        self.wake_at: int | None = None
        self.failures = 0
        self._late: list[tuple[str, str, Mapping[str, Any]]] | None = None
        """What the watches have still to tell of a reconcile's own writes, while there is one."""
        super().__init__(**_priced_by_node(spec))
        self.catalogue, problems = PriceCatalogue.parse(PRICES)
        assert not problems

    # -- the process ------------------------------------------------------------------------------------------

    def _watch(self, kind: str, type_: str, obj: Mapping[str, Any]) -> None:
        self.changes += 1
        self.litter = self.litter or type_ != "MODIFIED"
        if kind == KIND and type_ == "DELETED":
            assert not self.held(obj["metadata"]["uid"]), "the resource is gone, and its pods hold GPUs"
        elif kind == KIND:
            self.witness_status(obj)
        if self._late is None:
            self._hear(kind, type_, obj)
        else:  # so late that nothing but the answer to the write may tell the operator of it, as often happens
            self._late.append((kind, type_, obj))

    def _hear(self, kind: str, type_: str, obj: Mapping[str, Any]) -> None:
        """The operator takes a watch event in."""
        if kind not in WATCHED or not self.up or kind in self.deaf:
            return
        changed = self.cache.drop(obj) if type_ == "DELETED" else self.cache.put(obj)
        # Prices of the pool reach a run that holds pods elsewhere with the next sweep; here, at once.
        self.dirty = self.dirty or bool(changed) or kind == "Node"

    def kill_operator(self) -> None:
        self.up, self.dirty, self.wake_at, self.failures = False, False, None, 0

    def start_operator(self) -> None:
        self.restart_operator()
        self.up, self.dirty, self.wake_at, self.failures, self.deaf = True, True, None, 0, set()

    def sweep(self) -> None:
        """The watches deliver again and everything is listed."""
        self.deaf = set()
        wishes = Wishes()
        drive(sweep(self.kube, self.cache, wishes, namespaces=()))  # type: ignore[arg-type]
        self.dirty = self.dirty or wishes.asked

    def work(self) -> None:
        """The worker's loop, until nothing asks for a reconcile at this instant."""
        for _ in range(MOST_RECONCILES):
            due = self.wake_at is not None and self.wake_at <= self.now
            if not self.up or not (self.dirty or due):
                return
            self.dirty, self.wake_at = False, None if due else self.wake_at
            self.reconcile_once()
        raise AssertionError(f"the run does not come to rest: {self.known}")

    def reconcile_once(self) -> None:
        late: list[tuple[str, str, Mapping[str, Any]]] = []
        self._late = late
        try:
            self._reconcile()
        finally:
            self._late = None
        for event in late:
            self._hear(*event)

    def _reconcile(self) -> None:
        try:
            again = drive(self.reconciler.reconcile(self.key))
        except Conflict:
            self._refresh()
            self._retry()
        except KubeError:
            self._retry()
        else:
            self.failures, self.wake_at = 0, None
            if again is not None and again < 1:
                self.dirty = True
            elif again is not None:
                self.wake_at = self.now + math.ceil(again)

    def _refresh(self) -> None:
        try:
            self.cache.put(drive(self.kube.get(kind=KIND, namespace=NAMESPACE, name=NAME)))
        except KubeError:
            return

    def _retry(self) -> None:
        due = self.now + min(300, 2**self.failures)
        self.failures += 1
        self.wake_at = due if self.wake_at is None else min(self.wake_at, due)

    @property
    def quiet(self) -> bool:
        """Whether the operator has had its chance."""
        return self.up and not (self.deaf or self.kube.schedule or self.failures or self.dirty)

    def advance(self, seconds: int) -> None:
        """Let time pass, from one thing that is due to the next."""
        target = self.now + seconds
        while True:
            self._act_now()
            if self.now >= target:
                return
            due = [target, self.next_due() or target]
            if self.up and self.wake_at is not None:
                due.append(self.wake_at)
            self.now = max(self.now + 1, min(due))

    def _act_now(self) -> None:
        for _ in range(MOST_ROUNDS):
            changes = self.changes
            self.tick()
            self.work()
            self.check(quiet=self.quiet)
            if changes == self.changes:
                return
        raise AssertionError(f"operator and controllers keep each other busy: {self.known}")

    def to_running_gang(self) -> None:
        """Bring the run to a training gang that runs."""
        self.advance(1)
        for stage in (Stage.PREPARE, Stage.TRAIN):
            self.schedule(self.pods(stage))
            self.start_all()
            self.advance(3)
            if stage is Stage.PREPARE:
                self.complete_pods(self.pods(stage))
                self.advance(1)

    def apply_again(self, **spec: Any) -> None:
        """A namesake of a deleted run."""
        self.completions, self.known, self.step, self.saved = [], {}, 0, 0
        self.kube.put(resource(**_priced_by_node(spec)))
        self.take_limit()

    def has_moved(self) -> bool:
        """Whether there may be news since the last look: what running pods cost."""
        return bool(self.running())

    def check_rest(self) -> None:
        """A run that nobody touches costs nothing."""
        if not self.quiet:
            return
        if self.has_moved():
            self.reconcile_once()
            self.work()
        before = (self.kube.writes, len(self.kube.events))
        self.reconcile_once()
        assert (self.kube.writes, len(self.kube.events)) == before, "an idle reconcile wrote"
        assert not self.dirty, "an idle reconcile asks for another one"


def _priced_by_node(spec: dict[str, Any]) -> dict[str, Any]:
    return {"storage": {"retain": False}, **spec, "budget": {"usdPerGpuHour": None, **spec.get("budget", {})}}
