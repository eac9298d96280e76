"""An API server in memory: server-side apply, versions, generations, finalizers, garbage collection, injected faults.

Only what the operator relies on, and no more; ``tests/integration/operator/test_kube_contract.py`` runs the same
scenarios against this fake and against the real API server, so that the fake stays honest. Simpler than the real one:
lists are replaced whole, controllers act at once, and a deleted pod does not wait for its kubelet.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping, Sequence
from typing import Any, TypeVar

from rft_operator.api import BUDGET_KIND, KIND
from rft_operator.domain.facts import GATE
from rft_operator.domain.timestamps import rfc3339
from rft_operator.errors import Conflict, NotFound
from rft_operator.runtime.events import EventWriter
from rft_operator.runtime.kube import Listed
from support import rules_of_api_server as rules
from support.json_copy import copied

Object = dict[str, Any]
Objects = list[Object]
Id = tuple[str, str, str]
Subscriber = Callable[[str, str, Mapping[str, Any]], None]
T = TypeVar("T")

GENERATED = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
"""Metadata that no client can write."""


class FakeKube:
    """Implements Kube and ObjectStore."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.now = now
        self.objects: dict[Id, Object] = {}
        """Everything but Events: those outlive what they speak of."""
        self.event_objects: dict[Id, Object] = {}
        self.events: list[tuple[str, str, str]] = []
        self.writes = 0
        self.faults: list[Exception | None] = []
        """Consumed one per write: an exception is raised after (odd) or before (even) the write took effect."""
        self.subscribers: list[Subscriber] = []
        self._applied: dict[Id, Object] = {}
        """What the operator applied last: what it no longer applies is removed."""
        self._writer = EventWriter(self, instance="fake")
        self._version = itertools.count(1)
        self._newest = "0"
        self._uid = itertools.count(1)
        self._calls = itertools.count()

    # -- Kube -------------------------------------------------------------------------------------------------

    async def apply(self, manifest: Mapping[str, Any]) -> Object:
        return self._faulty(lambda: self._apply(manifest))

    async def apply_status(
        self, *, kind: str = KIND, namespace: str, name: str, status: Mapping[str, Any], resource_version: str
    ) -> Object:
        def write() -> Object:
            obj = self._get(kind, namespace, name)
            rules.check_version(obj, resource_version)
            rules.check_schema({"kind": kind, "status": status})
            return self._store({**obj, "status": copied(dict(status))})

        return self._faulty(write)

    async def set_finalizers(
        self, *, kind: str, namespace: str, name: str, finalizers: Sequence[str], resource_version: str
    ) -> Object:
        def write() -> Object:
            obj = self._get(kind, namespace, name)
            rules.check_version(obj, resource_version)
            rules.check_finalizers(obj, finalizers)
            changed = self._store({**obj, "metadata": {**obj["metadata"], "finalizers": [*finalizers]}})
            self._collect(changed)
            return changed

        return self._faulty(write)

    async def set_deadline(self, *, namespace: str, name: str, uid: str, seconds: int) -> Object:
        def write() -> Object:
            obj = self._get("Pod", namespace, name)
            rules.check_deadline(obj, uid, seconds)
            return self._store({**obj, "spec": {**obj["spec"], "activeDeadlineSeconds": seconds}})

        return self._faulty(write)

    async def open_gate(self, *, namespace: str, name: str, uid: str) -> Object:
        def write() -> Object:
            obj = self._get("Pod", namespace, name)
            rules.check_uid(obj, uid)
            gates = [each for each in obj["spec"].get("schedulingGates", ()) if each["name"] != GATE]
            return self._store({**obj, "spec": {**obj["spec"], "schedulingGates": gates}})

        return self._faulty(write)

    async def delete(self, *, kind: str, namespace: str, name: str, uid: str | None = None) -> None:
        obj = self.objects.get((kind, namespace, name))
        if obj is None or (uid is not None and obj["metadata"]["uid"] != uid):
            return
        self._faulty(lambda: self.remove(kind, namespace, name))

    async def get(self, *, kind: str, namespace: str | None, name: str) -> Object:
        obj = self._get(kind, namespace or "", name)
        if kind == "Secret":
            obj = {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": obj["metadata"]}
        return copied(obj)

    async def list(self, *, kind: str, namespace: str | None = None, label_selector: str | None = None) -> Listed:
        def fits(obj: Object) -> bool:
            meta = obj["metadata"]
            if namespace is not None and meta["namespace"] != namespace:
                return False
            return label_selector is None or rules.selects(label_selector, meta.get("labels") or {})

        return Listed((copied(obj) for obj in self.find(kind) if fits(obj)), version=self._newest)

    async def pages(
        self, *, kind: str, namespace: str | None = None, label_selector: str | None = None, size: int = 1
    ) -> AsyncIterator[Listed]:
        found = await self.list(kind=kind, namespace=namespace, label_selector=label_selector)
        for start in range(0, max(1, len(found)), size):
            yield Listed(found[start : start + size], version=found.version)

    async def emit(self, *, regarding: Mapping[str, Any], type_: str, reason: str, message: str) -> None:
        self.events.append((type_, reason, message))
        await self._writer.emit(regarding=regarding, type_=type_, reason=reason, message=message)

    # -- ObjectStore ------------------------------------------------------------------------------------------

    async def create(self, manifest: Mapping[str, Any]) -> Object:
        if self._id(manifest) in self._table(manifest["kind"]):
            raise Conflict("already exists", status=409)
        if manifest["kind"] != "Job":  # what tests set up is no write of the operator
            return self._create(manifest)
        return self._faulty(lambda: self._create(manifest))

    async def replace(self, manifest: Mapping[str, Any]) -> Object:
        old = self._get(*self._id(manifest))
        rules.check_version(old, manifest["metadata"].get("resourceVersion", ""))
        return self._replace(old, manifest)

    async def read(self, *, kind: str, namespace: str | None, name: str) -> Object:
        return copied(self._get(kind, namespace or "", name))

    # -- what tests do to the cluster -----------------------------------------------------------------------

    def put(self, obj: Mapping[str, Any]) -> Object:
        """Create or replace an object, status and all, as the cluster's own parts do."""
        old = self._table(obj["kind"]).get(self._id(obj))
        return self._create(obj) if old is None else self._replace(old, obj)

    def patch(self, kind: str, namespace: str, name: str, change: Callable[[Object], None]) -> Object:
        obj = copied(self._get(kind, namespace, name))
        change(obj)
        stored = self._store(obj)
        self._collect(stored)
        return stored

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """DELETE: at once without finalizers, else only marked."""
        obj = self._get(kind, namespace, name)
        if not obj["metadata"].get("deletionTimestamp"):
            grace = rules.grace_seconds(obj)
            marks: Object = {"deletionTimestamp": rfc3339(self.now() + grace), "deletionGracePeriodSeconds": grace}
            obj = self._store({**obj, "metadata": {**obj["metadata"], **marks}})
        self._collect(obj)

    def find(self, kind: str) -> Objects:
        return [obj for (each, _, _), obj in self._table(kind).items() if each == kind]

    # -- inside -----------------------------------------------------------------------------------------------

    def _faulty(self, write: Callable[[], T]) -> T:
        self.writes += 1
        fault = self.faults.pop(0) if self.faults else None
        after = next(self._calls) % 2 == 1
        if fault is not None and not after:
            raise fault
        result = write()
        if fault is not None:
            raise fault
        return result

    def _table(self, kind: str) -> MutableMapping[Id, Object]:
        return self.event_objects if kind == "Event" else self.objects

    @staticmethod
    def _id(obj: Mapping[str, Any]) -> Id:
        meta = obj["metadata"]
        return obj["kind"], meta.get("namespace", ""), meta["name"]

    def _get(self, kind: str, namespace: str, name: str) -> Object:
        try:
            return self._table(kind)[kind, namespace, name]
        except KeyError:
            raise NotFound(f"{kind} {namespace}/{name} not found", status=404) from None

    def _apply(self, manifest: Mapping[str, Any]) -> Object:
        """Server-side apply by the operator: others' fields stay, its own are set, those it dropped are removed."""
        new = rules.without_status(manifest)
        wanted = new["metadata"].pop("resourceVersion", None)
        if wanted is not None:
            kept = self._get(new["kind"], new["metadata"].get("namespace", ""), new["metadata"]["name"])
            rules.check_version(kept, wanted)
        if new["kind"] in (KIND, BUDGET_KIND):
            rules.check_schema(new)
        place = self._id(new)
        old = self.objects.get(place)
        last, self._applied[place] = self._applied.get(place, {}), new
        if old is None:
            return self._create(new)
        merged = rules.merged(rules.dropped(old, last, new), new)
        rules.check_immutable(old, merged)
        return self._store(merged)

    def _create(self, manifest: Mapping[str, Any]) -> Object:
        new = copied(dict(manifest))
        self._applied.setdefault(self._id(new), {})
        meta = new["metadata"]
        meta.setdefault("uid", f"uid-{next(self._uid):06d}")
        meta.setdefault("creationTimestamp", rfc3339(self.now()))
        stored = self._store(new)
        self._collect_orphan(self._id(stored))
        return stored

    def _replace(self, old: Object, manifest: Mapping[str, Any]) -> Object:
        kept = {key: old["metadata"][key] for key in GENERATED if key in old["metadata"]}
        new = {**manifest, "metadata": {**manifest["metadata"], **kept}}
        rules.check_immutable(old, new)
        stored = self._store(new)
        self._collect(stored)
        return stored

    def _store(self, obj: Mapping[str, Any]) -> Object:
        stored = copied(dict(obj))
        place, table = self._id(stored), self._table(stored["kind"])
        old = table.get(place)
        rules.set_generation(old, stored)
        if old is not None and rules.same(old, stored):
            return copied(old)
        stored["metadata"]["resourceVersion"] = self._newest = str(next(self._version))
        table[place] = stored
        self._tell("ADDED" if old is None else "MODIFIED", stored)
        return copied(stored)

    def _collect(self, obj: Mapping[str, Any]) -> None:
        """Remove what is marked and held by no finalizer, and then what it owned."""
        meta = obj["metadata"]
        place = self._id(obj)
        if not meta.get("deletionTimestamp") or meta.get("finalizers") or place not in self.objects:
            return
        gone = self.objects.pop(place)
        self._applied.pop(place, None)
        self._tell("DELETED", gone)
        for child in list(self.objects):
            self._collect_orphan(child)

    def _collect_orphan(self, place: Id) -> None:
        """The garbage collector: an object goes when the last of its owners is gone."""
        obj = self.objects.get(place, {})
        owners = obj.get("metadata", {}).get("ownerReferences") or ()
        living = {each["metadata"]["uid"] for each in self.objects.values()}
        if owners and not any(owner["uid"] in living for owner in owners):
            self.remove(*place)

    def _tell(self, type_: str, obj: Mapping[str, Any]) -> None:
        for subscriber in self.subscribers:
            subscriber(obj["kind"], type_, copied(obj))
