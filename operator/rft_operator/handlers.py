"""kopf at the edge: watch events go into the cache and the queue, and nothing else happens here.

Invariant: only ``on.event`` handlers, so kopf writes nothing to any object: no annotation, no finalizer.
"""

from __future__ import annotations

from typing import Any

import kopf

from rft_operator.api import BUDGET_KIND, BUDGET_PLURAL, GROUP, KIND, PLURAL, VERSION
from rft_operator.domain.facts import LABEL_MANAGED_BY, MANAGED_BY
from rft_operator.runtime.app import Runtime

WORKER_IDLE_SECONDS = 0.2
"""kopf keeps the last event of an object, whole, as long as its worker waits for another one."""
LIST_PAGE = 100
"""A page is decoded as a whole; smaller pages keep the peak of memory low."""

WATCHED = {
    "Pod": ("", "v1", "pods"),
    "Job": ("batch", "v1", "jobs"),
    "Service": ("", "v1", "services"),
    "ConfigMap": ("", "v1", "configmaps"),
    "PersistentVolumeClaim": ("", "v1", "persistentvolumeclaims"),
}


class NoDiffs(kopf.DiffBaseStorage):
    """kopf would copy every object of every event to compare it with its former self, for handlers we do not have."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return nothing to compare."""
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        """Return that nothing was kept."""

    def store(self, **_: Any) -> None:
        """Keep nothing."""


class NoProgress(kopf.ProgressStorage):
    """The same for the progress of handlers that are retried."""

    def fetch(self, **_: Any) -> None:
        """Return that nothing was kept."""

    def store(self, **_: Any) -> None:
        """Keep nothing."""

    def purge(self, **_: Any) -> None:
        """Keep nothing."""

    def touch(self, **_: Any) -> None:
        """Keep nothing."""

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        """Return the essence: there is no progress in it."""
        return essence


def build_registry(runtime: Runtime) -> kopf.OperatorRegistry:
    """Return a registry whose handlers feed ``runtime``."""
    registry = kopf.OperatorRegistry()
    ours = {KIND: (GROUP, VERSION, PLURAL), BUDGET_KIND: (GROUP, VERSION, BUDGET_PLURAL)}
    kinds = {**ours, "Node": ("", "v1", "nodes"), **WATCHED}
    for kind, place in kinds.items():
        _watch(runtime, registry, kind, place)
    kopf.on.login(registry=registry)(_login)
    return registry


def _watch(runtime: Runtime, registry: kopf.OperatorRegistry, kind: str, place: tuple[str, str, str]) -> None:
    @kopf.on.event(*place, registry=registry, id=f"watch-{kind.lower()}")
    async def seen(event: kopf.RawEvent, **_: Any) -> None:
        runtime.saw(kind, event.get("type"), event["object"])


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def build_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: filter on the server, no scanning, no peering, no events of its own."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = NoDiffs()
    settings.persistence.progress_storage = NoProgress()
    settings.queueing.idle_timeout = WORKER_IDLE_SECONDS
    settings.watching.chunk_size = LIST_PAGE
    settings.watching.server_timeout = 600
    settings.networking.request_timeout = 30
    settings.process.ultimate_exiting_timeout = 40
    for group, _, plural in WATCHED.values():
        settings.watching.label_selectors[group, plural] = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
    return settings
