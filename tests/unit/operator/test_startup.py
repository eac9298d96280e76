"""The start-up of a gang: measured once for each attempt, and counted with before the next one (E2)."""

from __future__ import annotations

from typing import Any

from rft_operator.domain.facts import Settings
from rft_operator.domain.timestamps import rfc3339
from rft_trainer.contract import Stage
from support.builders import NAMESPACE
from support.stage import World

TWO_GPUS: dict[str, Any] = {"evaluation": None, "checkpoint": {"graceSeconds": 30}}
"""At $3.60 per GPU-hour they cost $0.002 a second; a stop takes 60 s at most, a minute of work and the stop $0.24."""


def settings(expected: int) -> Settings:
    return Settings(
        trainer_image="trainer", progress_url="https://rft:8443", progress_ca="PEM", expected_startup_seconds=expected
    )


def world(limit: str, *, expected: int = 0, **spec: Any) -> World:
    return World(settings=settings(expected), **{**TWO_GPUS, "budget": {"limitUSD": limit}, **spec})


def last_training(it: World) -> Any:
    return [each for each in it.status.attempts if each.stage == "train"][-1]


async def started(it: World, *, bound: int, step: int) -> None:
    """Let an attempt be bound for so long before its container starts, and before its first step."""
    await it.settle()
    number = last_training(it).number
    it.create_pods(Stage.TRAIN, number)
    for index, pod in enumerate(it.pods(Stage.TRAIN, number)):
        it.bind(pod, f"node-{index + 1}")
    await it.after(bound)
    for pod in it.pods(Stage.TRAIN, number):
        it.set_status(pod, phase="Running", running=True)
    await it.after(step)
    it.report(step=(last_training(it).start_step or 0) + 1, attempt=number)
    await it.after(1)


async def prepared(it: World) -> None:
    await it.settle()
    it.run_pods(Stage.PREPARE)
    it.complete(Stage.PREPARE)
    await it.settle()


async def test_run_is_let_in_only_if_it_can_afford_the_start_up_that_is_expected() -> None:
    rich, poor = world("0.45", expected=100), world("0.43", expected=100)
    await rich.settle()
    await poor.settle()
    assert rich.condition("Accepted").status == "True"
    assert poor.condition("Accepted").reason == "BudgetInsufficient"
    assert "need at least $0.44 to start (about 100 s) and to stop in time" in poor.condition("Accepted").message


async def test_start_up_is_counted_no_longer_than_it_is_waited_for() -> None:
    it = world("0.45", expected=7_200, timeouts={"startupSeconds": 100})
    await it.settle()
    assert it.condition("Accepted").status == "True"


async def test_attempt_puts_on_record_when_it_was_bound_and_when_it_made_its_first_step() -> None:
    it = world("10")
    await prepared(it)
    begin = it.now
    await started(it, bound=40, step=50)
    attempt = last_training(it)
    assert attempt.bound_time is not None
    it.report(step=30)
    await it.after(100)
    again = last_training(it)
    assert (again.bound_time, again.first_step_time) == (attempt.bound_time, attempt.first_step_time)
    assert attempt.first_step_time.startswith("2026-01-01T00:01:3"), (begin, attempt.first_step_time)


async def test_next_attempt_counts_with_the_start_up_of_the_last() -> None:
    it = world("1.00")
    await prepared(it)
    await started(it, bound=100, step=100)
    it.report(step=20, checkpoint=20)
    await it.after(1)
    it.finish_pods(Stage.TRAIN, exit_code=1)
    await it.after(30)
    # $0.40 and a little are spent; 200 s of start-up, a minute and the stop cost $0.64.
    assert it.condition("Failed").reason == "BudgetExhausted"
    assert "to start (about 200 s)" in it.condition("Failed").message
    assert last_training(it).number == 1


async def test_attempt_that_never_made_a_step_was_starting_until_all_ranks_ran() -> None:
    it = world("1.00")
    await prepared(it)
    it.create_pods(Stage.TRAIN)
    for index, pod in enumerate(it.pods(Stage.TRAIN)):
        it.bind(pod, f"node-{index + 1}")
    await it.after(200)
    for pod in it.pods(Stage.TRAIN):
        it.set_status(pod, phase="Running", running=True)
    await it.after(5)
    it.finish_pods(Stage.TRAIN, exit_code=1)
    await it.after(30)
    assert "to start (about 200 s)" in it.condition("Failed").message


async def test_node_whose_clock_is_ahead_makes_no_start_up_too_long_to_be_paid_for() -> None:
    it = world("2")
    await prepared(it)
    it.create_pods(Stage.TRAIN)
    stamp = rfc3339(it.now + 7_200)

    def write(obj: dict[str, Any]) -> None:
        obj["status"]["containerStatuses"] = [{"name": "trainer", "state": {"running": {"startedAt": stamp}}}]

    for index, pod in enumerate(it.pods(Stage.TRAIN)):
        it.bind(pod, f"node-{index + 1}")
        it.set_status(pod, phase="Running", running=True)
        it.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], write)
    await it.after(5)
    it.finish_pods(Stage.TRAIN, exit_code=1)
    await it.after(1)
    await it.after(30)
    assert last_training(it).number == 2
