"""A cluster in which every step can be seen: the fake API server with graceful deletion, nodes that fail, pods' lives.

Nothing happens by itself here; :mod:`support.controllers` lets the cluster's own parts act. What happened to each pod
is kept in :class:`Life`, beside and without the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from rft_operator.domain.facts import FINALIZER
from rft_operator.domain.timestamps import rfc3339
from rft_operator.errors import Conflict
from rft_trainer.contract import Stage
from support.builders import NAMESPACE, node
from support.fake_kube import FakeKube
from support.stage import World

Object = dict[str, Any]
T = TypeVar("T")
GPU = "nvidia.com/gpu"
NODE_PRICES = {"node-1": "2.95", "node-2": "3.70", "node-3": "3.05"}
"""Dollars per GPU-hour; none is a whole number of micro-dollars per second."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A write that goes wrong."""

    error: Exception
    after: bool
    """Whether it took effect all the same."""


class GracefulKube(FakeKube):
    """Kubelets end pods, the garbage collector comes later, and each fault is drawn by the test."""

    def __init__(self, now: Callable[[], int]) -> None:
        super().__init__(now)
        self.schedule: list[Fault | None] = []

    def _faulty(self, write: Callable[[], T]) -> T:
        self.writes += 1
        fault = self.schedule.pop(0) if self.schedule else None
        if fault is not None and not fault.after:
            raise fault.error
        result = write()
        if fault is not None:
            raise fault.error
        return result

    async def delete(self, *, kind: str, namespace: str, name: str, uid: str | None = None) -> None:
        if self.schedule and self.schedule[0] is not None and isinstance(self.schedule[0].error, Conflict):
            self.schedule.pop(0)  # a deletion rests on no version: the API server has nothing to refuse
        await super().delete(kind=kind, namespace=namespace, name=name, uid=uid)

    def _collect(self, obj: Mapping[str, Any]) -> None:
        meta, place = obj["metadata"], self._id(obj)
        if not meta.get("deletionTimestamp") or meta.get("finalizers") or place not in self.objects:
            return
        if not holds_node(obj):
            self.vanish(*place)

    def _collect_orphan(self, place: tuple[str, str, str]) -> None:
        """The collector comes later, in :meth:`collect_garbage`."""

    def vanish(self, kind: str, namespace: str, name: str) -> None:
        """Remove an object, whatever holds it."""
        gone = self.objects.pop((kind, namespace, name))
        self._applied.pop((kind, namespace, name), None)
        self._tell("DELETED", gone)

    def collect_garbage(self) -> None:
        """Delete what lost its owner, and what is lost with it."""
        left = -1
        while left != len(self.objects):
            left = len(self.objects)
            for place in list(self.objects):
                obj = self.objects.get(place)
                if obj is not None and not obj["metadata"].get("deletionTimestamp"):
                    super()._collect_orphan(place)


