"""Several runs under team budgets in a cluster where anything goes wrong, and the witness of what was truly spent.

The operator's two writers are driven one look at a time, on caches that may miss events. The witness knows each GPU
pod's life, and the kubelet of this cluster honours deadlines and grace: so no history may spend more than a limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rft_operator.api import BUDGET_KIND, KIND
from rft_operator.api.team import FinetuneBudget
from rft_operator.domain.facts import FINALIZER, Key, Settings
from rft_operator.domain.team import begin_of
from rft_operator.domain.timestamps import epoch
from rft_operator.errors import KubeError
from rft_operator.runtime.queue import WorkQueue
from rft_operator.runtime.sweep import list_budgets, sweep
from rft_trainer.contract import Outcome, Stage
from rft_trainer.stage_results import StageResult
from support.builders import NAMESPACE
from support.cluster import GracefulKube, holds_node, is_terminal
from support.stage import SUMMARIES
from support.team import GPU_SECOND, TeamWorld

SPEC: dict[str, Any] = {
    "evaluation": None,
    "resources": {"nodes": 1, "gpusPerNode": 1},
    "training": {"globalBatchSize": 1, "microBatchSize": 1},
    "checkpoint": {"graceSeconds": 10},
    "timeouts": {"pendingSeconds": 604_800},
    "retries": {"maxRestarts": 100},
    "storage": {"retain": False},
}
GRACE_SECONDS = 10
SETTINGS = Settings(trainer_image="rft.local/trainer:dev", restart_backoff_seconds=0, progress_write_seconds=60)


@dataclass(slots=True)
class Life:
    """One GPU pod as it was."""

    run: str
    run_uid: str
    bound_at: int
    ends_at: int
    """When the kubelet ends it, deadline and grace included."""
    ended_at: int | None = None

    def micro_usd(self, since: int, until: int) -> int:
        """Return what it cost between two instants."""
        end = until if self.ended_at is None else min(until, self.ended_at)
        return max(0, end - max(since, self.bound_at)) * GPU_SECOND


class TeamMachine(TeamWorld):
    """The cluster, the operator's looks, and what must hold after each of them."""

    kube_type = GracefulKube
    kube: GracefulKube

    def __init__(self, *budgets: Mapping[str, Any]) -> None:
        self.lives: dict[str, Life] = {}
        self.highest: dict[str, int] = {}
        """Highest limit of a run by uid, of a budget by name."""
        self.deaf: set[str] = set()
        self.robbed: set[str] = set()
        """UIDs of runs whose finalizer a user took off."""
        self.reached: Counter[str] = Counter()
        self._promised: dict[str, int] = {}
        super().__init__(*budgets, names=())
        self.settings = SETTINGS
        for raw in self.kube.find(BUDGET_KIND):
            self._witness(raw)
        self.kube.subscribers.append(self._see)

    # -- what is seen -----------------------------------------------------------------------------------------

    def restart_operator(self) -> None:
        super().restart_operator()
        if hasattr(self, "settings"):
            self.kube.subscribers.append(self._see)

    def _watch(self, kind: str, type_: str, obj: Mapping[str, Any]) -> None:
        if kind in self.deaf:
            return
        if kind == BUDGET_KIND:  # nobody is woken here: each look is a step of its own
            self.budgets.put(obj)
        else:
            super()._watch(kind, type_, obj)

    def _see(self, kind: str, type_: str, obj: Mapping[str, Any]) -> None:
        if kind == BUDGET_KIND and type_ != "DELETED":
            self._witness(obj)

    def _witness(self, raw: Mapping[str, Any]) -> None:
        """Look at each write of a budget: no grant passes the limit."""
        found = FinetuneBudget.parse(dict(raw))
        name, limit = found.metadata.name, self.limit_of(found)
        promised = found.status.closed_micro_usd + sum(each.reserved_micro_usd for each in found.status.reservations)
        before = self._promised.get(name, 0)
        assert promised <= max(limit, before), f"{name}: {promised} promised of {limit}, {before} before"
        assert all(each.spent_micro_usd <= each.reserved_micro_usd for each in found.status.reservations)
        self._promised[name] = promised
        self.highest[name] = max(limit, self.highest.get(name, 0))

    @staticmethod
    def limit_of(found: FinetuneBudget) -> int:
        return int(found.spec.limit_usd) * 1_000_000

    # -- users ------------------------------------------------------------------------------------------------

    def exists(self, name: str) -> bool:
        return (KIND, NAMESPACE, name) in self.kube.objects

    def user_applies(self, name: str, dollars: int) -> None:
        self.names = tuple(dict.fromkeys((*self.names, name)))
        self.apply(name, **SPEC, budget={"limitUSD": dollars})
        self.highest[self.at(name).run.metadata.uid] = dollars * 1_000_000

    def user_edits_limit(self, name: str, dollars: int) -> None:
        run = self.at(name).run
        spent = -(-run.status.cost.spent_micro_usd // 1_000_000)
        dollars = max(dollars, spent, 1)
        self.edit(budget={"limitUSD": dollars})
        self.highest[run.metadata.uid] = max(self.highest[run.metadata.uid], dollars * 1_000_000)

    def owner_edits(self, name: str, **spec: Any) -> None:
        self.kube.patch(BUDGET_KIND, NAMESPACE, name, lambda obj: obj["spec"].update(spec))

    def user_deletes(self, name: str, *, by_force: bool) -> None:
        if by_force:
            run = self.at(name).run
            if FINALIZER in run.metadata.finalizers:
                self.robbed.add(run.metadata.uid)
                self.reached["robbed"] += 1
            self.kube.patch(KIND, NAMESPACE, name, lambda obj: obj["metadata"].update(finalizers=[]))
        if self.exists(name):
            self.kube.remove(KIND, NAMESPACE, name)
        self.kube.collect_garbage()

    # -- the cluster ------------------------------------------------------------------------------------------

    def gangs_start(self) -> None:
        """The Job controller, the scheduler and the kubelets do their work for every Job; CPU pods end at once."""
        self.kube.collect_garbage()
        for job in self.kube.find("Job"):
            labels = job["metadata"]["labels"]
            self.at(labels["rft.dev/finetune"])
            stage, attempt = Stage(labels["rft.dev/stage"]), int(labels["rft.dev/attempt"])
            if self.pods(stage, attempt) or job["metadata"].get("deletionTimestamp") or job.get("status"):
                continue
            self.create_pods(stage, attempt)
            (pod,) = self.pods(stage, attempt)
            self.bind(pod, "node-1")
            self.set_status(self._now_as(pod), phase="Running", running=True)
            if stage is Stage.PREPARE:
                self._end(pod, 0, StageResult(stage=stage, outcome=Outcome.COMPLETED, **SUMMARIES[stage]))
                continue
            owner = job["metadata"]["ownerReferences"][0]
            deadline = pod["spec"]["activeDeadlineSeconds"]
            ends = self.now + deadline + GRACE_SECONDS
            self.lives[pod["metadata"]["uid"]] = Life(self.key.name, owner["uid"], self.now, ends)
            self.reached["gang"] += 1

    def _now_as(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        return self.kube.objects["Pod", NAMESPACE, pod["metadata"]["name"]]

    def _end(self, pod: Mapping[str, Any], code: int, result: StageResult | None = None) -> None:
        pod = self._now_as(pod)
        words = result.model_dump_json(exclude_none=True) if result is not None else ""
        phase = "Failed" if code else "Succeeded"
        if pod["metadata"]["uid"] in self.lives:
            self.lives[pod["metadata"]["uid"]].ended_at = self.now
        job = ("Job", NAMESPACE, pod["metadata"]["ownerReferences"][0]["name"])
        self.set_status(pod, phase=phase, exit_code=code, message=words, reason="Error" if code else "Completed")
        if job in self.kube.objects:
            condition = {"type": "Failed" if code else "Complete", "status": "True", "reason": "BackoffLimitExceeded"}
            self.kube.patch(*job, lambda obj: obj.update(status={"conditions": [condition]}))

    def running(self, name: str | None = None) -> list[dict[str, Any]]:
        """Return the GPU pods that hold a node."""
        pods = [pod for pod in self.kube.find("Pod") if pod["metadata"]["uid"] in self.lives and holds_node(pod)]
        return [pod for pod in pods if name in (None, pod["metadata"]["labels"]["rft.dev/finetune"])]

    def pods_end(self, name: str, *, done: bool) -> None:
        """A gang completes, or fails."""
        for pod in self.running(name):
            stage = Stage.TRAIN
            result = StageResult(stage=stage, outcome=Outcome.COMPLETED, **SUMMARIES[stage]) if done else None
            self._end(pod, 0 if done else 1, result)
            self.reached["done"] += done

    def pass_time(self, seconds: int) -> None:
        """Let time pass; kubelets end what is deleted after its grace, and what is past its deadline."""
        until = self.now + seconds
        while True:
            self._obey_deletions()
            due = [(self.lives[pod["metadata"]["uid"]].ends_at, pod) for pod in self.running()]
            at, pod = min(due, key=lambda each: each[0], default=(until + 1, None))
            if pod is None or at > until:
                break
            self.now = max(self.now, at)
            self._end(pod, 143)
        self.now = until

    def _obey_deletions(self) -> None:
        self.kube.collect_garbage()
        for pod in self.running():
            if pod["metadata"].get("deletionTimestamp"):
                life = self.lives[pod["metadata"]["uid"]]
                life.ends_at = min(life.ends_at, self.now + GRACE_SECONDS)
        for pod in self.kube.find("Pod"):
            if not holds_node(pod) and not is_terminal(pod) and pod["metadata"].get("deletionTimestamp"):
                self.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], lambda _: None)

    # -- the operator -----------------------------------------------------------------------------------------

    async def look(self, name: str) -> None:
        try:
            await self.reconciler.reconcile(Key(NAMESPACE, name))
        except KubeError:
            self.reached["failed look"] += 1

    async def keep(self) -> None:
        try:
            await self.keeper.settle(NAMESPACE)
        except KubeError:
            self.reached["failed settling"] += 1

    async def relist(self) -> None:
        """The sweep: everything is seen again."""
        self.deaf.clear()
        queue: WorkQueue[Key] = WorkQueue()
        await sweep(self.kube, self.cache, queue, namespaces=())
        await list_budgets(self.kube, self.budgets, namespaces=())

    async def rest(self) -> None:
        """Let the operator catch up with everything."""
        self.kube.schedule.clear()
        await self.relist()
        for _ in range(4):
            self.pass_time(GRACE_SECONDS + 1)
            await self.settle()
        self.pass_time(SETTINGS.progress_write_seconds)
        await self.settle()

    async def bring_on(self, steps: int) -> None:
        """Let the operator and the cluster do their work in turn."""
        for _ in range(steps):
            await self.rest()
            self.gangs_start()

    # -- what must hold ---------------------------------------------------------------------------------------

    def check(self) -> None:
        """The limits hold, whatever the operator has noticed."""
        for raw in self.kube.find(BUDGET_KIND):
            found = FinetuneBudget.parse(dict(raw))
            spent = self.spent(since=begin_of(found, self.now))
            assert spent <= self.highest[found.metadata.name], f"{found.metadata.name}: {spent} spent"
        for uid in {life.run_uid for life in self.lives.values()}:
            spent = sum(each.micro_usd(0, self.now) for each in self.lives.values() if each.run_uid == uid)
            assert spent <= self.highest[uid], f"{uid}: {spent} spent of {self.highest[uid]}"
        for pod in self.running():
            run_uid = self.lives[pod["metadata"]["uid"]].run_uid
            if any(each["metadata"]["uid"] == run_uid for each in self.kube.find(KIND)):
                self._check_reserved(run_uid)

    def _check_reserved(self, run_uid: str) -> None:
        for raw in self.kube.find(BUDGET_KIND):
            records = {each.uid: each for each in FinetuneBudget.parse(dict(raw)).status.reservations}
            assert run_uid in records, f"{run_uid} holds a GPU, and nothing is reserved for it"
            assert records[run_uid].started

    def spent(self, *, since: int) -> int:
        return sum(each.micro_usd(since, self.now) for each in self.lives.values())

    async def check_rest(self) -> None:
        """Once the operator has caught up its books are exact, and it writes nothing more."""
        await self.rest()
        for raw in self.kube.find(BUDGET_KIND):
            found = FinetuneBudget.parse(dict(raw))
            start = begin_of(found, self.now)
            assert found.status.window_start is not None
            booked = found.status.closed_micro_usd + sum(each.spent_micro_usd for each in found.status.reservations)
            lives = [each for each in self.lives.values() if not self._only_stopped_since(start, each)]
            true = sum(each.micro_usd(start, self._metered_until(each)) for each in lives)
            assert booked >= true if self.robbed else booked == true, f"{found.metadata.name}: {booked}, not {true}"
        assert await self.settle() == 0
        self.reached["rest"] += 1

    def _only_stopped_since(self, start: int, life: Life) -> bool:
        """Whether the pod of a robbed run had only to stop when a window began: all of it was booked before."""
        ended_soon = life.ended_at is not None and life.ended_at <= start + GRACE_SECONDS + 1
        return life.run_uid in self.robbed and ended_soon

    def _metered_until(self, life: Life) -> int:
        """Return what instant the bill of a pod's run speaks of."""
        run = self.kube.objects.get((KIND, NAMESPACE, life.run))
        if life.ended_at is not None or run is None or run["metadata"]["uid"] != life.run_uid:
            return self.now
        return epoch(run["status"]["usage"]["meteredUntil"])
