"""Nodes that exist in the API alone, and what their kubelets would say of the pods: the scheduler and the controllers
around them are real.

A pod is bound by the scheduler, started and ended here, by status patches as a kubelet sends them. A pod that is
deleted ends by itself, as its containers would on SIGTERM.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp
from kubernetes.aio import client

from rft_operator.domain.timestamps import epoch
from rft_operator.errors import KubeError
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import ExitCode, Outcome, Stage
from rft_trainer.stage_results import StageResult, TrainSummary
from support.builders import NAME, SPEC, node
from support.polling import eventually
from support.stage import ANSWERED, SUMMARIES

Pod = Mapping[str, Any]
Manner = Callable[[Pod], tuple[int, str]]
"""How a pod's containers end on SIGTERM: exit code and termination message."""
LEASES = "kube-node-lease"
ROUND_SECONDS = 0.1
HEARTBEAT_SECONDS = 3.0
BINDING_SECONDS = 90.0
"""Job controller and scheduler come back to an API server that was away within 30 s each."""
PATCH = "application/strategic-merge-patch+json"


def drains(*, step: int = 20) -> Manner:
    """Return the manner of a trainer that saves a checkpoint of a step in time."""

    def end(pod: Pod) -> tuple[int, str]:
        stage = stage_of(pod)
        if stage is not Stage.TRAIN:
            return 143, ""
        train = TrainSummary(step=step, total_steps=50, tokens=1, checkpoint_step=step, checkpoint_seconds=1.5)
        result = StageResult(stage=stage, outcome=Outcome.DRAINED, train=train)
        return ExitCode.DRAINED, result.model_dump_json(exclude_none=True) if rank_of(pod) == 0 else ""

    return end


def stage_of(pod: Pod) -> Stage:
    return Stage(pod["metadata"]["labels"]["rft.dev/stage"])


def rank_of(pod: Pod) -> int:
    return int(pod["metadata"]["labels"].get("batch.kubernetes.io/job-completion-index", 0))


def is_terminal(pod: Pod) -> bool:
    return pod["status"].get("phase") in ("Succeeded", "Failed")


