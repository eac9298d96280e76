"""The sweep: after it the cache is what the API server says, and every run is looked at."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.domain.facts import Key
from rft_operator.errors import Unavailable
from rft_operator.runtime.cache import Cache
from rft_operator.runtime.kube import Listed
from rft_operator.runtime.queue import WorkQueue
from rft_operator.runtime.sweep import sweep
from support.builders import NAME, NAMESPACE, node, resource
from support.fake_kube import FakeKube
from support.objects import stored_child

KEY = Key(NAMESPACE, NAME)


class Swept:
    """A fake cluster and what the operator knows of it."""

    def __init__(self) -> None:
        self.kube = FakeKube(lambda: 0)
        self.cache = Cache()
        self.queue: WorkQueue[Key] = WorkQueue()

    async def sweep(self, *namespaces: str) -> set[Key]:
        """Sweep, and return the keys that were enqueued."""
        await sweep(self.kube, self.cache, self.queue, namespaces=namespaces)
        keys: set[Key] = set()
        while len(self.queue):
            key, _ = await self.queue.get()
            self.queue.done(key)
            keys.add(key)
        return keys

    def put_pod(self, name: str = "demo-train-1-0", **labels: str) -> None:
        raw = stored_child("Pod", name, uid=f"uid-{name}", metadata={"resourceVersion": "0"})
        raw["metadata"]["labels"].update(labels)
        self.kube.put(raw)


async def test_everything_is_known_and_looked_at_after_the_first_sweep() -> None:
    it = Swept()
    it.kube.put(resource())
    it.kube.put(node())
    it.put_pod()
    assert await it.sweep() == {KEY}
    assert it.cache.resource(KEY) is not None
    assert [each.name for each in it.cache.nodes()] == ["node-1"]
    assert [each.name for each in it.cache.children(KEY).pods] == ["demo-train-1-0"]


async def test_every_run_is_looked_at_when_nothing_changed() -> None:
    it = Swept()
    it.kube.put(resource("one"))
    it.kube.put(resource("two"))
    await it.sweep()
    assert await it.sweep() == {Key(NAMESPACE, "one"), Key(NAMESPACE, "two")}


async def test_what_vanished_unseen_is_forgotten_and_its_run_is_looked_at() -> None:
    it = Swept()
    it.kube.put(resource())
    it.kube.put(node())
    it.put_pod()
    await it.sweep()
    for kind, namespace, name in list(it.kube.objects):
        it.kube.remove(kind, namespace, name)
    assert await it.sweep() == {KEY}
    assert it.cache.known_keys() == ()
    assert it.cache.nodes() == ()
    assert await it.sweep() == set()


async def test_pod_of_a_lost_run_is_looked_at_so_that_its_finalizer_comes_off() -> None:
    it = Swept()
    it.put_pod()
    assert await it.sweep() == {KEY}


async def test_children_of_others_are_not_taken_in() -> None:
    it = Swept()
    it.put_pod(**{"app.kubernetes.io/managed-by": "somebody-else"})
    assert await it.sweep() == set()


async def test_only_the_watched_namespaces_are_listed_but_all_nodes() -> None:
    it = Swept()
    it.kube.put(resource())
    it.kube.put(resource("far", namespace="elsewhere"))
    it.kube.put(node())
    assert await it.sweep(NAMESPACE, "third") == {KEY}
    assert len(it.cache.nodes()) == 1


async def test_object_that_appears_while_lists_run_is_not_dropped() -> None:
    it = Swept()
    it.kube.put(resource())
    await it.sweep()
    listing = it.kube.list

    async def list_late(*, kind: str, namespace: str | None = None, label_selector: str | None = None) -> Listed:
        listed = await listing(kind=kind, namespace=namespace, label_selector=label_selector)
        if kind == "ReasoningFinetune":
            it.cache.put(it.kube.put(resource("late")))
        return listed

    it.kube.list = list_late  # type: ignore[method-assign]
    assert await it.sweep() == {KEY, Key(NAMESPACE, "late")}


async def test_object_that_is_deleted_while_lists_run_does_not_come_back() -> None:
    it = Swept()
    it.kube.put(resource())
    await it.sweep()
    listing = it.kube.list

    async def list_late(*, kind: str, namespace: str | None = None, label_selector: str | None = None) -> Listed:
        listed = await listing(kind=kind, namespace=namespace, label_selector=label_selector)
        for raw in listed:
            it.cache.drop(raw)
        return listed

    it.kube.list = list_late  # type: ignore[method-assign]
    await it.sweep()
    assert it.cache.known_keys() == ()


async def test_nothing_is_dropped_when_a_list_fails() -> None:
    it = Swept()
    it.kube.put(resource())
    await it.sweep()

    async def refuse(**_: Any) -> Listed:
        raise Unavailable("no answer")

    it.kube.list = refuse  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await it.sweep()
    assert it.cache.known_keys() == (KEY,)
