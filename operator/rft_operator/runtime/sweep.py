"""Lists everything again now and then, because a watch can lose events (kopf never reports what vanished in a gap).

Invariant: after a sweep the cache holds nothing that is gone and lacks nothing that exists; every run is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence

from rft_operator.api import BUDGET_KIND
from rft_operator.domain.facts import LABEL_MANAGED_BY, MANAGED_BY, ChildKind, Key
from rft_operator.domain.observe import KIND
from rft_operator.runtime.budget_cache import BudgetCache, Change
from rft_operator.runtime.cache import Cache
from rft_operator.runtime.kube import Kube
from rft_operator.runtime.queue import WorkQueue

SELECTOR = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
KINDS = (KIND, *(kind.value for kind in ChildKind))


async def sweep(kube: Kube, cache: Cache, queue: WorkQueue[Key], *, namespaces: Sequence[str]) -> None:
    """List all kinds, repair the cache, and enqueue every run; raises KubeError when a LIST fails."""
    before_nodes = {node.name for node in cache.nodes()}
    nodes = await kube.list(kind="Node")
    changed = list(cache.drop_missing_nodes(before=before_nodes, listed=nodes))
    for node in nodes:
        changed += cache.put(node)
    for kind in KINDS:
        for namespace in namespaces or (None,):
            changed += await _repair(kube, cache, kind, namespace)
    for key in {*changed, *cache.known_keys()}:
        queue.add(key)


async def _repair(kube: Kube, cache: Cache, kind: str, namespace: str | None) -> list[Key]:
    """Make the cache what a LIST says; at most one page of it is in memory. Return the keys whose view changed."""
    before = cache.identities(kind, namespace=namespace)
    changed: list[Key] = []
    present: set[str] = set()
    version = ""
    async for page in kube.pages(kind=kind, namespace=namespace, label_selector=None if kind == KIND else SELECTOR):
        version = page.version
        for raw in page:
            changed += cache.put(raw)
            present.add(raw["metadata"]["uid"])
    return [*changed, *cache.drop_missing(kind, before=before, present=present, version=version)]


async def list_budgets(kube: Kube, budgets: BudgetCache, *, namespaces: Sequence[str]) -> list[Change | None]:
    """List all team budgets and repair their cache; return what changed. Raises KubeError when a LIST fails."""
    before = budgets.identities()
    listed = [
        raw
        for namespace in namespaces or (None,)
        async for page in kube.pages(kind=BUDGET_KIND, namespace=namespace)
        for raw in page
    ]
    changes = [budgets.put(raw) for raw in listed]
    return changes + [budgets.drop(raw) for raw in budgets.missing(before, listed)]
