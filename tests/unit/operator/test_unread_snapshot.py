"""A run whose ConfigMap a newer operator wrote: what runs is looked after to its end, and nothing new begins."""

from __future__ import annotations

import json
from typing import Any

from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.stage import World

RUN = f"{NAME}-run"


def write_run(world: World, **change: Any) -> None:
    """Put other values into the run's ConfigMap; none: those that were there before."""

    def write(obj: dict[str, Any]) -> None:
        values = {key: value for key, value in json.loads(obj["data"]["run.json"]).items() if key != "of_tomorrow"}
        obj["data"] = {**obj["data"], "run.json": json.dumps({**values, **change})}

    world.kube.patch("ConfigMap", NAMESPACE, RUN, write)


async def rolled_back() -> World:
    world = World()
    await world.to_training()
    write_run(world, of_tomorrow=True)
    world.restart_operator()
    await world.settle()
    return world


async def test_it_is_told_once_in_words_that_name_the_field_and_the_remedy() -> None:
    world = await rolled_back()
    await world.after(10)
    found = world.condition("Progressing")
    assert (found.status, found.reason) == ("Unknown", "SnapshotUnreadable")
    assert "of_tomorrow" in found.message
    assert "Install the operator that wrote" in found.message
    assert world.reasons().count("SnapshotUnreadable") == 1
    assert await world.settle() == 0


async def test_its_bill_goes_on_and_it_is_suspended_with_a_checkpoint() -> None:
    world = await rolled_back()
    await world.after(100)
    before = world.status.cost.spent_micro_usd
    world.edit(suspend=True)
    await world.after(100)
    assert world.status.cost.spent_micro_usd > before
    assert world.job_gone(Stage.TRAIN)
    world.drain(Stage.TRAIN)
    await world.after(1)
    assert (world.status.stage, world.status.checkpoint.step) == ("Suspended", 20)
    assert not any(pod["metadata"].get("finalizers") for pod in world.kube.find("Pod"))


async def test_it_is_stopped_at_its_stop_line() -> None:
    world = await rolled_back()
    world.edit(budget={"limitUSD": "1.50"})
    await world.after(600)
    assert world.status.attempts[-1].stop_reason == "BudgetExhausted"


async def test_no_attempt_follows_until_it_can_be_read_again() -> None:
    world = await rolled_back()
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await world.settle()
    await world.after(600)
    assert [each.number for each in world.status.attempts if each.stage == "train"] == [1]
    assert world.condition("Progressing").reason == "SnapshotUnreadable"
    write_run(world)
    world.restart_operator()
    await world.settle()
    assert not world.job_gone(Stage.TRAIN, 2)
    assert world.condition("Progressing").reason == "NoReports"


async def test_it_can_be_suspended_and_deleted_while_nothing_runs() -> None:
    world = await rolled_back()
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await world.settle()
    world.edit(suspend=True)
    await world.settle()
    assert world.status.stage == "Suspended"
    await world.kube.delete(kind="ReasoningFinetune", namespace=NAMESPACE, name=NAME)
    await world.settle_deleted()
