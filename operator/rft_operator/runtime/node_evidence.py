"""What the API server knows of nodes that hold a run's GPUs and do not answer: asked only then, and only once.

Invariant: a node counts as gone only when the API server itself said so; a watch that is late makes nobody's bill end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rft_operator.api.ledger import Ledger
from rft_operator.domain.facts import NodeFacts
from rft_operator.errors import KubeError, NotFound
from rft_operator.runtime.kube import Kube

NODE_LEASES = "kube-node-lease"
"""Namespace in which each kubelet renews a Lease of its node's name every 10 s (KEP-589)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEvidence:
    """Signs of life of silent nodes, and the nodes that are gone."""

    last_seen: dict[str, int] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()


async def node_evidence(kube: Kube, ledger: Ledger, nodes: Sequence[NodeFacts]) -> NodeEvidence:
    """Return what the API server says of the silent and the missing nodes of a ledger's open entries."""
    known = {node.name: node for node in nodes}
    last_seen: dict[str, int] = {}
    gone: set[str] = set()
    for name in sorted({entry.node for entry in ledger.open}):
        node = known.get(name)
        if node is None:
            if await _is_gone(kube, name):
                gone.add(name)
        elif node.silent_since is not None and _is_news(ledger, name):
            renewed = await _renewed_at(kube, name)
            if renewed is not None:
                last_seen[name] = min(renewed, node.silent_since)
    return NodeEvidence(last_seen=last_seen, gone=frozenset(gone))


def _is_news(ledger: Ledger, node: str) -> bool:
    return any(entry.node == node and entry.disputed_since is None for entry in ledger.open)


async def _is_gone(kube: Kube, name: str) -> bool:
    try:
        await kube.get(kind="Node", namespace=None, name=name)
    except NotFound:
        return True
    return False


async def _renewed_at(kube: Kube, name: str) -> int | None:
    """Return the last renewal of a node's Lease; None if it cannot be told: the Ready condition must do then."""
    try:
        lease = await kube.get(kind="Lease", namespace=NODE_LEASES, name=name)
        return int(datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp())
    except (KubeError, KeyError, ValueError):
        return None
