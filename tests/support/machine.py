"""An operator's process over a living cluster, and the witness who knows what it must say.

The process is driven as ``runtime.app`` drives it: a watch event or a timer asks for a reconcile, a failure asks again
later. The witness compares what is on record with the pods' own lives, in integers, whenever the operator has had its
chance: it is up, its watches deliver, and no write is about to fail.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from rft_operator.api import KIND
from rft_operator.domain.facts import FINALIZER, LABEL_FINETUNE, Key
from rft_operator.domain.money import micro_usd
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import epoch
from rft_operator.errors import Conflict, KubeError
from rft_operator.runtime.sweep import sweep
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE, resource
from support.cluster import NODE_PRICES, Life, Object, is_terminal
from support.controllers import LivingCluster
from support.stage import START, WATCHED

T = TypeVar("T")
MICRO_PRICES = {name: int(text.replace(".", "")) * 10_000 for name, text in NODE_PRICES.items()}
CHEAPEST, DEAREST = min(MICRO_PRICES.values()), max(MICRO_PRICES.values())
STOP_SLACK_SECONDS = 30
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


class OperatedCluster(LivingCluster):
    """A cluster with the operator in it."""

    def __init__(self, *, reached: Counter[str] | None = None, **spec: Any) -> None:
        self.reached = reached if reached is not None else Counter()
        self.up = True
        self.deaf: set[str] = set()
        """Kinds whose watch events are lost."""
        self.dirty = True
        self.wake_at: int | None = None
        self.failures = 0
        self.completions: list[Stage] = []
        self.known: Mapping[str, Any] = {}
        """The resource's status at its last write."""
        self.limit_micro = self.ceiling_micro = self.training_ceiling_micro = self.highest_micro = 0
        super().__init__(**_priced_by_node(spec))
        self.catalogue, problems = PriceCatalogue.parse(PRICES)
        assert not problems
        self._take_limit()

    # -- the process ------------------------------------------------------------------------------------------

    def _watch(self, kind: str, type_: str, obj: Mapping[str, Any]) -> None:
        self.changes += 1
        self.litter = self.litter or type_ != "MODIFIED"
        if kind == KIND and type_ == "DELETED":
            assert not self._held(obj["metadata"]["uid"]), "the resource is gone, and its pods hold GPUs"
        elif kind == KIND:
            self._witness_status(obj)
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
        try:
            again = drive(self.reconciler.reconcile(self.key))
        except Conflict:
            self._refresh()
            self._retry()
        except KubeError:
            self._retry()
        else:
            self.failures, self.wake_at = 0, None
            if again is not None and again <= 0:
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
            self.check()
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

    # -- what the user does -----------------------------------------------------------------------------------

    @property
    def exists(self) -> bool:
        return (KIND, NAMESPACE, NAME) in self.kube.objects

    @property
    def uid(self) -> str:
        return str(self.kube.objects[KIND, NAMESPACE, NAME]["metadata"]["uid"]) if self.exists else ""

    def set_limit(self, cents: int) -> None:
        """Change the limit; what is already under way may still cost what its stop costs."""
        new = cents * 10_000
        stop_seconds = sum(life.gpus * (life.grace_seconds + STOP_SLACK_SECONDS) for life in self._running())
        stops = -(-stop_seconds * DEAREST // 3_600)
        self.ceiling_micro = max(new, self.spent_micro() + stops)
        self.training_ceiling_micro = max(new - self._reserve_micro(), self.spent_micro(Stage.TRAIN) + stops)
        self.limit_micro, self.highest_micro = new, max(new, self.highest_micro)
        self.edit(budget={"limitUSD": f"{cents // 100}.{cents % 100:02d}"})

    def _take_limit(self) -> None:
        limit = micro_usd(self.run.spec.budget.limit_usd)
        self.limit_micro = self.ceiling_micro = self.highest_micro = limit
        self.training_ceiling_micro = limit - self._reserve_micro()

    def _reserve_micro(self) -> int:
        """What is kept for the evaluation on the cheapest node, at the least."""
        evaluation = self.run.spec.evaluation
        if evaluation is None:
            return 0
        return evaluation.gpus * (evaluation.max_seconds + STOP_SLACK_SECONDS) * CHEAPEST // 3_600

    def apply_again(self, **spec: Any) -> None:
        """A namesake of a deleted run."""
        self.completions, self.known, self.step, self.saved = [], {}, 0, 0
        self.kube.put(resource(**_priced_by_node(spec)))
        self._take_limit()

    def complete_pods(self, pods: Sequence[Object]) -> None:
        super().complete_pods(pods)
        self.completions += [Stage(pods[0]["metadata"]["labels"]["rft.dev/stage"])]

    # -- the witness ------------------------------------------------------------------------------------------

    def mine(self) -> list[Life]:
        return [life for life in self.lives.values() if life.run_uid == self.uid]

    def _running(self) -> list[Life]:
        return [life for life in self.mine() if life.ended_at is None and life.vanished_at is None]

    def _held(self, uid: str) -> list[Life]:
        """Lives that hold a node that answers."""
        running = [life for life in self.lives.values() if life.run_uid == uid and life.bound_at is not None]
        return [each for each in running if (each.ended_at, each.vanished_at, each.lost_since) == (None, None, None)]

    def spent_micro(self, stage: Stage | None = None) -> int:
        """What the run has cost, but for what no one can stop: pods on dead nodes and pods taken away by hand."""
        amount = 0
        for life in self.mine():
            if stage not in (None, life.stage):
                continue
            until = min(self.now, life.lost_since if life.lost_since is not None else self.now)
            if life.vanished_at is None and life.bound_at is not None:
                amount += life.gpus * life.seconds(until) * MICRO_PRICES[life.node]
        return -(-amount // 3_600)

    def check(self) -> None:
        """What must hold at every instant, and what must hold once the operator has had its chance."""
        if not self.quiet:  # a lowered limit is the operator's to keep; the kubelets know the one of the pods' start
            self.ceiling_micro = max(self.ceiling_micro, self.highest_micro)
            reserve = self._reserve_micro() if self.exists else 0
            self.training_ceiling_micro = max(self.training_ceiling_micro, self.highest_micro - reserve)
        spent, trained = self.spent_micro(), self.spent_micro(Stage.TRAIN)
        assert spent <= self.ceiling_micro, f"spent {spent} of {self.ceiling_micro}"
        assert trained <= self.training_ceiling_micro, f"training spent {trained} of {self.training_ceiling_micro}"
        self._check_gangs()
        if self._held(self.uid):
            assert FINALIZER in self.run.metadata.finalizers, "GPUs are held, and nothing holds the resource"
        if self.quiet and self.exists and self.known:
            self._check_bill()
            self._check_suspension()

    def _check_gangs(self) -> None:
        lost = {life.uid for life in self.lives.values() if life.lost_since is not None}
        alive = {
            (pod["metadata"]["labels"]["rft.dev/stage"], pod["metadata"]["labels"]["rft.dev/attempt"])
            for job in self.kube.find("Job")
            for pod in self.pods_of(job)
            if not is_terminal(pod) and pod["metadata"]["uid"] not in lost
        }
        alive |= {(life.stage.value, str(life.attempt)) for life in self._held(self.uid)}
        assert len(alive) <= 1, f"two gangs are alive: {sorted(alive)}"

    def _check_suspension(self) -> None:
        if self.holds("Suspended"):
            assert not self._held(self.uid), "suspended, and GPUs are held"

    def _check_bill(self) -> None:
        """The bill is what the pods' lives say, to the second; only of vanished pods there are bounds alone."""
        usage = self.known.get("usage") or {}
        until = epoch(usage["meteredUntil"]) if usage.get("meteredUntil") else START
        seconds_low = seconds_high = amount_low = amount_high = 0
        for life in self.mine():
            low, high = self._seconds_of(life, until=until)
            cheapest, dearest = self._price_of(life)
            seconds_low, seconds_high = seconds_low + low, seconds_high + high
            amount_low, amount_high = amount_low + low * cheapest, amount_high + high * dearest
        billed = usage.get("gpuSeconds", 0)
        assert seconds_low <= billed <= seconds_high, f"{billed} GPU-seconds, not {seconds_low} to {seconds_high}"
        spent = (self.known.get("cost") or {}).get("spentMicroUSD", 0)
        assert -(-amount_low // 3_600) <= spent <= -(-amount_high // 3_600), f"{spent}, not {amount_low}/3600"

    def _seconds_of(self, life: Life, *, until: int) -> tuple[int, int]:
        if life.bound_at is None:
            return 0, 0
        if life.vanished_at is None:
            exact = life.gpus * life.seconds(max(until, life.bound_at))
            return exact, exact
        if life.billed_until is None:
            life.billed_until = self.now
        return 0, life.gpus * (life.billed_until - life.bound_at)

    def _price_of(self, life: Life) -> tuple[int, int]:
        if life.node in self.nodes():
            life.priced = True
        exact = MICRO_PRICES.get(life.node, 0)
        return (exact, exact) if life.priced else (CHEAPEST, DEAREST)

    def holds(self, type_: str) -> bool:
        return _condition(self.known, type_).get("status") == "True"

    def _witness_status(self, obj: Mapping[str, Any]) -> None:
        """Look at every write of the resource: what is decided for good stays so."""
        old, new = self.known, obj.get("status") or {}
        self.known = new
        assert new.get("observedGeneration", 0) <= obj["metadata"]["generation"]
        assert sum("endTime" not in attempt for attempt in new.get("attempts", ())) <= 1, "two open attempts"
        complete, failed = self.holds("Complete"), self.holds("Failed")
        assert not (complete and failed)
        if complete:
            self._witness_completion(obj)
        if _condition(old, "Complete").get("status") == "True":
            assert complete, "Complete was taken back"
        was = _condition(old, "Failed")
        if was.get("status") == "True" and not failed:
            assert was["reason"] in ("BudgetExhausted", "EvaluationReserveExhausted"), f"{was['reason']} was taken back"
            assert obj["metadata"]["generation"] > was["observedGeneration"], "revived without an edit"
        self._count(new)

    def _witness_completion(self, obj: Mapping[str, Any]) -> None:
        assert Stage.TRAIN in self.completions, "complete, but never trained to the end"
        if obj["spec"].get("evaluation"):
            trained = max(index for index, stage in enumerate(self.completions) if stage is Stage.TRAIN)
            assert Stage.EVALUATE in self.completions[trained:], "complete with the scores of a half-trained model"

    def _count(self, status: Mapping[str, Any]) -> None:
        for type_ in ("Complete", "Failed", "Suspended"):
            self.reached[type_] += self.holds(type_)
        self.reached["BudgetExhausted"] += _condition(status, "Failed").get("reason") == "BudgetExhausted"
        for attempt in status.get("attempts", ())[-2:]:
            self.reached[f"{attempt['stage']} {attempt.get('reason', 'open')}"] += 1

    def check_rest(self) -> None:
        """A run that nobody touches costs nothing."""
        if not self.quiet:
            return
        if self._running():  # what they cost has moved since the last look
            self.reconcile_once()
            self.work()
        before = (self.kube.writes, len(self.kube.events))
        self.reconcile_once()
        assert (self.kube.writes, len(self.kube.events)) == before, "an idle reconcile wrote"
        assert not self.dirty, "an idle reconcile asks for another one"

    def remains(self) -> list[str]:
        """Names of what is left of the runs, in words."""
        return [
            f"{obj['kind']} {obj['metadata']['name']}"
            for obj in self.kube.objects.values()
            if LABEL_FINETUNE in (obj["metadata"].get("labels") or {}) or obj["kind"] == KIND
        ]


def _priced_by_node(spec: dict[str, Any]) -> dict[str, Any]:
    return {"storage": {"retain": False}, **spec, "budget": {"usdPerGpuHour": None, **spec.get("budget", {})}}


def _condition(status: Mapping[str, Any], type_: str) -> Mapping[str, Any]:
    return next((each for each in status.get("conditions", ()) if each["type"] == type_), {})
