"""kopf at the edge: it watches what we need, filtered by the server, and writes nothing to any object."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf
import pytest

from rft_operator.domain.facts import Key
from rft_operator.handlers import build_registry, build_settings
from support.builders import NAME, NAMESPACE
from support.objects import stored_child, stored_node, stored_run
from support.running import Operator

OURS = "app.kubernetes.io/managed-by=rft-operator"


def handlers(operator: Operator) -> dict[str, Any]:
    return {str(each.id): each for each in build_registry(operator.runtime)._watching.get_all_handlers()}


async def woken(operator: Operator) -> Key:
    key, _ = await asyncio.wait_for(operator.runtime.queue.get(), timeout=10)
    operator.runtime.queue.done(key)
    return key


def test_every_kind_is_watched_and_nothing_else_is_registered() -> None:
    registry = build_registry(Operator().runtime)
    ours = ("reasoningfinetune", "finetunebudget")
    kinds = (*ours, "node", "pod", "job", "service", "configmap", "persistentvolumeclaim")
    assert {str(each.id) for each in registry._watching.get_all_handlers()} == {f"watch-{kind}" for kind in kinds}
    assert not registry._changing.get_all_handlers()
    assert not registry._spawning.get_all_handlers()
    assert not registry._indexing.get_all_handlers()
    assert not registry._webhooks.get_all_handlers()


@pytest.mark.parametrize(
    ("watch", "raw"),
    [
        ("watch-pod", stored_child("Pod", "p", uid="u", version=5)),
        ("watch-job", stored_child("Job", "j", uid="u", version=5)),
        ("watch-service", stored_child("Service", "s", uid="u", version=5)),
        ("watch-configmap", stored_child("ConfigMap", "c", uid="u", version=5)),
        ("watch-persistentvolumeclaim", stored_child("PersistentVolumeClaim", "d", uid="u", version=5)),
        ("watch-reasoningfinetune", stored_run(version=5)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_event_goes_into_the_cache_and_wakes_its_run(watch: str, raw: dict[str, Any]) -> None:
    it = Operator()
    it.runtime.leading = True
    key = Key(NAMESPACE, NAME)
    seen = handlers(it)[watch].fn
    await seen(event={"type": None, "object": raw}, logger=None, memo=None)
    assert await woken(it) == key
    assert it.runtime.cache.known_keys() == (key,)
    await seen(event={"type": "MODIFIED", "object": raw})
    assert len(it.runtime.queue) == 0
    await seen(event={"type": "DELETED", "object": raw})
    assert await woken(it) == key
    assert it.runtime.cache.known_keys() == ()
    assert it.sample("rft_watch_events_total", kind=raw["kind"]) == 3


async def test_node_goes_into_the_cache() -> None:
    it = Operator()
    await handlers(it)["watch-node"].fn(event={"type": "ADDED", "object": stored_node()})
    assert [node.name for node in it.runtime.cache.nodes()] == ["node-1"]


@pytest.mark.parametrize(
    ("group", "plural"),
    [
        ("", "pods"),
        ("batch", "jobs"),
        ("", "services"),
        ("", "configmaps"),
        ("", "persistentvolumeclaims"),
    ],
)
def test_children_are_filtered_by_the_server(group: str, plural: str) -> None:
    selectors = build_settings().watching.label_selectors
    resource = kopf.Resource(group=group, version="v1", plural=plural)
    assert list(selectors.collect(resource)) == [OURS]


@pytest.mark.parametrize(
    ("group", "plural"), [("", "nodes"), ("rft.dev", "reasoningfinetunes"), ("rft.dev", "finetunebudgets")]
)
def test_nodes_runs_and_budgets_are_watched_whole(group: str, plural: str) -> None:
    selectors = build_settings().watching.label_selectors
    assert list(selectors.collect(kopf.Resource(group=group, version="v1", plural=plural))) == []


def test_kopf_neither_scans_nor_peers_nor_posts_and_its_watches_end_by_themselves() -> None:
    settings = build_settings()
    assert settings.scanning.disabled
    assert settings.peering.standalone
    assert not settings.posting.enabled
    assert settings.watching.server_timeout is not None
    assert settings.networking.request_timeout is not None