def holds_node(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod has containers on a node, so that only its kubelet can end it."""
    return pod["kind"] == "Pod" and bool(pod["spec"].get("nodeName")) and not is_terminal(pod)


def is_terminal(pod: Mapping[str, Any]) -> bool:
    return pod["status"]["phase"] in ("Succeeded", "Failed")


@dataclass(slots=True)
class Life:
    """One GPU pod's life as it was."""

    uid: str
    run_uid: str
    stage: Stage
    attempt: int
    gpus: int
    deadline_seconds: int
    grace_seconds: int
    node: str = ""
    bound_at: int | None = None
    ended_at: int | None = None
    vanished_at: int | None = None
    """Removed in spite of its finalizer."""
    lost_since: int | None = None
    """Its node died under it."""
    billed_until: int | None = None
    """When the operator must have noticed that it vanished."""
    priced: bool = False
    """Whether the operator could see its node and so knows its price."""

    def seconds(self, now: int) -> int:
        """Seconds on its node until ``now``."""
        if self.bound_at is None:
            return 0
        ends = [at for at in (self.ended_at, self.vanished_at) if at is not None]
        return max(0, min([now, *ends]) - self.bound_at)


class Cluster(World):
    """The world, its pods and nodes moved by hand."""

    kube_type = GracefulKube
    kube: GracefulKube

    def __init__(self, **spec: Any) -> None:
        super().__init__(nodes=0, **spec)
        self.lives: dict[str, Life] = {}
        self.dead: dict[str, int] = {}
        """Nodes that do not answer, and since when."""
        self._serial = 0
        for name in NODE_PRICES:
            self.add_node(name)

    # -- nodes ------------------------------------------------------------------------------------------------

    def add_node(self, name: str) -> None:
        made = node(name)
        made["metadata"]["labels"]["node.kubernetes.io/instance-type"] = name
        self.kube.put(made)

    def nodes(self) -> list[str]:
        return [each["metadata"]["name"] for each in self.kube.find("Node")]

    def silence(self, name: str) -> None:
        """The node loses its power or its network."""
        self.dead[name] = self.now
        self._ready(name, "Unknown")
        self._lose(name)

    def revive_node(self, name: str) -> None:
        del self.dead[name]
        self._ready(name, "True")

    def remove_node(self, name: str) -> None:
        self.dead.pop(name, None)
        self.kube.remove("Node", "", name)
        self._lose(name)

    def _lose(self, name: str) -> None:
        for life in self.lives.values():
            if life.node == name and (life.ended_at, life.vanished_at, life.lost_since) == (None, None, None):
                life.lost_since = self.now

    def _ready(self, name: str, status: str) -> None:
        def write(obj: Object) -> None:
            obj["status"]["conditions"][0].update(status=status, lastTransitionTime=rfc3339(self.now))

        self.kube.patch("Node", "", name, write)

    # -- pods -------------------------------------------------------------------------------------------------

    def current(self, pod: Object) -> Object:
        return self.kube.objects["Pod", NAMESPACE, pod["metadata"]["name"]]

    def make_pod(self, job: Object, index: int) -> None:
        template = job["spec"]["template"]
        self._serial += 1
        labels = {**template["metadata"]["labels"], "batch.kubernetes.io/job-completion-index": str(index)}
        owner = {"kind": "Job", "name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
        meta = {
            **template["metadata"],
            "name": f"{job['metadata']['name']}-{index}-{self._serial}",
            "namespace": NAMESPACE,
            "ownerReferences": [owner],
            "labels": labels,
        }
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}
        made = self.kube.put({**pod, "status": {"phase": "Pending"}})
        limits = template["spec"]["containers"][0]["resources"].get("limits", {})
        if GPU in limits:
            self._witness(job, made, gpus=int(limits[GPU]))

    def _witness(self, job: Object, pod: Object, *, gpus: int) -> None:
        assert FINALIZER in pod["metadata"].get("finalizers", ()), "a GPU pod without our finalizer"
        assert pod["spec"].get("activeDeadlineSeconds", 0) > 0, "a GPU pod without a deadline"
        labels = pod["metadata"]["labels"]
        self.lives[pod["metadata"]["uid"]] = Life(
            uid=pod["metadata"]["uid"],
            run_uid=job["metadata"]["ownerReferences"][0]["uid"],
            stage=Stage(labels["rft.dev/stage"]),
            attempt=int(labels["rft.dev/attempt"]),
            gpus=gpus,
            deadline_seconds=pod["spec"]["activeDeadlineSeconds"],
            grace_seconds=pod["spec"]["terminationGracePeriodSeconds"],
        )

    def bind(self, pod: Object, node_name: str) -> None:
        super().bind(pod, node_name)
        life = self.lives.get(pod["metadata"]["uid"])
        if life is not None:
            life.node, life.bound_at = node_name, self.now

    def start(self, pod: Object) -> None:
        self.set_status(pod, phase="Running", running=True)

    def end(
        self,
        pod: Object,
        *,
        exit_code: int,
        message: str = "",
        reason: str = "",
        pod_reason: str | None = None,
        disruption: str | None = None,
    ) -> None:
        """The kubelet (or PodGC) writes a terminal phase; a pod that was deleted goes with it."""
        life = self.lives.get(pod["metadata"]["uid"])
        if life is not None and life.bound_at is not None:
            life.ended_at = self.now
        self._annotate(pod, pod_reason=pod_reason, disruption=disruption)
        word = reason or ("Completed" if exit_code == 0 else "Error")
        phase = "Succeeded" if exit_code == 0 else "Failed"
        self.set_status(pod, phase=phase, exit_code=exit_code, message=message, reason=word)

    def _annotate(self, pod: Object, *, pod_reason: str | None, disruption: str | None) -> None:
        def write(obj: Object) -> None:
            if pod_reason is not None:
                obj["status"]["reason"] = pod_reason
            if disruption is not None:
                condition = {"type": "DisruptionTarget", "status": "True", "reason": disruption}
                obj["status"]["conditions"] = [*obj["status"].get("conditions", ()), condition]

        if pod_reason is not None or disruption is not None:
            self.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], write)

    def preempt(self, pod: Object) -> None:
        """The scheduler makes room: a condition, then a graceful deletion."""
        self._annotate(pod, pod_reason=None, disruption="PreemptionByScheduler")
        self.kube.remove("Pod", NAMESPACE, pod["metadata"]["name"])

    def force_away(self, pod: Object) -> None:
        """Somebody takes the finalizers off by hand and deletes with force."""
        life = self.lives.get(pod["metadata"]["uid"])
        if life is not None:
            life.vanished_at = self.now
        self.kube.vanish("Pod", NAMESPACE, pod["metadata"]["name"])
