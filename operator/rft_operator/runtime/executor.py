"""Does what a plan asks for, and announces it.

Invariants: what an action needs on record is on record before (``domain.actions.Plan``). An action that fails ends
those that cost or make something; what takes GPUs back, or lets go of what is no longer needed, waits for no other.
What our own writes changed is looked at again: the answer to a write is mostly in the cache before the watch tells of
it, which then is no news and wakes nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from rft_operator.domain.actions import (
    Action,
    Apply,
    Create,
    Delete,
    KeepBaselines,
    OpenGate,
    Plan,
    SetDeadline,
    SetFinalizers,
)
from rft_operator.domain.facts import ChildKind
from rft_operator.domain.observe import KIND
from rft_operator.errors import KubeError, NotFound, Rejected, Unavailable
from rft_operator.runtime.baselines import write_baselines
from rft_operator.runtime.cache import Cache
from rft_operator.runtime.kube import JsonObject, Kube
from rft_operator.runtime.queue import BATCH_SECONDS

log = logging.getLogger(__name__)

REMEMBERED = frozenset(each.value for each in ChildKind)
UNHINDERED = (Delete, SetDeadline, SetFinalizers)
"""Done although another action failed. A quota or a webhook that lets no ConfigMap be made must not keep a stop from
its Job, and a namespace that is being deleted takes no new object, while its end waits for the pods that are held."""
MOST_UNANSWERED = 2
"""Calls without an answer in one look; each may take as long as a request may."""


class Executor:
    """Acts on plans."""

    def __init__(self, *, kube: Kube, cache: Cache, emit: Callable[..., Awaitable[None]]) -> None:
        self._kube = kube
        self._cache = cache
        self._emit = emit

    async def execute(self, raw: JsonObject, decided: Plan, *, recorded: bool = False) -> float | None:
        """Act and announce; return in how many seconds to look again, or None.

        Raises the first KubeError of an action, with the plan's own wish in ``look_again_seconds``. ``recorded``: its
        status is on record only now, so that what rests on it (a stop, above all) is due soon, whatever failed. Where
        nothing was changed a wish for a look at once would repeat itself for ever.
        """
        wishes = [] if decided.requeue_after_seconds is None else [decided.requeue_after_seconds]
        failures: list[KubeError] = []
        moved = recorded
        for action in decided.actions:
            if failures and not isinstance(action, UNHINDERED):
                continue
            if sum(isinstance(each, Unavailable) for each in failures) == MOST_UNANSWERED:
                break
            try:
                if await self.act(action):
                    moved = True
                    wishes.append(BATCH_SECONDS)
            except KubeError as error:
                failures.append(error)
        # Events also follow a failed action: what they tell is on record, and no later plan tells it again.
        for event in decided.events:
            log.info("%s: %s", event.reason, event.message, extra=fields_of(raw))
            await self._emit(regarding=raw, type_=event.type, reason=event.reason, message=event.message)
        if failures:
            if isinstance(failures[0], Rejected):
                await self.tell_refused(raw, failures[0])
            wish = min(wishes, default=None)
            failures[0].look_again_seconds = max(wish, BATCH_SECONDS) if moved and wish is not None else wish
            raise failures[0]
        return min(wishes, default=None)

    async def take_gpus_back(self, decided: Plan) -> None:
        """Do of a plan that cannot be put on record only what ends Jobs and shortens pods' lives."""
        for action in decided.actions:
            if isinstance(action, SetDeadline) or (isinstance(action, Delete) and action.kind == ChildKind.JOB):
                await self.act(action)

    async def tell_refused(self, raw: JsonObject, error: Rejected) -> None:
        """Say in an Event what the API server does not take, in its own words."""
        await self._emit(regarding=raw, type_="Warning", reason="Refused", message=str(error))

    async def act(self, action: Action) -> bool:
        """Return whether the answer changed the view."""
        if isinstance(action, Apply):
            return self._remember(await self._kube.apply(action.manifest), action.manifest)
        if isinstance(action, Create):
            return self._remember(await self._kube.create(action.manifest), action.manifest)
        if isinstance(action, Delete):
            await self._kube.delete(kind=action.kind, namespace=action.namespace, name=action.name, uid=action.uid)
            return False
        if isinstance(action, KeepBaselines):
            await write_baselines(self._kube, action)
            return False
        try:
            changed = await self._change(action)
        except NotFound:
            if isinstance(action, SetFinalizers) and action.kind == KIND:
                raise  # a plan that waits for it would ask again at once, for ever; its end is reported or swept
            return False
        return bool(self._cache.put(changed))

    async def _change(self, action: SetDeadline | OpenGate | SetFinalizers) -> JsonObject:
        """Change what exists; return it as it is then."""
        namespace, name = action.namespace, action.name
        if isinstance(action, SetDeadline):
            changed = await self._kube.set_deadline(
                namespace=namespace, name=name, uid=action.uid, seconds=action.deadline_seconds
            )
            return {**changed, "kind": "Pod"}
        if isinstance(action, OpenGate):
            return {**await self._kube.open_gate(namespace=namespace, name=name, uid=action.uid), "kind": "Pod"}
        return await self._kube.set_finalizers(
            kind=action.kind,
            namespace=namespace,
            name=name,
            finalizers=action.finalizers,
            resource_version=action.resource_version,
        )

    def _remember(self, written: JsonObject, manifest: JsonObject) -> bool:
        if manifest["kind"] not in REMEMBERED:  # applied anew beside each Job that needs it, so nobody watches it
            return False
        return bool(self._cache.put({**written, "kind": manifest["kind"], "apiVersion": manifest["apiVersion"]}))


def fields_of(raw: JsonObject) -> dict[str, Any]:
    """Return the log fields of a run."""
    return {"namespace": raw["metadata"]["namespace"], "finetune": raw["metadata"]["name"]}
