"""When a stage is tried again: at once after bad luck, later and later when bad luck is all there is."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.domain import pauses
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.run_steps import silence_node
from support.stage import World

LONG = 3_600


def preempt(world: World, stage: Stage, attempt: int) -> None:
    """The kubelet makes room as soon as the pods are bound."""
    world.create_pods(stage, attempt)
    condition = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}

    def write(obj: dict[str, Any]) -> None:
        obj["status"]["conditions"].append(condition)

    for index, pod in enumerate(world.pods(stage, attempt)):
        world.bind(pod, f"node-{index + 1}")
        world.set_status(pod, phase="Failed", exit_code=137)
        world.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], write)
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
    name = f"{world.key.name}-{stage.value}-{attempt}"
    world.kube.patch("Job", NAMESPACE, name, lambda obj: obj.update(status={"conditions": [failed]}))


async def seconds_until(world: World, stage: Stage, attempt: int) -> int:
    """Return after how many seconds the operator, which is woken when it asked for it, makes the attempt's Job."""
    since = world.now
    while world.job_gone(stage, attempt):
        assert world.now - since < LONG, "it is never tried again"
        world.now += int(await world.reconciler.reconcile(world.key) or 0)
        await world.settle()
    return world.now - since


async def to_stage(world: World, stage: Stage) -> None:
    await world.settle()
    if stage is Stage.TRAIN:
        world.run_pods(Stage.PREPARE)
        await world.after(5)
        world.complete(Stage.PREPARE)
        await world.after(1)


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.TRAIN])
async def test_stage_that_is_preempted_again_and_again_is_tried_later_and_later_and_never_given_up(
    stage: Stage,
) -> None:
    world = World()
    await to_stage(world, stage)
    gaps = []
    for attempt in range(1, 10):
        preempt(world, stage, attempt)
        gaps.append(await seconds_until(world, stage, attempt + 1))
    assert gaps == [0, 10, 20, 40, 80, 160, 300, 300, 300]
    assert world.status.restarts.toward_limit == 0
    assert world.condition("Failed") is None or world.condition("Failed").status != "True"


async def test_run_says_when_the_next_attempt_starts_while_it_waits_for_it() -> None:
    world = World()
    await to_stage(world, Stage.PREPARE)
    preempt(world, Stage.PREPARE, 1)
    await world.settle()
    preempt(world, Stage.PREPARE, 2)
    await world.settle()
    ended, waiting = world.now, world.condition("Progressing")
    message = f"Attempt 2 of stage prepare ended (Preempted); the next one starts at {rfc3339(ended + 10)}."
    assert (waiting.status, waiting.reason, waiting.message) == ("False", "BackOff", message)
    world.now += 5
    assert await world.settle() == 0, "waiting costs no write"
    await world.after(5)
    assert world.condition("Progressing").reason == "NoReports"


async def test_no_attempt_begins_when_the_bill_has_no_room_for_its_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pauses, "MAX_LEDGER_ENTRIES", 3)
    world = World(nodes=4)
    await world.to_training()
    for name in ("node-1", "node-2"):
        silence_node(world, name)
    await world.after(31)
    await world.after(60)
    assert world.status.attempts[-1].reason == "NodeLost"
    assert world.job_gone(Stage.TRAIN, 2), "two pods are on the bill, and two more would be one too many"
    waiting = world.condition("Progressing")
    assert (waiting.status, waiting.reason) == ("False", "LedgerFull")
    assert waiting.message.startswith("2 pods of former attempts")
    assert await world.settle() == 0
    for name in ("node-1", "node-2"):
        world.kube.remove("Node", "", name)
    assert await seconds_until(world, Stage.TRAIN, 2) <= 30


