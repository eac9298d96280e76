"""Prepare ends: a download that hangs is given up, counted, and begun again."""

from __future__ import annotations

from typing import Any

import pytest

from rft_trainer.contract import Stage
from support.stage import World


async def prepare_hangs(**spec: Any) -> World:
    world = World(timeouts={"prepareSeconds": 100}, **spec)
    await world.settle()
    world.run_pods(Stage.PREPARE)
    await world.settle()
    await world.after(99)
    assert world.status.attempts[-1].stop_reason is None
    return world


async def test_prepare_is_given_up_and_begun_again_when_it_takes_longer_than_its_bound() -> None:
    world = await prepare_hangs()
    await world.after(1)
    attempt = world.status.attempts[-1]
    assert attempt.stop_reason == "PrepareTimeout"
    assert attempt.message == "Not prepared within 100 s (timeouts.prepareSeconds)."
    assert world.job_gone(Stage.PREPARE)
    await world.after(600)
    first, second = world.status.attempts
    assert (first.outcome, first.reason, first.counted) == ("Failed", "PrepareTimeout", True)
    assert (second.stage, second.number, second.end_time) == ("prepare", 2, None)


async def test_run_fails_with_the_reason_when_prepare_hangs_and_no_restart_is_left() -> None:
    world = await prepare_hangs(retries={"maxRestarts": 0})
    await world.after(1)
    await world.settle()
    failed = world.condition("Failed")
    assert (failed.status, failed.reason) == ("True", "BackoffLimitExceeded")
    assert "Not prepared within 100 s" in failed.message
    assert world.status.usage.gpu_seconds == 0


@pytest.mark.parametrize("stage", [Stage.TRAIN, Stage.EVALUATE])
async def test_bound_of_prepare_is_not_that_of_another_stage(stage: Stage) -> None:
    world = World(timeouts={"prepareSeconds": 60, "startupSeconds": 3_600})
    await world.to_training()
    if stage is Stage.EVALUATE:
        await world.to_evaluation()
    await world.after(120)
    assert (world.status.attempts[-1].stage, world.status.attempts[-1].stop_reason) == (stage.value, None)
