"""An API server in memory: resourceVersions, finalizers, owner garbage collection, conflicts, injected faults.

Only what the operator relies on, and no more; ``tests/integration/operator/test_kube_contract.py`` runs the same
scenarios against this fake and against the real API server, so that the fake stays honest.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rft_operator.domain.timestamps import rfc3339
from rft_operator.errors import Conflict, NotFound

Id = tuple[str, str, str]
Subscriber = Callable[[str, str, Mapping[str, Any]], None]


class FakeKube:
    """Implements Kube and ObjectStore."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        self.objects: dict[Id, dict[str, Any]] = {}
        self.events: list[tuple[str, str, str]] = []
        self.writes = 0
        self.faults: list[Exception | None] = []
        """Consumed one per write: an exception is raised after (odd) or before (even) the write took effect."""
        self.subscribers: list[Subscriber] = []
        self._version = itertools.count(1)
        self._uid = itertools.count(1)
        self._calls = itertools.count()

    # -- Kube -------------------------------------------------------------------------------------------------

    async def apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        return self._faulty(lambda: self._apply(manifest))

    async def apply_status(
        self, *, namespace: str, name: str, status: Mapping[str, Any], resource_version: str
    ) -> dict[str, Any]:
        def write() -> dict[str, Any]:
            obj = self._get("ReasoningFinetune", namespace, name)
            self._check_version(obj, resource_version)
            return self._store({**obj, "status": copy.deepcopy(dict(status))})

        return self._faulty(write)

    async def set_finalizers(
        self, *, kind: str, namespace: str, name: str, finalizers: Sequence[str], resource_version: str
    ) -> dict[str, Any]:
        def write() -> dict[str, Any]:
            obj = self._get(kind, namespace, name)
            self._check_version(obj, resource_version)
            changed = self._store({**obj, "metadata": {**obj["metadata"], "finalizers": list(finalizers)}})
            self._collect(changed)
            return changed

        return self._faulty(write)

    async def delete(self, *, kind: str, namespace: str, name: str, uid: str | None = None) -> None:
        obj = self.objects.get((kind, namespace, name))
        if obj is None or (uid is not None and obj["metadata"]["uid"] != uid):
            return
        self._faulty(lambda: self.remove(kind, namespace, name))

    async def get(self, *, kind: str, namespace: str | None, name: str) -> dict[str, Any]:
        return copy.deepcopy(self._get(kind, namespace or "", name))

    async def list(
        self, *, kind: str, namespace: str | None = None, label_selector: str | None = None
    ) -> list[dict[str, Any]]:
        def fits(obj: dict[str, Any]) -> bool:
            meta = obj["metadata"]
            if namespace is not None and meta["namespace"] != namespace:
                return False
            if label_selector is None:
                return True
            key, _, value = label_selector.partition("=")
            return (meta.get("labels") or {}).get(key) == value

        return [copy.deepcopy(obj) for (each, _, _), obj in self.objects.items() if each == kind and fits(obj)]

    async def emit(self, *, regarding: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        self.events.append((type_, reason, message))

    # -- ObjectStore ------------------------------------------------------------------------------------------

    async def create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        if self._id(manifest) in self.objects:
            raise Conflict("already exists", status=409)
        return self._apply(manifest)

    async def replace(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        kind, namespace, name = self._id(manifest)
        old = self._get(kind, namespace, name)
        self._check_version(old, manifest["metadata"].get("resourceVersion", ""))
        return self._store({**copy.deepcopy(dict(manifest)), "metadata": {**old["metadata"], **manifest["metadata"]}})

    async def read(self, *, kind: str, namespace: str | None, name: str) -> dict[str, Any]:
        return copy.deepcopy(self._get(kind, namespace or "", name))

    # -- what tests do to the cluster -----------------------------------------------------------------------

    def put(self, obj: Mapping[str, Any]) -> dict[str, Any]:
        """Create or replace an object as some other client would."""
        return self._apply(obj)

    def patch(self, kind: str, namespace: str, name: str, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        obj = copy.deepcopy(self._get(kind, namespace, name))
        change(obj)
        stored = self._store(obj)
        self._collect(stored)
        return stored

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """DELETE: at once without finalizers, else only marked."""
        obj = self._get(kind, namespace, name)
        if not obj["metadata"].get("deletionTimestamp"):
            stamped = {**obj["metadata"], "deletionTimestamp": rfc3339(self.now())}
            obj = self._store({**obj, "metadata": stamped})
        self._collect(obj)

    def find(self, kind: str) -> list[dict[str, Any]]:
        return [obj for (each, _, _), obj in self.objects.items() if each == kind]

    # -- inside -----------------------------------------------------------------------------------------------

    def _faulty(self, write: Callable[[], Any]) -> Any:
        self.writes += 1
        fault = self.faults.pop(0) if self.faults else None
        after = next(self._calls) % 2 == 1
        if fault is not None and not after:
            raise fault
        result = write()
        if fault is not None:
            raise fault
        return result

    @staticmethod
    def _id(obj: Mapping[str, Any]) -> Id:
        meta = obj["metadata"]
        return obj["kind"], meta.get("namespace", ""), meta["name"]

    def _get(self, kind: str, namespace: str, name: str) -> dict[str, Any]:
        try:
            return self.objects[kind, namespace, name]
        except KeyError:
            raise NotFound(f"{kind} {namespace}/{name} not found", status=404) from None

    @staticmethod
    def _check_version(obj: Mapping[str, Any], version: str) -> None:
        if version and obj["metadata"]["resourceVersion"] != version:
            raise Conflict("the object has been modified", status=409)

    def _apply(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        new = copy.deepcopy(dict(manifest))
        old = self.objects.get(self._id(new))
        if old is not None:
            merged = {**old, **new, "metadata": {**old["metadata"], **new["metadata"]}}
            if merged == old:
                return copy.deepcopy(old)
            return self._store(merged)
        meta = new["metadata"]
        meta.setdefault("uid", f"uid-{next(self._uid):06d}")
        meta.setdefault("creationTimestamp", rfc3339(self.now()))
        meta.setdefault("generation", 1)
        return self._store(new)

    def _store(self, obj: dict[str, Any]) -> dict[str, Any]:
        stored = copy.deepcopy(obj)
        stored["metadata"]["resourceVersion"] = str(next(self._version))
        place = self._id(stored)
        type_ = "MODIFIED" if place in self.objects else "ADDED"
        self.objects[place] = stored
        self._tell(type_, stored)
        return copy.deepcopy(stored)

    def _collect(self, obj: Mapping[str, Any]) -> None:
        meta = obj["metadata"]
        place = self._id(obj)
        if not meta.get("deletionTimestamp") or meta.get("finalizers") or place not in self.objects:
            return
        gone = self.objects.pop(place)
        self._tell("DELETED", gone)
        for kind, namespace, name in list(self.objects):
            child = self.objects.get((kind, namespace, name))
            owners = (child or {}).get("metadata", {}).get("ownerReferences") or ()
            if any(owner["uid"] == meta["uid"] for owner in owners):
                self.remove(kind, namespace, name)

    def _tell(self, type_: str, obj: Mapping[str, Any]) -> None:
        for subscriber in self.subscribers:
            subscriber(obj["kind"], type_, copy.deepcopy(obj))
