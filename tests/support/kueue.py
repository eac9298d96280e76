"""A stand-in for Kueue on a real API server: it writes to a Job exactly what Kueue writes, when a test says so.

After kubernetes-sigs/kueue at ff69552. Admission: startJob of pkg/controller/jobframework/reconciler.go calls
RunWithPodSetsInfo of pkg/controller/jobs/job/job_controller.go, which sets suspend: false and, by Merge of
pkg/podset/podset.go, adds the flavor's node labels and tolerations, in one patch. Eviction: Stop of job_controller.go
suspends the Job under the annotation ``stopping``, resets status.startTime, and restores the pod template, in three
patches. What decides (quota, priorities) is the test; the queue's Workload objects are none of the operator's business
and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes.aio import client

from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.builders import NAME
from support.polling import eventually

MANAGER = "kueue"
MERGE = "application/merge-patch+json"
NOT_FOUND = 404
STOPPING = "kueue.x-k8s.io/stopping"
FLAVOR: Mapping[str, str] = {"node.kubernetes.io/instance-type": "rft-local"}
"""Node labels of the only ResourceFlavor: those of the nodes that tests make."""
TOLERATION: Mapping[str, str] = {"key": "example.com/reserved", "operator": "Exists", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True)
class Kueue:
    """Starts and stops the Jobs of one namespace."""

    batch: client.BatchV1Api
    kube: KubeClient
    namespace: str

    async def waiting(self, stage: Stage, attempt: int = 1, *, run: str = NAME) -> dict[str, Any]:
        """Wait until a Job stands suspended in a queue; return it."""

        async def look() -> dict[str, Any] | None:
            for job in await self.kube.list(kind="Job", namespace=self.namespace):
                meta, spec = job["metadata"], job["spec"]
                if meta["name"] == f"{run}-{stage.value}-{attempt}" and spec.get("suspend"):
                    assert meta["labels"].get("kueue.x-k8s.io/queue-name"), "suspended without a queue"
                    return dict(job)
            return None

        return await eventually(look, what=f"the suspended Job of {stage.value} {attempt}")

    async def admit(self, stage: Stage, attempt: int = 1, *, run: str = NAME) -> None:
        """There is quota for the Job: let it start on the flavor's nodes."""
        job = await self.waiting(stage, attempt, run=run)
        pod = job["spec"]["template"]["spec"]
        spec = {
            "nodeSelector": {**pod.get("nodeSelector", {}), **FLAVOR},
            "tolerations": [*pod.get("tolerations", ()), TOLERATION],
        }
        await self._patch(job["metadata"]["name"], {"spec": {"suspend": False, "template": {"spec": spec}}})

    async def evict(self, stage: Stage, attempt: int = 1, *, run: str = NAME) -> None:
        """Somebody else gets the quota: stop the Job and put its template back."""
        job = await self.kube.get(kind="Job", namespace=self.namespace, name=f"{run}-{stage.value}-{attempt}")
        name = job["metadata"]["name"]
        await self._patch(name, {"metadata": {"annotations": {STOPPING: "true"}}, "spec": {"suspend": True}})
        restored = {"spec": {"nodeSelector": None, "tolerations": None}}

        async def put_back() -> bool:
            """One pass of Stop after the Job is suspended; what fails is done again, as its reconcile is."""
            try:
                await self.batch.patch_namespaced_job_status(
                    name, self.namespace, {"status": {"startTime": None}}, field_manager=MANAGER, _content_type=MERGE
                )
                await self._patch(name, {"metadata": {"annotations": {STOPPING: None}}, "spec": {"template": restored}})
            except client.ApiException as error:
                return bool(error.status == NOT_FOUND)  # its owner took the Job away
            return True

        await eventually(put_back, what=f"the template of {name} to be restored")

    async def _patch(self, name: str, body: Mapping[str, Any]) -> None:
        await self.batch.patch_namespaced_job(name, self.namespace, body, field_manager=MANAGER, _content_type=MERGE)
