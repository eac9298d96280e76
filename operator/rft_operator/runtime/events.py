"""Kubernetes Events in the events.k8s.io/v1 form: one object per thing that happens, repeats are counted up.

Invariant: the same reason and message about the same object never makes a second Event object while the first one
lives (the API server forgets Events after an hour).
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

from rft_operator.domain.plan import CONTROLLER_NAME
from rft_operator.errors import Conflict, NotFound
from rft_operator.runtime.kinds import ENDPOINTS
from rft_operator.runtime.kube import JsonObject, ObjectStore

NOTE_LIMIT_BYTES = 1_024


class EventWriter:
    """Writes Events and counts their repeats."""

    def __init__(self, store: ObjectStore, *, instance: str) -> None:
        self._store = store
        self._instance = instance[:128]

    async def emit(self, *, regarding: JsonObject, type_: str, reason: str, message: str) -> None:
        """Create the Event, or raise the count of the one that says the same."""
        note = message.encode()[:NOTE_LIMIT_BYTES].decode(errors="ignore")
        event = self._event(regarding, type_=type_, reason=reason, message=note)
        try:
            await self._store.create(event)
        except Conflict:
            await self._count_up(event)

    async def _count_up(self, event: JsonObject) -> None:
        meta = event["metadata"]
        try:
            existing = dict(await self._store.read(kind="Event", namespace=meta["namespace"], name=meta["name"]))
        except NotFound:
            await self._store.create(event)
            return
        count = (existing.get("series") or {}).get("count", 1)
        existing["series"] = {"count": count + 1, "lastObservedTime": event["eventTime"]}
        await self._store.replace(existing)

    def _event(self, regarding: JsonObject, *, type_: str, reason: str, message: str) -> dict[str, Any]:
        meta = regarding["metadata"]
        words = "\0".join((meta["uid"], type_, reason, message))
        digest = hashlib.sha256(words.encode()).hexdigest()[:16]
        return {
            "apiVersion": ENDPOINTS["Event"].api_version,
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{digest}", "namespace": meta["namespace"]},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER_NAME,
            "reportingInstance": self._instance,
            "action": "Reconcile",
            "reason": reason[:128],
            "note": message,
            "type": type_,
            "regarding": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "name": meta["name"],
                "namespace": meta["namespace"],
                "uid": meta["uid"],
            },
        }
