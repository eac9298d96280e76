"""One run on a real API server, as its user sees it: applied, edited, deleted, read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rft_operator.api import KIND
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Attempt, Condition, ConditionType, Status
from rft_operator.domain.draft import condition_of
from rft_operator.domain.plan import CONTROLLER_NAME
from rft_operator.errors import Conflict
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.builders import NAME, merged, resource
from support.polling import eventually

OWNED = ("Pod", "Job", "Service", "ConfigMap", "PersistentVolumeClaim")
OURS = "app.kubernetes.io/managed-by=rft-operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What the operator announced."""

    type: str
    reason: str
    note: str
    instance: str
    """The operator that wrote it."""
    time: str
    count: int


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A run by name in a namespace."""

    kube: KubeClient
    namespace: str
    name: str = NAME

    async def apply(self, **change: Any) -> None:
        """Create the resource, with changes to the spec all tests share."""
        await self.kube.create(resource(self.name, namespace=self.namespace, **change))

    async def edit(self, **change: Any) -> None:
        """Change the spec."""

        async def write() -> bool:
            raw = await self.raw()
            try:
                await self.kube.replace({**raw, "spec": merged(raw["spec"], change)})
            except Conflict:
                return False
            return True

        await eventually(write, what="the edit to be taken")

    async def delete(self) -> None:
        """Ask for the deletion."""
        await self.kube.delete(kind=KIND, namespace=self.namespace, name=self.name)

    async def raw(self) -> dict[str, Any]:
        """Return the resource as it is stored."""
        return dict(await self.kube.get(kind=KIND, namespace=self.namespace, name=self.name))

    async def status(self) -> Status:
        """Return the status."""
        return ReasoningFinetune.parse(await self.raw()).status

    async def until(self, holds: Callable[[Status], object], *, what: str, seconds: float = 30.0) -> Status:
        """Wait until something holds of the status."""
        last: list[Status] = []

        async def look() -> Status | None:
            last[:] = [await self.status()]
            return last[0] if holds(last[0]) else None

        try:
            return await eventually(look, what=what, seconds=seconds)
        except AssertionError as error:
            error.add_note(f"the status is {last[0].to_wire() if last else None}")
            raise

    async def until_condition(
        self, type_: ConditionType, status: str = "True", *, reason: str | None = None, seconds: float = 30.0
    ) -> Condition:
        """Wait until a condition has a status, and a reason if one is given; return it."""

        def holds(found: Status) -> bool:
            each = condition_of(found, type_)
            return each is not None and each.status == status and reason in (None, each.reason)

        what = f"{type_.value}={status} ({reason or 'any reason'})"
        found = condition_of(await self.until(holds, what=what, seconds=seconds), type_)
        assert found is not None
        return found

    async def attempts(self, stage: Stage) -> list[Attempt]:
        """Return the attempts of a stage, oldest first."""
        return [each for each in (await self.status()).attempts if each.stage == stage.value]

    async def events(self) -> list[Event]:
        """Return the Events about the resource, oldest first."""
        found = [
            Event(
                type=each["type"],
                reason=each["reason"],
                note=each["note"],
                instance=each["reportingInstance"],
                time=each["eventTime"],
                count=(each.get("series") or {}).get("count", 1),
            )
            for each in await self.kube.list(kind="Event", namespace=self.namespace)
            if (each["regarding"]["kind"], each["regarding"]["name"]) == (KIND, self.name)
        ]
        return sorted(found, key=lambda each: each.time)

    async def events_until(self, reason: str) -> list[Event]:
        """Wait until something is announced; return all Events so far. They are written in order, after the status."""

        async def look() -> list[Event] | None:
            found = await self.events()
            return found if any(each.reason == reason for each in found) else None

        return await eventually(look, what=f"an Event {reason}")

    async def children(self, kind: str) -> list[Mapping[str, Any]]:
        """Return the objects of a kind that the operator made for the run."""
        selector = f"{OURS},rft.dev/finetune={self.name}"
        return list(await self.kube.list(kind=kind, namespace=self.namespace, label_selector=selector))

    async def leftovers(self) -> list[str]:
        """Return what is left of the run, in words."""
        found = [f"{kind} {each['metadata']['name']}" for kind in OWNED for each in await self.children(kind)]
        there = [each["metadata"]["name"] for each in await self.kube.list(kind=KIND, namespace=self.namespace)]
        return [*found, *([f"{KIND} {self.name}"] if self.name in there else [])]

    async def controllers_rest(self, *, but: str = "") -> None:
        """Wait until the Job controller has finished the Jobs, and no pod has a finalizer but the one named."""

        async def rest() -> bool:
            done = [
                any(each["type"] in ("Complete", "Failed") for each in job["status"].get("conditions", ()))
                for job in await self.children("Job")
            ]
            kept = {each for pod in await self.children("Pod") for each in pod["metadata"].get("finalizers", ())}
            return all(done) and kept <= {but}

        await eventually(rest, what="the Job controller to let go of the pods")

    async def versions(self) -> dict[str, str]:
        """Return what tells a write of the operator's from the namespace's objects as they are.

        A child's status is written by the cluster's own controllers, and so are most Events.
        """
        return {
            f"{kind} {each['metadata']['name']}": _version(each, whole=kind not in OWNED)
            for kind in (KIND, *OWNED, "Event")
            for each in await self.kube.list(kind=kind, namespace=self.namespace)
            if kind != "Event" or each["reportingController"] == CONTROLLER_NAME
        }


def _version(found: Mapping[str, Any], *, whole: bool) -> str:
    meta = found["metadata"]
    if whole:
        return str(meta["resourceVersion"])
    ours = {key: value for key, value in meta.items() if key not in ("resourceVersion", "managedFields")}
    return json.dumps({**found, "metadata": ours, "status": None}, sort_keys=True)
