"""Jobs that somebody else deleted: pods without one are ended as any other, and nothing waits for more."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.api import KIND
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.run_steps import to_unbound_gang
from support.stage import World


async def orphaned(stage: Stage, **spec: Any) -> World:
    """A run whose pods have lost their Job."""
    world = World(evaluation=None, **spec)
    if stage is Stage.TRAIN:
        await world.to_training()
    else:
        await world.settle()
        world.run_pods(stage)
    await world.settle()
    orphan(world, stage)
    await world.after(5)
    return world


def orphan(world: World, stage: Stage) -> None:
    """Take the Job from its pods."""
    for pod in world.pods(stage):
        world.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], lambda obj: obj["metadata"].pop("ownerReferences"))
    world.kube.remove("Job", NAMESPACE, f"{NAME}-{stage.value}-1")


def deadlines(world: World, stage: Stage) -> list[int | None]:
    return [pod["spec"].get("activeDeadlineSeconds") for pod in world.pods(stage)]


async def test_orphaned_gang_goes_on_as_long_as_nobody_asks_it_to_stop() -> None:
    world = await orphaned(Stage.TRAIN)
    assert 1 not in deadlines(world, Stage.TRAIN)
    assert world.status.attempts[-1].end_time is None
    world.complete(Stage.TRAIN)
    await world.after(1)
    assert world.status.stage == "Complete"


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.TRAIN])
async def test_orphaned_pods_are_ended_by_their_kubelet_when_the_run_is_suspended(stage: Stage) -> None:
    world = await orphaned(stage)
    world.edit(suspend=True)
    await world.settle()
    assert set(deadlines(world, stage)) == {1}
    world.finish_pods(stage, exit_code=75)
    await world.after(1)
    assert world.status.stage == "Suspended"


async def test_orphaned_pods_do_not_hold_up_the_deletion_of_their_run() -> None:
    world = await orphaned(Stage.TRAIN)
    world.kube.remove(KIND, NAMESPACE, NAME)
    await world.reconciler.reconcile(world.key)
    assert deadlines(world, Stage.TRAIN) == [1, 1]
    assert await world.settle() == 0, "once is enough"
    world.finish_pods(Stage.TRAIN, exit_code=75)
    await world.settle()
    assert not world.kube.find(KIND)


async def test_orphaned_pods_of_a_run_that_cannot_be_read_are_ended() -> None:
    world = await orphaned(Stage.TRAIN)
    world.kube.patch(KIND, NAMESPACE, NAME, lambda obj: obj["spec"].update(novel=True))
    await world.settle()
    assert deadlines(world, Stage.TRAIN) == [1, 1]


@pytest.mark.parametrize("deleted", [False, True])
async def test_orphaned_pods_that_no_node_has_hold_nothing_up(deleted: bool) -> None:
    world = World(evaluation=None)
    await to_unbound_gang(world)
    orphan(world, Stage.TRAIN)
    await world.after(5)
    if deleted:
        world.kube.remove(KIND, NAMESPACE, NAME)
        await world.settle()
        assert not world.kube.find(KIND)
        return
    world.edit(suspend=True)
    await world.settle()
    assert world.status.stage == "Suspended"
    world.edit(suspend=False)
    await world.settle()
    assert not world.job_gone(Stage.TRAIN, 2)


async def test_attempt_ends_when_its_job_is_being_deleted_before_it_made_all_pods_and_waits_for_those_it_made() -> None:
    world = World(evaluation=None)
    await world.to_prepared()
    world.create_pods(Stage.TRAIN, ranks=[0])
    (pod,) = world.pods(Stage.TRAIN)
    world.bind(pod, "node-1")
    await world.after(5)
    job = "Job", NAMESPACE, f"{NAME}-train-1"
    world.kube.patch(*job, lambda obj: obj["metadata"].update(finalizers=["foregroundDeletion"]))
    world.kube.remove(*job)
    world.set_status(pod, phase="Failed", exit_code=76)
    await world.after(1)
    trained = [each for each in world.status.attempts if each.stage == "train"]
    assert [(each.number, each.reason) for each in trained] == [(1, "DrainedWithoutCheckpoint"), (2, None)]
