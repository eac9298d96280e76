"""One side of the contract between Kube and its implementations: an API server, a namespace, and objects for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from rft_operator.errors import NotFound
from rft_operator.runtime.kube import Kube, ObjectStore
from support.builders import resource
from support.polling import eventually

GARBAGE_SECONDS = 90.0
"""The real garbage collector looks for new kinds every 30 s."""
LABEL = "example.com/team"


class Api(Kube, ObjectStore, Protocol):
    """Both protocols at once."""


@dataclass(frozen=True, slots=True)
class Side:
    """An API server and a namespace that only this test uses."""

    api: Api
    namespace: str

    def config_map(self, name: str, *, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
        meta = {"name": name, "namespace": self.namespace, **({"labels": labels} if labels else {})}
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}

    def pod(self, name: str, *, node: str | None = None, finalizers: tuple[str, ...] = ()) -> dict[str, Any]:
        meta = {"name": name, "namespace": self.namespace, "finalizers": [*finalizers]}
        spec: dict[str, Any] = {
            "containers": [{"name": "main", "image": "example.com/none"}],
            "terminationGracePeriodSeconds": 120,
            **({"nodeName": node} if node else {}),
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}

    def job(self, name: str, *, image: str = "example.com/none") -> dict[str, Any]:
        template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": image}]}}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"parallelism": 0, "completions": 1, "completionMode": "Indexed", "template": template},
        }

    def service(self, name: str) -> dict[str, Any]:
        meta = {"name": name, "namespace": self.namespace}
        spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {LABEL: "red"}}
        return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}

    def lease(self, holder: str) -> dict[str, Any]:
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "leader", "namespace": self.namespace, "labels": {LABEL: "red"}},
            "spec": {"holderIdentity": holder},
        }

    def run(self, name: str = "run", **change: Any) -> dict[str, Any]:
        return resource(name, namespace=self.namespace, **change)

    async def get(self, kind: str, name: str) -> Any:
        return await self.api.get(kind=kind, namespace=self.namespace, name=name)

    async def exists(self, kind: str, name: str) -> bool:
        try:
            await self.get(kind, name)
        except NotFound:
            return False
        return True

    async def gone(self, kind: str, name: str) -> None:
        async def look() -> bool:
            return not await self.exists(kind, name)

        await eventually(look, what=f"{kind} {name} to be gone", seconds=GARBAGE_SECONDS)

    async def set_status(self, status: dict[str, Any], *, version: str, name: str = "run") -> Any:
        return await self.api.apply_status(namespace=self.namespace, name=name, status=status, resource_version=version)

    async def set_finalizers(self, kind: str, name: str, *finalizers: str, version: str = "") -> Any:
        return await self.api.set_finalizers(
            kind=kind, namespace=self.namespace, name=name, finalizers=finalizers, resource_version=version
        )

    async def set_deadline(self, name: str, seconds: int, *, uid: str) -> Any:
        return await self.api.set_deadline(namespace=self.namespace, name=name, uid=uid, seconds=seconds)

    async def open_gate(self, name: str, *, uid: str) -> Any:
        return await self.api.open_gate(namespace=self.namespace, name=name, uid=uid)

    async def delete(self, kind: str, name: str, *, uid: str | None = None) -> None:
        await self.api.delete(kind=kind, namespace=self.namespace, name=name, uid=uid)


def version(obj: Any) -> str:
    return str(obj["metadata"]["resourceVersion"])


def owner(obj: Any) -> dict[str, Any]:
    meta = obj["metadata"]
    return {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "name": meta["name"], "uid": meta["uid"]}


def owned(obj: dict[str, Any], *owners: Any) -> dict[str, Any]:
    return {**obj, "metadata": {**obj["metadata"], "ownerReferences": [owner(each) for each in owners]}}
