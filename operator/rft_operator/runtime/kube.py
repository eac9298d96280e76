"""The operator's view of the API server: eleven calls, one place for time-outs, metrics and error mapping.

Invariant: a method either returns or raises an error of :mod:`rft_operator.errors`; nothing of the client
library leaks out. The real implementation and the fake pass the same contract suite.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Protocol

from rft_operator.api import KIND

JsonObject = Mapping[str, Any]

FIELD_MANAGER = "rft-operator"
STATUS_FIELD_MANAGER = "rft-operator-status"


class Listed(list[JsonObject]):
    """Objects of a LIST, or of a page of it, and the resourceVersion at which these were all there were."""

    def __init__(self, objects: Iterable[JsonObject], *, version: str) -> None:
        super().__init__(objects)
        self.version = version


class Kube(Protocol):
    """What the reconciler needs of the API server. Kinds are Kubernetes kinds, for example ``Job``."""

    async def apply(self, manifest: JsonObject) -> JsonObject:
        """Server-side apply with force; return the object. An unchanged apply changes nothing."""
        ...

    async def create(self, manifest: JsonObject) -> JsonObject:
        """Create an object; Conflict if it exists."""
        ...

    async def apply_status(
        self, *, kind: str = KIND, namespace: str, name: str, status: JsonObject, resource_version: str
    ) -> JsonObject:
        """Apply the whole status of one of our resources; Conflict if it is no longer at ``resource_version``."""
        ...

    async def set_finalizers(
        self, *, kind: str, namespace: str, name: str, finalizers: Sequence[str], resource_version: str
    ) -> JsonObject:
        """Replace an object's finalizers; Conflict if it is no longer at ``resource_version``."""
        ...

    async def set_deadline(self, *, namespace: str, name: str, uid: str, seconds: int) -> JsonObject:
        """Lower a pod's activeDeadlineSeconds; NotFound if it is another pod, Rejected if it would be raised."""
        ...

    async def open_gate(self, *, namespace: str, name: str, uid: str) -> JsonObject:
        """Take our scheduling gate off a pod; NotFound if it is another pod."""
        ...

    async def delete(self, *, kind: str, namespace: str, name: str, uid: str | None = None) -> None:
        """Delete in the background; a missing object is no error, another uid is left alone."""
        ...

    async def get(self, *, kind: str, namespace: str | None, name: str) -> JsonObject:
        """Read one object; NotFound if absent. Of a Secret only the metadata is fetched."""
        ...

    def pages(
        self, *, kind: str, namespace: str | None = None, label_selector: str | None = None
    ) -> AsyncIterator[Listed]:
        """Read all objects of a kind page by page, so that they need not all be in memory at once.

        All pages are of one version.
        """
        ...

    async def list(self, *, kind: str, namespace: str | None = None, label_selector: str | None = None) -> Listed:
        """Read all objects of a kind."""
        ...

    async def emit(self, *, regarding: JsonObject, type_: str, reason: str, message: str) -> None:
        """Write a Kubernetes Event (events.k8s.io/v1) about an object; repeats of the same are counted up."""
        ...


class ObjectStore(Protocol):
    """What the Lease, the TLS Secret and token reviews need beside :class:`Kube`: plain creates and updates."""

    async def create(self, manifest: JsonObject) -> JsonObject:
        """Create an object; Conflict if it exists."""
        ...

    async def replace(self, manifest: JsonObject) -> JsonObject:
        """Replace an object; Conflict if it is no longer at the manifest's resourceVersion."""
        ...

    async def read(self, *, kind: str, namespace: str | None, name: str) -> JsonObject:
        """Read one whole object; NotFound if absent."""
        ...
