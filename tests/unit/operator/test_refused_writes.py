"""Writes that the API server does not take: money is saved all the same, the user is told, and nobody spins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from rft_operator.domain.facts import FINALIZER, Key
from rft_operator.errors import KubeError, NotFound, Rejected, Unavailable
from rft_operator.runtime.kube_client import map_error
from rft_operator.runtime.queue import WorkQueue
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.stage import World

UNDECLARED = "failed to create typed patch object: .status.novel: field not declared in schema"
SPEC: dict[str, Any] = {"evaluation": None, "budget": {"limitUSD": 10, "usdPerGpuHour": "3.60"}}


async def in_training(**spec: Any) -> World:
    world = World(**{**SPEC, **spec})
    await world.to_training_at_once()
    world.report(step=1)
    await world.after(2)
    return world


def refuse_status(world: World) -> None:
    async def refuse(**_: Any) -> dict[str, Any]:
        raise Rejected(UNDECLARED, status=500)

    world.kube.apply_status = refuse  # type: ignore[method-assign]


@pytest.mark.parametrize("error", [Rejected("exceeded quota: objects", status=403), Unavailable("the webhook is down")])
async def test_suspended_run_gives_its_gpus_back_although_another_object_cannot_be_made(error: KubeError) -> None:
    world = await in_training()
    world.kube.remove("ConfigMap", NAMESPACE, f"{NAME}-run")
    apply = world.kube.apply

    async def refuse(manifest: Mapping[str, Any]) -> dict[str, Any]:
        if manifest["kind"] == "ConfigMap":
            raise error
        return await apply(manifest)

    world.kube.apply = refuse  # type: ignore[method-assign]
    world.edit(suspend=True)
    for _ in range(2):
        with pytest.raises(type(error)):
            await world.reconciler.reconcile(world.key)
    assert world.status.attempts[-1].stop_reason == "Suspended"
    assert world.job_gone(Stage.TRAIN)


@pytest.mark.parametrize("error", [Rejected("exceeded quota: objects", status=403), Unavailable("the webhook is down")])
async def test_stop_does_not_wait_for_a_long_back_off_although_another_object_cannot_be_made(error: KubeError) -> None:
    world = await in_training()
    world.kube.remove("ConfigMap", NAMESPACE, f"{NAME}-run")

    async def refuse(manifest: Mapping[str, Any]) -> dict[str, Any]:
        raise error

    world.kube.apply = refuse  # type: ignore[method-assign]
    queue: WorkQueue[Key] = WorkQueue()
    for _ in range(8):
        with pytest.raises(type(error)) as raised:
            await world.reconciler.reconcile(world.key)
        queue.failed(world.key, wish_seconds=raised.value.look_again_seconds)
        world.now += 30
    world.edit(suspend=True)
    with pytest.raises(type(error)) as raised:
        await world.reconciler.reconcile(world.key)
    assert world.status.attempts[-1].stop_reason == "Suspended"
    assert not world.job_gone(Stage.TRAIN), "its deletion rests on what is on record only now"
    assert queue.failed(world.key, wish_seconds=raised.value.look_again_seconds) <= 1
    queue.close()


async def test_stop_line_is_looked_at_in_time_although_a_deadline_is_refused() -> None:
    world = await in_training()
    world.edit(budget={"limitUSD": 3})

    async def refuse(**_: Any) -> dict[str, Any]:
        raise Rejected("pods are not to be changed", status=403)

    world.kube.set_deadline = refuse  # type: ignore[method-assign]
    with pytest.raises(Rejected) as raised:
        await world.reconciler.reconcile(world.key)
    wish = raised.value.look_again_seconds
    assert wish is not None
    assert 0 < wish <= world.settings.progress_write_seconds


async def test_user_is_told_and_gets_the_gpus_back_when_no_status_is_taken_of_a_suspended_run() -> None:
    world = await in_training()
    take = world.kube.apply_status
    refuse_status(world)
    world.edit(suspend=True)
    with pytest.raises(Rejected):
        await world.reconciler.reconcile(world.key)
    assert ("Warning", "Refused", UNDECLARED) in world.kube.events
    assert world.job_gone(Stage.TRAIN)
    world.now += 5
    world.drain(Stage.TRAIN)
    assert all(FINALIZER in pod["metadata"]["finalizers"] for pod in world.pods(Stage.TRAIN)), "they prove the bill"
    world.kube.apply_status = take  # type: ignore[method-assign]
    await world.settle()
    assert world.status.stage == "Suspended"
    assert world.status.usage.gpu_seconds == 2 * (2 + 5)
    assert not any(FINALIZER in pod["metadata"].get("finalizers", ()) for pod in world.pods(Stage.TRAIN))


async def test_run_that_may_go_on_keeps_its_gpus_when_no_status_is_taken() -> None:
    world = await in_training()
    refuse_status(world)
    world.now += 120
    with pytest.raises(Rejected):
        await world.reconciler.reconcile(world.key)
    assert not world.job_gone(Stage.TRAIN)
    assert len(world.pods(Stage.TRAIN)) == 2


async def test_user_is_told_when_the_operator_may_not_read_what_the_run_names() -> None:
    world = World(**SPEC, model={"uri": "hf://org/m", "secretRef": {"name": "hf-token"}})
    get = world.kube.get

    async def refuse(*, kind: str, namespace: str | None, name: str) -> dict[str, Any]:
        if kind == "Secret":
            raise map_error(403, b'{"message": "secrets is forbidden"}', what="get", headers={})
        return await get(kind=kind, namespace=namespace, name=name)

    world.kube.get = refuse  # type: ignore[method-assign]
    with pytest.raises(Rejected):
        await world.reconciler.reconcile(world.key)
    assert world.kube.events == [("Warning", "Refused", "get: 403: secrets is forbidden")]


async def test_look_fails_and_backs_off_when_the_run_itself_is_gone_before_its_finalizer() -> None:
    world = World(**SPEC)
    await world.settle()
    world.run_pods(Stage.PREPARE)
    await world.settle()
    world.complete(Stage.PREPARE)
    write = world.kube.set_finalizers

    async def gone(**words: Any) -> dict[str, Any]:
        world.kube.subscribers.clear()
        world.kube.objects.pop(("ReasoningFinetune", NAMESPACE, NAME), None)
        return await write(**words)

    world.kube.set_finalizers = gone  # type: ignore[method-assign]
    seen: list[str] = []
    for _ in range(20):
        try:
            seen.append(str(await world.reconciler.reconcile(world.key)))
        except NotFound:
            seen.append("not found")
    assert seen[-10:] == ["not found"] * 10
