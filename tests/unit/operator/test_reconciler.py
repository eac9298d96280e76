"""One reconcile at its edges: refused, interrupted, orphaned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from rft_operator.api.status import DisplayStage
from rft_operator.domain.actions import Apply, Emit, Plan
from rft_operator.domain.facts import FINALIZER, Key
from rft_operator.domain.timestamps import rfc3339
from rft_operator.domain.view import View
from rft_operator.errors import Conflict, KubeError, NotFound, Rejected, Unavailable
from rft_operator.runtime import reconciler
from rft_operator.runtime.cache import Cache
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.fake_kube import FakeKube
from support.objects import stored_child, stored_run
from support.stage import World

RUN = ("ReasoningFinetune", NAMESPACE, NAME)


def refuse_jobs(kube: FakeKube, error: KubeError) -> Callable[[], None]:
    """Let the API server refuse to apply Jobs; return what ends it."""
    apply = kube.apply

    async def refuse(manifest: Mapping[str, Any]) -> dict[str, Any]:
        if manifest["kind"] == "Job":
            raise error
        return await apply(manifest)

    kube.apply = refuse  # type: ignore[method-assign]

    def end() -> None:
        kube.apply = apply  # type: ignore[method-assign]

    return end


async def until(world: World, error: type[KubeError]) -> None:
    """Reconcile until that error comes."""
    for _ in range(10):
        try:
            await world.reconciler.reconcile(world.key)
        except error:
            return
    pytest.fail(f"no {error.__name__} came")


async def until_nobody_asks(world: World) -> None:
    """Reconcile as long as that is asked for, with watches that tell nothing new: the answers were first."""
    world.kube.subscribers.clear()
    again: float | None = 0.0
    while again is not None and again < 1:
        again = await world.reconciler.reconcile(world.key)


async def test_unknown_run_is_nothing_to_do() -> None:
    world = World()
    assert await world.reconciler.reconcile(Key(NAMESPACE, "nobody")) is None
    assert world.kube.writes == 0


async def test_run_with_a_spoilt_snapshot_is_announced_and_does_not_stop_the_operator() -> None:
    world = World()
    await world.settle()
    name = f"{NAME}-run"
    spoilt = {**world.kube.objects["ConfigMap", NAMESPACE, name], "data": {"run.json": "{"}}
    world.cache.put({**spoilt, "metadata": {**spoilt["metadata"], "resourceVersion": str(10**6)}})
    await world.reconciler.reconcile(world.key)
    assert world.kube.events[-1][:2] == ("Warning", "SnapshotUnreadable")


async def test_refused_action_is_announced_in_the_words_of_the_api_server_and_repeated_later() -> None:
    world = World()
    allow = refuse_jobs(world.kube, Rejected("jobs is forbidden: exceeded quota: gpus", status=403))
    await until(world, Rejected)
    assert world.reasons().count("Refused") == 1
    assert ("Warning", "Refused", "jobs is forbidden: exceeded quota: gpus") in world.kube.events
    assert not world.kube.find("Job")
    allow()
    await world.settle()
    assert world.kube.find("Job")


@pytest.mark.parametrize("error", [Unavailable("down"), Conflict("late"), NotFound("no namespace"), Rejected("no")])
async def test_what_is_on_record_is_announced_although_an_action_failed(
    error: KubeError, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    done: list[str] = []

    def decide(view: View, now: int) -> Plan:
        actions = [Apply(manifest={"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": n}}) for n in "abc"]
        return Plan(
            status=view.resource.status.model_copy(update={"stage": DisplayStage.PENDING}),
            actions=tuple(actions),
            events=(Emit(type="Normal", reason="AttemptStarted", message="Attempt 1."),),
        )

    async def fail_at_the_second(manifest: Mapping[str, Any]) -> dict[str, Any]:
        done.append(manifest["metadata"]["name"])
        if len(done) == 2:
            raise error
        return stored_child("ConfigMap", manifest["metadata"]["name"], uid=manifest["metadata"]["name"])

    monkeypatch.setattr(reconciler, "plan", decide)
    world.kube.apply = fail_at_the_second  # type: ignore[method-assign]
    with pytest.raises(type(error)):
        await world.reconciler.reconcile(world.key)
    assert done == ["a", "b"]
    assert world.status.stage == DisplayStage.PENDING
    assert world.reasons()[0] == "AttemptStarted"


async def test_nothing_is_done_and_nothing_announced_when_the_status_cannot_be_written() -> None:
    world = World()

    async def conflict(**_: Any) -> dict[str, Any]:
        raise Conflict("late", status=409)

    world.kube.apply_status = conflict  # type: ignore[method-assign]
    await until(world, Conflict)
    assert world.kube.writes == 0
    assert world.kube.events == []
    assert not world.kube.find("ConfigMap")


async def test_status_is_written_at_the_version_that_was_read() -> None:
    world = World()
    stale = dict(world.kube.objects[RUN])
    world.kube.subscribers.clear()
    world.edit(suspend=True)
    assert world.cache.resource(world.key) != world.kube.objects[RUN]
    await until(world, Conflict)
    assert world.kube.objects[RUN].get("status") == stale.get("status")


async def test_pod_that_vanished_meanwhile_is_no_error() -> None:
    world = World()
    await world.to_training()
    world.complete(Stage.TRAIN)
    world.kube.subscribers.clear()

    async def gone(**_: Any) -> dict[str, Any]:
        raise NotFound("pods not found", status=404)

    world.kube.set_finalizers = gone  # type: ignore[method-assign]
    for _ in range(6):
        await world.reconciler.reconcile(world.key)
    assert world.condition("Trained").status == "True"


async def test_bill_is_closed_when_the_watch_tells_nothing_new_of_the_pods_that_were_let_go() -> None:
    world = World()
    await world.to_training()
    await world.after(2)
    world.complete(Stage.TRAIN)
    await until_nobody_asks(world)
    ledger = world.status.ledger
    assert (len(ledger.open), len(ledger.uncounted)) == (0, 0)
    assert [(each.stage, each.gpu_seconds) for each in ledger.totals] == [("train", 2 * 3)]


async def test_bill_is_closed_when_a_pod_was_taken_away_and_nothing_else_happens() -> None:
    world = World()
    await world.to_training()
    await world.after(2)
    rank, _ = world.pods(Stage.TRAIN)
    name = rank["metadata"]["name"]
    world.kube.patch("Pod", NAMESPACE, name, lambda obj: obj["metadata"].update(finalizers=[]))
    world.kube.remove("Pod", NAMESPACE, name)
    await until_nobody_asks(world)
    ledger = world.status.ledger
    assert (len(ledger.open), len(ledger.uncounted)) == (1, 0)
    assert [(each.stage, each.gpu_seconds) for each in ledger.totals] == [("train", 3)]


async def test_pod_is_let_go_when_it_ends_on_a_node_that_came_back_and_no_other_news_comes() -> None:
    """The bill's end goes on record, the pod waits for that, and no other GPU is held whose bill is looked at."""
    world = World(evaluation=None)
    await world.to_training()
    await world.after(2)
    node_is(world, "Unknown")
    world.edit(suspend=True)
    await world.after(40)
    drained, lost = world.pods(Stage.TRAIN)
    gone = {"deletionTimestamp": rfc3339(world.now + 300), "deletionGracePeriodSeconds": 300}
    for pod in (drained, lost):
        world.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], lambda obj: obj["metadata"].update(gone))
    world.set_status(drained, phase="Failed", exit_code=75)
    await world.after(60)
    node_is(world, "True")
    await world.after(5)
    world.set_status(lost, phase="Failed", exit_code=137)
    await until_nobody_asks(world)
    ledger = world.status.ledger
    assert (len(ledger.open), len(ledger.uncounted)) == (0, 0)
    assert not [pod for pod in world.pods(Stage.TRAIN) if FINALIZER in pod["metadata"].get("finalizers", ())]