class Kubelet:
    """The kubelets of a namespace's own nodes, which have one GPU each."""

    def __init__(self, core: client.CoreV1Api, kube: KubeClient, *, namespace: str, nodes: int) -> None:
        self._core = core
        self._kube = kube
        self._namespace = namespace
        self.nodes = [f"{namespace}-{index + 1}" for index in range(nodes)]
        self.manner = drains()
        self.silent: set[str] = set()
        """Nodes whose kubelet says and does nothing any more."""
        self._stopping = asyncio.Event()

    # -- nodes ------------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Register the nodes."""
        for name in self.nodes:
            made = node(name)
            made["metadata"]["labels"]["kubernetes.io/hostname"] = name
            # The embedded control plane's agent leaves a node alone that has what it would give.
            room = {**made["status"]["allocatable"], "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi"}
            made["status"] |= {"allocatable": room, "capacity": room}
            await self._kube.create(made)
            spec = {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": _now()}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": spec}
            await self._kube.create({**lease, "metadata": {"name": name, "namespace": LEASES}})

    async def leave(self) -> None:
        """Take the nodes and whatever is left on them away."""
        for pod in await self._kube.list(kind="Pod", namespace=self._namespace):
            await self._remove(pod)
        for name in self.nodes:
            await self._kube.delete(kind="Node", namespace="", name=name)
            await self._kube.delete(kind="Lease", namespace=LEASES, name=name)

    async def cordon(self, wanted: bool = True) -> None:
        """Keep the scheduler from binding pods to the nodes, or let it again."""
        for name in self.nodes:
            await self._core.patch_node(name, {"spec": {"unschedulable": wanted}}, _content_type=PATCH)

    async def silence(self, name: str) -> None:
        """A node is powered off; the control plane has noticed."""
        self.silent.add(name)
        unknown = {"type": "Ready", "status": "Unknown", "lastTransitionTime": _now()}
        await self._core.patch_node_status(name, {"status": {"conditions": [unknown]}}, _content_type=PATCH)

    async def remove_node(self, name: str) -> None:
        """An admin, or the cloud, takes a node away for good."""
        self.silent.add(name)
        await self._kube.delete(kind="Node", namespace="", name=name)

    async def run(self) -> None:
        """Renew the nodes' leases and end deleted pods, until :meth:`stop`."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self._beat, HEARTBEAT_SECONDS))
            group.create_task(self._again(self._obey, ROUND_SECONDS))

    def stop(self) -> None:
        """End after the requests that are under way: a cancelled one would leave its connection open."""
        self._stopping.set()

    async def _again(self, act: Callable[[], Awaitable[None]], every_seconds: float) -> None:
        """Repeat; what went wrong with a pod or with the API server is tried again."""
        while not self._stopping.is_set():
            with contextlib.suppress(KubeError, client.ApiException, aiohttp.ClientError):
                await act()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), every_seconds)

    async def _beat(self) -> None:
        for name in (each for each in self.nodes if each not in self.silent):
            lease = dict(await self._kube.read(kind="Lease", namespace=LEASES, name=name))
            await self._kube.replace({**lease, "spec": {**lease["spec"], "renewTime": _now()}})
            found = await self._kube.get(kind="Node", namespace=None, name=name)
            (ready,) = [each for each in found["status"]["conditions"] if each["type"] == "Ready"]
            if ready["status"] != "True":  # as after an outage, in which nobody could see the leases
                again = {"status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": _now()}]}}
                await self._core.patch_node_status(name, again, _content_type=PATCH)

    async def _obey(self) -> None:
        for pod in await self._kube.list(kind="Pod", namespace=self._namespace):
            node_name = pod["spec"].get("nodeName")
            answers = node_name and node_name not in self.silent
            if pod["metadata"].get("deletionTimestamp") and answers and not is_terminal(pod):
                code, message = self.manner(pod)
                await self.end(pod, exit_code=code, message=message)
                await self._remove(pod)

    async def _remove(self, pod: Pod) -> None:
        meta = pod["metadata"]
        with contextlib.suppress(client.ApiException):
            await self._core.delete_namespaced_pod(meta["name"], meta["namespace"], grace_period_seconds=0)

    # -- pods -------------------------------------------------------------------------------------------------

    async def pods(self, stage: Stage, attempt: int = 1, *, run: str = NAME) -> list[Pod]:
        """Return the pods of an attempt by rank."""
        selector = f"rft.dev/finetune={run},rft.dev/stage={stage.value},rft.dev/attempt={attempt}"
        found = await self._kube.list(kind="Pod", namespace=self._namespace, label_selector=selector)
        return sorted(found, key=rank_of)

    async def bound(self, stage: Stage, attempt: int = 1, *, run: str = NAME) -> list[Pod]:
        """Wait until the Job controller has made an attempt's pods and the scheduler has bound them all."""
        wanted = SPEC["resources"]["nodes"] if stage is Stage.TRAIN else 1

        async def look() -> list[Pod] | None:
            found = await self.pods(stage, attempt, run=run)
            return found if sum("nodeName" in pod["spec"] for pod in found) == wanted else None

        what = f"{wanted} bound pods of {run}, {stage.value} {attempt}"
        return await eventually(look, what=what, seconds=BINDING_SECONDS)

    async def start(self, stage: Stage, attempt: int = 1, *, run: str = NAME) -> list[Pod]:
        """Run the containers of an attempt, once its pods are bound; return the pods."""
        return [await self._write(pod, _running()) for pod in await self.bound(stage, attempt, run=run)]

    async def complete(self, stage: Stage, attempt: int = 1, *, run: str = NAME) -> list[Pod]:
        """The stage's work is done; rank 0 says so. Return the pods as the API server has them then."""
        result = StageResult(stage=stage, outcome=Outcome.COMPLETED, **SUMMARIES[stage])
        words = result.model_dump_json(exclude_none=True)
        pods = await self.pods(stage, attempt, run=run)
        return [await self.end(pod, exit_code=0, message="" if rank_of(pod) else words) for pod in pods]

    async def answer(self, *, run: str = NAME) -> list[Pod]:
        """The evaluation's pod asks all questions; its answers are programs, which it does not run."""
        await self.start(Stage.EVALUATE, run=run)
        words = ANSWERED.model_dump_json(exclude_none=True)
        pods = await self.pods(Stage.EVALUATE, run=run)
        return [await self.end(pod, exit_code=0, message=words) for pod in pods]

    async def work(self, *stages: Stage, run: str = NAME, seconds: int = 0) -> list[Pod]:
        """Start and complete the first attempt of each stage, which takes so long; return the pods."""
        done: list[Pod] = []
        for stage in stages:
            await self.hold(await self.start(stage, run=run), seconds=seconds)
            done += await self.complete(stage, run=run)
        return done

    async def hold(self, pods: Sequence[Pod], *, seconds: int = 2) -> None:
        """Wait until pods have held their nodes for so long, by the API server's clock: a bill of 0 proves nothing."""
        bound = [
            epoch(each["lastTransitionTime"])
            for pod in pods
            for each in pod["status"]["conditions"]
            if each["type"] == "PodScheduled"
        ]

        async def held() -> bool:
            return self._kube.clock.now() >= max(bound) + seconds

        await eventually(held, what=f"{seconds} s to pass")

    async def end(self, pod: Pod, *, exit_code: int, message: str = "", reason: str | None = None) -> Pod:
        """Write a terminal phase; return the pod."""
        stamp = _now()
        statuses = pod["status"].get("containerStatuses") or [{}]
        running = statuses[0].get("state", {}).get("running", {})
        ended = {
            "exitCode": exit_code,
            "reason": reason or ("Error" if exit_code else "Completed"),
            "message": message,
            "startedAt": running.get("startedAt", stamp),
            "finishedAt": stamp,
        }
        phase = "Failed" if exit_code else "Succeeded"
        return await self._write(pod, {"phase": phase, **_container({"terminated": ended})})

    async def wait(self, pod: Pod, *, reason: str, message: str) -> Pod:
        """The container cannot start."""
        return await self._write(pod, _container({"waiting": {"reason": reason, "message": message}}))

    async def preempt(self, pod: Pod) -> None:
        """The scheduler makes room: a condition, then a graceful deletion."""
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
        condition |= {"message": "preempted", "lastTransitionTime": _now()}
        await self._write(pod, {"conditions": [condition]})
        meta = pod["metadata"]
        await self._kube.delete(kind="Pod", namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])

    async def _write(self, pod: Pod, status: Mapping[str, Any]) -> Pod:
        meta = pod["metadata"]
        body = {"metadata": {"uid": meta["uid"]}, "status": status}
        await self._core.patch_namespaced_pod_status(meta["name"], meta["namespace"], body, _content_type=PATCH)
        return await self._kube.get(kind="Pod", namespace=meta["namespace"], name=meta["name"])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _container(state: Mapping[str, Any]) -> dict[str, Any]:
    # A status names the former state too, or the merge would leave two.
    states = dict.fromkeys(("waiting", "running", "terminated"))
    fixed = {"name": "trainer", "image": "none", "imageID": "none", "ready": "running" in state, "restartCount": 0}
    return {"containerStatuses": [{**fixed, "state": {**states, **state}}]}


def _running() -> dict[str, Any]:
    stamp = _now()
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": stamp}
    return {
        "phase": "Running",
        "startTime": stamp,
        "conditions": [ready],
        **_container({"running": {"startedAt": stamp}}),
    }


@contextlib.asynccontextmanager
async def kubelets(core: client.CoreV1Api, kube: KubeClient, *, namespace: str, nodes: int) -> AsyncIterator[Kubelet]:
    """Run the kubelets of a namespace's own nodes."""
    kubelet = Kubelet(core, kube, namespace=namespace, nodes=nodes)
    await kubelet.join()
    task = asyncio.create_task(kubelet.run())
    try:
        yield kubelet
    finally:
        kubelet.stop()
        await task
        await kubelet.leave()