@pytest.mark.parametrize("over", [True, False])
async def test_run_that_waits_for_no_attempt_names_none(over: bool) -> None:
    world = World(retries={"maxRestarts": 0 if over else 1})
    await to_stage(world, Stage.PREPARE)
    world.run_pods(Stage.PREPARE, 1)
    world.finish_pods(Stage.PREPARE, 1, exit_code=1)
    if not over:
        world.edit(suspend=True)
    await world.settle()
    assert world.condition("Failed" if over else "Suspended").status == "True"
    assert world.condition("Progressing").reason == "NoAttempt"


async def test_stage_is_tried_at_once_when_its_last_attempt_had_lasted() -> None:
    world = World()
    await to_stage(world, Stage.PREPARE)
    for attempt in (1, 2, 3):
        preempt(world, Stage.PREPARE, attempt)
        await seconds_until(world, Stage.PREPARE, attempt + 1)
    world.now += 600
    preempt(world, Stage.PREPARE, 4)
    assert await seconds_until(world, Stage.PREPARE, 5) == 0
    preempt(world, Stage.PREPARE, 5)
    assert await seconds_until(world, Stage.PREPARE, 6) == 0, "the first one after it is the first of a new row"


async def test_training_is_tried_at_once_when_each_attempt_saved_something() -> None:
    world = World()
    await to_stage(world, Stage.TRAIN)
    for attempt in (1, 2, 3, 4):
        world.run_pods(Stage.TRAIN, attempt)
        await world.after(5)
        world.drain(Stage.TRAIN, attempt, step=10 * attempt)
        await world.settle()
        assert await seconds_until(world, Stage.TRAIN, attempt + 1) == 0


async def test_training_that_saves_the_same_step_again_waits() -> None:
    world = World()
    await to_stage(world, Stage.TRAIN)
    gaps = []
    for attempt in range(1, 6):
        world.run_pods(Stage.TRAIN, attempt)
        await world.after(5)
        world.drain(Stage.TRAIN, attempt, step=10)
        gaps.append(await seconds_until(world, Stage.TRAIN, attempt + 1))
    # The second attempt begins in the second of the first one's save.
    assert gaps == [0, 0, 0, 10, 20]


async def test_run_goes_on_at_once_when_its_user_suspended_and_resumed_it_several_times() -> None:
    world = World()
    await to_stage(world, Stage.TRAIN)
    for attempt in (1, 2, 3):
        world.run_pods(Stage.TRAIN, attempt)
        await world.after(5)
        world.edit(suspend=True)
        await world.after(1)
        world.finish_pods(Stage.TRAIN, attempt, exit_code=76)
        await world.after(1)
        world.edit(suspend=False)
        await world.settle()
        assert not world.job_gone(Stage.TRAIN, attempt + 1)


async def test_resumed_run_needs_no_news_but_its_own_writes_when_an_uninstall_took_its_finalizer() -> None:
    world = World()
    await to_stage(world, Stage.TRAIN)
    world.run_pods(Stage.TRAIN)
    await world.after(5)
    world.edit(suspend=True)
    await world.after(1)
    world.drain(Stage.TRAIN)
    await world.after(1)
    world.kube.patch("ReasoningFinetune", NAMESPACE, NAME, lambda obj: obj["metadata"].update(finalizers=[]))
    world.restart_operator()
    world.edit(suspend=False)
    looks = 0
    while await world.reconciler.reconcile(world.key) == 0:  # the operator's own writes wake nobody
        looks += 1
        assert looks < 9, "it comes to no rest"
    assert not world.job_gone(Stage.TRAIN, 2)


async def test_failures_that_count_wait_longer_each_time() -> None:
    world = World(retries={"maxRestarts": 9})
    await to_stage(world, Stage.PREPARE)
    pauses = []
    for attempt in range(1, 8):
        world.run_pods(Stage.PREPARE, attempt)
        world.finish_pods(Stage.PREPARE, attempt, exit_code=1)
        await world.settle()
        ended = epoch(world.status.attempts[-1].end_time)
        await seconds_until(world, Stage.PREPARE, attempt + 1)
        pauses.append(world.now - ended)
    assert pauses == [10, 20, 40, 80, 160, 300, 300]