def node_is(world: World, ready: str) -> None:
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": rfc3339(world.now)}
    world.kube.patch("Node", "", "node-2", lambda obj: obj.setdefault("status", {}).update(conditions=[condition]))


class Orphans:
    """Pods with our finalizer whose run is gone."""

    def __init__(self, *pods: str) -> None:
        self.world = World()
        self.world.kube.objects.clear()
        self.kube = self.world.kube
        self.world.cache.drop(stored_run(uid=self._uid_of_the_run()))
        for name in pods:
            self.kube.put(
                stored_child("Pod", name, uid=f"uid-{name}", metadata={"finalizers": ["example.com/other", FINALIZER]})
            )

    def _uid_of_the_run(self) -> str:
        raw = self.world.cache.resource(self.world.key)
        assert raw is not None
        uid: str = raw["metadata"]["uid"]
        return uid

    async def reconcile(self) -> float | None:
        return await self.world.reconciler.reconcile(self.world.key)

    def finalizers(self, name: str) -> list[str]:
        found: list[str] = self.kube.objects["Pod", NAMESPACE, name]["metadata"]["finalizers"]
        return found


async def test_our_finalizer_comes_off_pods_whose_run_is_gone_and_others_stay() -> None:
    it = Orphans("a", "b")
    assert await it.reconcile() is None
    assert it.finalizers("a") == it.finalizers("b") == ["example.com/other"]
    writes = it.kube.writes
    await it.reconcile()
    assert it.kube.writes == writes


