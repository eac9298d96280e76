"""kopf at the edge: watch events go into the cache and the queue, and nothing else happens here.

Invariant: only ``on.event`` handlers, so kopf writes nothing to any object: no annotation, no finalizer.
"""

from __future__ import annotations

from typing import Any

import kopf

from rft_operator.api import GROUP, KIND, PLURAL, VERSION
from rft_operator.domain.facts import LABEL_MANAGED_BY, MANAGED_BY
from rft_operator.runtime.app import Runtime

WATCHED = {
    "Pod": ("", "v1", "pods"),
    "Job": ("batch", "v1", "jobs"),
    "Service": ("", "v1", "services"),
    "ConfigMap": ("", "v1", "configmaps"),
    "PersistentVolumeClaim": ("", "v1", "persistentvolumeclaims"),
}


def build_registry(runtime: Runtime) -> kopf.OperatorRegistry:
    """Return a registry whose handlers feed ``runtime``."""
    registry = kopf.OperatorRegistry()
    kinds = {KIND: (GROUP, VERSION, PLURAL), "Node": ("", "v1", "nodes"), **WATCHED}
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
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 600
    settings.networking.request_timeout = 30
    settings.process.ultimate_exiting_timeout = 40
    for group, _, plural in WATCHED.values():
        settings.watching.label_selectors[group, plural] = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
    return settings
