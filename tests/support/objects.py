"""Objects as the API server hands them out: with uid and resourceVersion, for tests of what takes them in."""

from __future__ import annotations

from typing import Any

from support.builders import NAME, NAMESPACE, UID, node, resource

API_VERSIONS = {"Job": "batch/v1"}


def stored_run(
    *, name: str = NAME, uid: str = UID, version: int = 1, metadata: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    """Return a stored ReasoningFinetune; ``fields`` replace top-level fields such as ``status``."""
    raw = resource(name)
    meta = {"uid": uid, "resourceVersion": str(version), "generation": 1, **(metadata or {})}
    return {**raw, "metadata": {**raw["metadata"], **meta}, **fields}


def stored_child(
    kind: str,
    name: str,
    *,
    uid: str,
    version: int = 1,
    finetune: str = NAME,
    metadata: dict[str, Any] | None = None,
    **fields: Any,
) -> dict[str, Any]:
    """Return a stored child of a run's first training attempt."""
    labels = {
        "app.kubernetes.io/managed-by": "rft-operator",
        "rft.dev/finetune": finetune,
        "rft.dev/stage": "train",
        "rft.dev/attempt": "1",
    }
    meta = {"name": name, "namespace": NAMESPACE, "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {
        "apiVersion": API_VERSIONS.get(kind, "v1"),
        "kind": kind,
        "metadata": {**meta, **(metadata or {})},
        **({"spec": {}} if kind in ("Pod", "Job") else {}),
        **fields,
    }


def stored_node(name: str = "node-1", *, uid: str = "node-uid", version: int = 1, **fields: Any) -> dict[str, Any]:
    """Return a stored Node; ``fields`` are those of the builder."""
    raw = node(name, **fields)
    return {**raw, "metadata": {**raw["metadata"], "uid": uid, "resourceVersion": str(version)}}