async def test_deleted_pod_of_a_run_that_is_gone_disappears() -> None:
    it = Orphans()
    raw = stored_child("Pod", "a", uid="u", metadata={"finalizers": [FINALIZER]})
    it.kube.put(raw)
    it.kube.remove("Pod", NAMESPACE, "a")
    await it.reconcile()
    assert not it.kube.find("Pod")
    assert it.world.cache.known_keys() == ()


async def test_finalizer_stays_when_the_run_exists_after_all() -> None:
    it = Orphans("a")
    it.kube.subscribers.clear()
    it.kube.put(stored_run(uid="missed by the watch"))
    assert await it.reconcile() == 0
    assert FINALIZER in it.finalizers("a")
    found = it.world.cache.resource(it.world.key)
    assert found is not None
    assert found["metadata"]["uid"] == "missed by the watch"


async def test_orphan_that_changed_meanwhile_is_released_later_and_the_others_now() -> None:
    it = Orphans("a", "b")
    watching = it.kube.subscribers[:]
    it.kube.subscribers.clear()
    it.kube.patch("Pod", NAMESPACE, "a", lambda obj: obj.update(status={"phase": "Failed"}))
    with pytest.raises(Conflict):
        await it.reconcile()
    assert FINALIZER in it.finalizers("a")
    assert it.finalizers("b") == ["example.com/other"]
    it.kube.subscribers = watching
    it.kube.patch(
        "Pod", NAMESPACE, "a", lambda obj: obj["metadata"].update(labels={**obj["metadata"]["labels"], "x": "y"})
    )
    await it.reconcile()
    assert it.finalizers("a") == ["example.com/other"]


async def test_orphans_are_released_later_when_the_api_server_does_not_answer() -> None:
    it = Orphans("a")
    get = it.kube.get

    async def down(**_: Any) -> dict[str, Any]:
        raise Unavailable("down")

    it.kube.get = down  # type: ignore[method-assign]
    with pytest.raises(Unavailable):
        await it.reconcile()
    assert FINALIZER in it.finalizers("a")
    it.kube.get = get  # type: ignore[method-assign]
    await it.reconcile()
    assert it.finalizers("a") == ["example.com/other"]


async def test_stray_pods_without_our_finalizer_cost_no_call() -> None:
    it = Orphans()
    it.world.cache = Cache()
    it.kube.put(stored_child("Pod", "a", uid="u"))
    await it.reconcile()
    assert it.kube.writes == 0
