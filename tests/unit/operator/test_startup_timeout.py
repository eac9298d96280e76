"""Two bounds, one after the other: until all ranks run (pendingSeconds), and from then to the first step."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.domain.timestamps import rfc3339
from rft_trainer.contract import Stage
from support.builders import NAMESPACE
from support.run_steps import to_unbound_gang
from support.stage import World

TIMEOUTS = {"pendingSeconds": 600, "startupSeconds": 100}


def start(world: World, rank: int) -> None:
    pod = world.pods(Stage.TRAIN)[rank]
    world.bind(pod, f"node-{rank + 1}")
    world.set_status(pod, phase="Running", running=True)


async def test_startup_is_timed_from_when_the_last_rank_runs() -> None:
    world = World(timeouts=TIMEOUTS)
    await to_unbound_gang(world)
    start(world, 0)
    await world.after(300)
    assert world.status.attempts[-1].stop_reason is None, "it waits for a node, which has its own bound"
    start(world, 1)
    await world.settle()
    await world.after(99)
    assert world.status.attempts[-1].stop_reason is None
    await world.after(1)
    attempt = world.status.attempts[-1]
    assert attempt.stop_reason == "StartupTimeout"
    assert attempt.message == "No step within 100 s after all ranks ran (timeouts.startupSeconds)."
    assert world.job_gone(Stage.TRAIN)


@pytest.mark.parametrize("skew_seconds", [-3_600, 3_600])
async def test_startup_is_not_timed_by_the_clocks_of_nodes(skew_seconds: int) -> None:
    world = World(timeouts=TIMEOUTS)
    await to_unbound_gang(world)
    for rank in (0, 1):
        start(world, rank)
    stamp = rfc3339(world.now + skew_seconds)

    def write(obj: dict[str, Any]) -> None:
        obj["status"]["containerStatuses"] = [{"name": "trainer", "state": {"running": {"startedAt": stamp}}}]

    for pod in world.pods(Stage.TRAIN):
        world.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], write)
    await world.settle()
    await world.after(99)
    assert world.status.attempts[-1].stop_reason is None
    await world.after(1)
    assert world.status.attempts[-1].stop_reason == "StartupTimeout"


async def test_startup_is_timed_from_when_the_operator_listens_again() -> None:
    world = World(timeouts=TIMEOUTS)
    await world.to_training()
    world.now += 95
    world.restart_operator()
    await world.after(5)
    assert world.status.attempts[-1].stop_reason is None, "nobody could have heard a report"


async def test_startup_bound_is_over_with_the_first_step() -> None:
    world = World(timeouts={**TIMEOUTS, "stallSeconds": 900})
    await world.to_training()
    world.report(step=1)
    await world.after(200)
    assert world.status.attempts[-1].stop_reason is None
