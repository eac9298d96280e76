"""The cluster's own parts: Job controller, garbage collector, PodGC, Kueue, and kubelets with deadlines and graces.

They act in :meth:`LivingCluster.tick`, and time moves from one thing that is due to the next, so that the operator
meets every state in between and nothing outlives its grace.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rft_operator.domain.facts import LABEL_QUEUE
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_trainer.contract import ExitCode, Outcome, Stage
from rft_trainer.stage_results import StageResult, TrainSummary
from support.builders import NAMESPACE
from support.cluster import NODE_PRICES, Cluster, Object, holds_node, is_terminal
from support.stage import SUMMARIES

TOTAL_STEPS = 50
KILLED = 137


class LivingCluster(Cluster):
    """A cluster that goes on by itself."""

    def __init__(self, *, drains: Sequence[str] = ("saves",), **spec: Any) -> None:
        self.drains = list(drains)
        """How the pods of each attempt, in turn, answer a SIGTERM: saves, late, unsaved or ignores."""
        self.step = 0
        """Optimizer step the training has reached."""
        self.saved = 0
        """Step of the newest checkpoint."""
        self.litter = False
        """Whether something may have lost its owner since garbage was collected."""
        self.collected_at = 0
        self.disowned: set[str] = set()
        """Pods that ended because their Job was suspended: its controller does not count them."""
        self.changes = 0
        """Writes that anyone has seen; a subclass that watches counts them."""
        super().__init__(**spec)

    def tick(self) -> None:
        """Everything that is due now happens; garbage is collected once in a second."""
        if self.litter and self.collected_at < self.now:
            self.litter, self.collected_at = False, self.now
            self.kube.collect_garbage()
        changes = -1
        while changes != self.changes:
            changes = self.changes
            self._pod_gc()
            self._kubelets()
            self._job_controller()

    def next_due(self) -> int | None:
        """Return when a kubelet or the garbage collector has something to do."""
        ends = [end[0] for pod in self.kube.find("Pod") if (end := self._end_of(pod)) is not None]
        return min([*ends, *([self.now + 1] if self.litter else [])], default=None)

    # -- Job controller and PodGC -----------------------------------------------------------------------------

    def _job_controller(self) -> None:
        for job in list(self.kube.find("Job")):
            if not job.get("status", {}).get("conditions") and not job["metadata"].get("deletionTimestamp"):
                self._advance_job(job)

    def _advance_job(self, job: Object) -> None:
        if job["spec"].get("suspend"):
            self._end_pods_of_suspended(job)
            return
        every = self.pods_of(job)
        pods = [pod for pod in every if pod["metadata"]["uid"] not in self.disowned]
        if any(pod["status"]["phase"] == "Failed" for pod in pods):
            running = [pod for pod in pods if not is_terminal(pod)]
            for pod in running:
                if not pod["metadata"].get("deletionTimestamp"):
                    self.kube.remove("Pod", NAMESPACE, pod["metadata"]["name"])
            if not any(holds_node(pod) for pod in running):
                self._finish_job(job, "Failed", "BackoffLimitExceeded")
            return
        done = {_index(pod) for pod in pods if pod["status"]["phase"] == "Succeeded"}
        wanted = set(range(job["spec"]["completions"]))
        if done == wanted:
            self._finish_job(job, "Complete", "CompletionsReached")
        ending = {_index(pod) for pod in every if pod not in pods and not is_terminal(pod)}
        for index in sorted(wanted - {_index(pod) for pod in pods} - ending):  # podReplacementPolicy: Failed
            self.make_pod(job, index)

    def _end_pods_of_suspended(self, job: Object) -> None:
        for pod in self.pods_of(job):
            if not is_terminal(pod) and not pod["metadata"].get("deletionTimestamp"):
                self.disowned.add(pod["metadata"]["uid"])
                self.kube.remove("Pod", NAMESPACE, pod["metadata"]["name"])

    # -- Kueue ------------------------------------------------------------------------------------------------

    def queued_jobs(self, *, suspended: bool) -> list[Object]:
        """Return Jobs of a queue that have not ended."""
        return [
            job
            for job in self.kube.find("Job")
            if LABEL_QUEUE in job["metadata"]["labels"]
            and bool(job["spec"].get("suspend")) is suspended
            and not job.get("status", {}).get("conditions")
            and not job["metadata"].get("deletionTimestamp")
        ]

    def admit(self) -> None:
        """There is quota for every Job that waits."""
        for job in self.queued_jobs(suspended=True):
            self._suspend(job, False)

    def evict(self) -> None:
        """There is no quota any more."""
        for job in self.queued_jobs(suspended=False):
            self._suspend(job, True)

    def _suspend(self, job: Object, suspend: bool) -> None:
        def write(obj: Object) -> None:
            obj["spec"]["suspend"] = suspend
            obj["status"] = {} if suspend else {"startTime": rfc3339(self.now)}

        self.kube.patch("Job", NAMESPACE, job["metadata"]["name"], write)

    def pods_of(self, job: Object) -> list[Object]:
        uid = job["metadata"]["uid"]
        return [pod for pod in self.kube.find("Pod") if pod["metadata"]["ownerReferences"][0]["uid"] == uid]

    def _finish_job(self, job: Object, type_: str, reason: str) -> None:
        condition = {"type": type_, "status": "True", "reason": reason}
        name = job["metadata"]["name"]
        self.kube.patch("Job", NAMESPACE, name, lambda obj: obj.update(status={"conditions": [condition]}))

    def _pod_gc(self) -> None:
        nodes = set(self.nodes())
        for pod in list(self.kube.find("Pod")):
            if holds_node(pod) and pod["spec"]["nodeName"] not in nodes:
                if not pod["metadata"].get("deletionTimestamp"):
                    self.kube.remove("Pod", NAMESPACE, pod["metadata"]["name"])
                self.end(pod, exit_code=KILLED, disruption="DeletionByPodGC")

    # -- kubelets ---------------------------------------------------------------------------------------------

    def _kubelets(self) -> None:
        for pod in list(self.kube.find("Pod")):
            due = self._end_of(pod)
            if due is not None and due[0] <= self.now:
                self._stop(pod, overdue=due[1])

    def _end_of(self, pod: Object) -> tuple[int, bool] | None:
        """Return when the kubelet sees the pod end, and whether its deadline is the cause; None: not by itself."""
        if not holds_node(pod) or pod["spec"]["nodeName"] in self.dead:
            return None
        asked: list[tuple[int, bool]] = []
        if pod["metadata"].get("deletionTimestamp"):
            at = epoch(pod["metadata"]["deletionTimestamp"]) - pod["spec"]["terminationGracePeriodSeconds"]
            asked.append((at, False))
        if "activeDeadlineSeconds" in pod["spec"]:
            bound = epoch(pod["status"]["conditions"][0]["lastTransitionTime"])
            asked.append((bound + pod["spec"]["activeDeadlineSeconds"], True))
        if not asked:
            return None
        at, overdue = min(asked)
        return at + self._stopping_seconds(pod), overdue

    def _manner(self, pod: Object) -> str:
        return self.drains[int(pod["metadata"]["labels"]["rft.dev/attempt"]) % len(self.drains)]

    def _stopping_seconds(self, pod: Object) -> int:
        grace: int = pod["spec"]["terminationGracePeriodSeconds"]
        if pod["status"]["phase"] == "Pending":
            return 1
        return {"saves": 3, "late": grace, "unsaved": 2, "ignores": grace}[self._manner(pod)]

    def _stop(self, pod: Object, *, overdue: bool) -> None:
        manner = self._manner(pod) if pod["status"]["phase"] == "Running" else "ignores"
        why = "DeadlineExceeded" if overdue else None
        if manner == "ignores":
            self.end(pod, exit_code=KILLED, pod_reason=why)
        elif manner == "unsaved":
            self.end(pod, exit_code=ExitCode.DRAINED_WITHOUT_CHECKPOINT, pod_reason=why)
        else:
            self.end(pod, exit_code=ExitCode.DRAINED, message=self._drained(pod), pod_reason=why)

    def _drained(self, pod: Object) -> str:
        stage = Stage(pod["metadata"]["labels"]["rft.dev/stage"])
        if _index(pod) != 0:
            return ""
        train = None
        if stage is Stage.TRAIN:
            self.saved = self.step
            train = TrainSummary(
                step=self.step, total_steps=TOTAL_STEPS, tokens=1, checkpoint_step=self.step, checkpoint_seconds=1.5
            )
        return StageResult(stage=stage, outcome=Outcome.DRAINED, train=train).model_dump_json(exclude_none=True)

    # -- what goes well ---------------------------------------------------------------------------------------

    def schedule(self, pods: Sequence[Object]) -> None:
        """The scheduler binds waiting pods to nodes that answer."""
        free = [name for name in self.nodes() if name in NODE_PRICES and name not in self.dead]
        for pod in pods:
            waits = not pod["spec"].get("nodeName") and not pod["spec"].get("schedulingGates")
            if free and waits and not pod["metadata"].get("deletionTimestamp"):
                self.bind(pod, free[_index(pod) % len(free)])

    def start_all(self) -> None:
        """The images are pulled, the containers run."""
        for pod in list(self.kube.find("Pod")):
            if holds_node(pod) and pod["status"]["phase"] == "Pending" and pod["spec"]["nodeName"] not in self.dead:
                self.start(pod)

    def complete_pods(self, pods: Sequence[Object]) -> None:
        """The stage's work is done; rank 0 says so."""
        for pod in pods:
            stage = Stage(pod["metadata"]["labels"]["rft.dev/stage"])
            result = StageResult(stage=stage, outcome=Outcome.COMPLETED, **SUMMARIES[stage])
            self.end(pod, exit_code=0, message=result.model_dump_json(exclude_none=True) if _index(pod) == 0 else "")


def _index(pod: Object) -> int:
    return int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])
