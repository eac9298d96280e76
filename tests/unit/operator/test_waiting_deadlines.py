"""The limit holds without the operator also for pods that wait for a node, and whatever a node's clock says."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.domain.attempts import DEADLINE_TOLERANCE_SECONDS
from rft_operator.domain.budget import STOP_SLACK_SECONDS
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_trainer.contract import Stage
from support.builders import node
from support.stage import World

GPUS = 2


def catalogue(*prices: tuple[str, str]) -> PriceCatalogue:
    """Prices of instance types."""
    lines = [f'- {{name: {kind}, match: {{instanceType: {kind}}}, usdPerHour: "{price}"}}' for kind, price in prices]
    found, problems = PriceCatalogue.parse("\n".join(["version: 1", "prices:", *lines, ""]))
    assert not problems
    return found


async def waiting(**budget: Any) -> World:
    """A run whose training pods are made and not bound, at $3.60 per GPU-hour."""
    world = World(budget={"limitUSD": 100, **budget})
    world.catalogue = catalogue(("rft-local", "3.60"))
    await world.to_prepared()
    world.create_pods(Stage.TRAIN)
    await world.after(1)
    return world


def deadline(world: World) -> int:
    (found,) = {pod["spec"]["activeDeadlineSeconds"] for pod in world.pods(Stage.TRAIN, 1)}
    assert isinstance(found, int)
    return found


def worst_case_usd(world: World, *, usd_per_gpu_hour: float) -> float:
    """What the pods cost when nobody stops them before their deadline."""
    grace = world.status.attempts[-1].grace_seconds
    assert isinstance(grace, int)
    return GPUS * usd_per_gpu_hour * (deadline(world) + grace + STOP_SLACK_SECONDS) / 3_600


async def test_deadline_of_waiting_pods_is_lowered_when_the_limit_is() -> None:
    world = await waiting()
    before = deadline(world)
    world.edit(budget={"limitUSD": 20})
    await world.after(10)
    assert deadline(world) < before
    assert worst_case_usd(world, usd_per_gpu_hour=3.60) <= 20
    attempt = world.status.attempts[-1]
    assert attempt.deadline_seconds == deadline(world)
    assert float(attempt.worst_case_usd or "inf") <= 20


async def test_deadline_of_waiting_pods_is_lowered_when_the_price_rises() -> None:
    world = await waiting(usdPerGpuHour=None)
    world.catalogue = catalogue(("rft-local", "7.20"))
    await world.after(30)
    assert worst_case_usd(world, usd_per_gpu_hour=7.20) <= 100


async def test_deadline_of_waiting_pods_is_lowered_when_a_dear_node_joins_the_pool() -> None:
    world = await waiting(usdPerGpuHour=None)
    world.catalogue = catalogue(("rft-local", "3.60"), ("big", "36"))
    dear = node("node-9")
    dear["metadata"]["labels"]["node.kubernetes.io/instance-type"] = "big"
    world.kube.put(dear)
    await world.after(30)
    assert worst_case_usd(world, usd_per_gpu_hour=36) <= 100


async def test_deadline_of_waiting_pods_is_not_written_again_when_time_passes() -> None:
    world = await waiting()
    world.edit(budget={"limitUSD": 20})
    await world.after(10)
    lowered, written = deadline(world), world.kube.writes
    for _ in range(5):
        await world.after(60)
    assert deadline(world) == lowered
    assert world.kube.writes == written


@pytest.mark.parametrize("behind_seconds", [600, -600])
async def test_deadline_holds_when_the_clock_of_a_node_is_wrong(behind_seconds: int) -> None:
    world = World(budget={"limitUSD": 100})
    await world.to_training()
    start = rfc3339(world.now - behind_seconds)
    for pod in world.pods(Stage.TRAIN, 1):
        world.kube.patch("Pod", "team", pod["metadata"]["name"], lambda raw: raw["status"].update(startTime=start))
    bound_at = world.now
    await world.after(100)
    world.edit(budget={"limitUSD": 20})
    await world.after(10)
    stop_at = epoch(world.status.cost.stop_time or "")
    assert deadline(world) <= stop_at - bound_at + DEADLINE_TOLERANCE_SECONDS


async def with_a_node_that_is_not_ready() -> World:
    """A gang of which one rank has ended, and the other one runs on a node whose kubelet says that it is not ready."""
    world = World(budget={"limitUSD": 100})
    await world.to_training()
    await world.after(100)
    since = rfc3339(world.now)
    world.kube.patch(
        "Node",
        "",
        "node-2",
        lambda raw: raw["status"]["conditions"][0].update(status="False", lastTransitionTime=since),
    )
    await world.after(40)
    (pod,) = [each for each in world.pods(Stage.TRAIN, 1) if each["spec"]["nodeName"] == "node-1"]
    world.set_status(pod, phase="Failed", exit_code=75)
    return world


async def test_next_gang_waits_when_the_kubelet_of_a_node_that_is_not_ready_still_ends_a_pod() -> None:
    world = await with_a_node_that_is_not_ready()
    for _ in range(4):
        await world.after(5)
    assert world.pods(Stage.TRAIN, 1), "the pod of node-2 is in its grace"
    assert ("Job", "team", "demo-train-2") not in world.kube.objects


async def test_next_gang_starts_when_a_node_that_is_not_ready_has_not_ended_its_pod_long_after_its_grace() -> None:
    world = await with_a_node_that_is_not_ready()
    for _ in range(100):
        await world.after(30)
        if ("Job", "team", "demo-train-2") in world.kube.objects:
            break
    assert ("Job", "team", "demo-train-2") in world.kube.objects


@pytest.mark.parametrize("change", ["the limit", "the price"])
async def test_pods_that_a_quota_holds_up_get_the_deadline_that_holds_when_they_are_made(change: str) -> None:
    """They are made, bound and run to their deadline while the operator is down."""
    world = World(budget={"limitUSD": 100, "usdPerGpuHour": None})
    world.catalogue = catalogue(("rft-local", "3.60"))
    await world.to_prepared()
    first = world.job(Stage.TRAIN)["metadata"]["uid"]
    if change == "the limit":
        world.edit(budget={"limitUSD": 20})
    else:
        world.catalogue = catalogue(("rft-local", "18"))
    await world.after(10)
    assert world.job(Stage.TRAIN)["metadata"]["uid"] != first
    written = world.kube.writes
    await world.after(30)
    assert world.kube.writes == written, "once is enough"
    world.create_pods(Stage.TRAIN)
    most, price = (20, 3.60) if change == "the limit" else (100, 18)
    assert worst_case_usd(world, usd_per_gpu_hour=price) <= most
    assert [each.number for each in world.status.attempts if each.stage == "train"] == [1]
