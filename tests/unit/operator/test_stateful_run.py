"""A run under everything that can happen to it, in any order: the operator's core against a hostile cluster.

Hypothesis draws the order; ``support.witness`` says what must hold after each step. The draw is the same on every
machine, but changes with the code; so a few walks by hand go to each state that matters under the same watch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis.stateful import run_state_machine_as_test

from support.any_order import Run
from support.any_prices import FloatingRun
from support.any_queue import QueuedRun
from support.draws import drawn

OFTEN_REACHED = ("Complete", "Failed", "BudgetExhausted", "Suspended", "evaluate Succeeded", "deleted while training")


def walk(machine: type[Run], *, draws: int, often_reached: Sequence[str]) -> None:
    """Draw as many lives; fail if one of these states was never seen."""
    Run.reached.clear()
    run_state_machine_as_test(machine, settings=drawn(draws))
    missed = [state for state in often_reached if not Run.reached[state]]
    assert not missed, f"the draw no longer reaches {missed}: {Run.reached}"


def test_run_keeps_its_promises_when_anything_happens_in_any_order() -> None:
    walk(Run, draws=40, often_reached=OFTEN_REACHED)


def test_queued_run_keeps_its_promises_when_kueue_comes_between_in_any_order() -> None:
    walk(QueuedRun, draws=14, often_reached=("train Preempted", "evicted while running"))


def test_floating_run_keeps_its_promises_when_prices_are_edited_in_any_order() -> None:
    walk(FloatingRun, draws=10, often_reached=("repriced while running",))


def queued(*, evaluated: bool, cents: int) -> QueuedRun:
    """Return a queued run whose gang trains."""
    Run.reached.clear()
    run = QueuedRun()
    run.apply(
        depth="training",
        evaluated=evaluated,
        nodes=2,
        cents=cents,
        on_exhausted="stop",
        restarts=2,
        drains=["saves"],
    )
    return run


def test_queued_run_completes_when_it_was_preempted_twice() -> None:
    run = queued(evaluated=True, cents=1_000)
    for _ in range(2):
        run.kueue_evicts(first="nothing", seconds=40)
        run.holds()
        run.gang_starts()
        run.holds()
    run.work_is_done()
    run.gang_starts()
    run.work_is_done()
    run.holds()
    assert run.reached["evicted while running"] == 2
    assert run.reached["Complete"]
    run.teardown()


def test_limit_holds_when_kueue_starts_a_job_a_second_time_and_the_operator_is_down() -> None:
    run = queued(evaluated=False, cents=150)
    run.kueue_evicts_and_admits_while_the_operator_is_down(first="nothing", ran=500, drained=True, seconds=3_700)
    run.holds()
    run.time_passes(first="nothing", seconds=31)
    assert run.reached["train Preempted"]
    run.teardown()


Steps = list[tuple[str, dict[str, Any]]]
AT_ONCE = {"first": "nothing"}
TO_THE_END: Steps = [("work_is_done", {}), ("gang_starts", {}), ("work_is_done", {})]
UNTIL_THE_MONEY_ENDS: Steps = [
    ("trainer_reports", {**AT_ONCE, "step": 9, "saved": True}),
    *[("time_passes", {**AT_ONCE, "seconds": 200})] * 3,
    ("gang_starts", {}),
    ("work_is_done", {}),
]
WALKS: dict[str, Steps] = {
    "Complete": TO_THE_END,
    "evaluate Succeeded": TO_THE_END,
    "Failed": [("one_pod_ends", {**AT_ONCE, "index": 0, "how": 78}), ("time_passes", {**AT_ONCE, "seconds": 61})],
    "Suspended": [("user_suspends_or_resumes", AT_ONCE), ("time_passes", {**AT_ONCE, "seconds": 200})],
    "train NodeLost": [
        ("node_fails", {**AT_ONCE, "name": "node-1", "what": "silent"}),
        ("time_passes", {**AT_ONCE, "seconds": 200}),
    ],
    "deleted while training": [
        ("user_deletes_or_applies_again", {**AT_ONCE, "sure": True}),
        ("time_passes", {**AT_ONCE, "seconds": 200}),
    ],
    "BudgetExhausted": UNTIL_THE_MONEY_ENDS,
    "revived": [*UNTIL_THE_MONEY_ENDS, ("user_raises_the_limit", {"more": 1_000})],
}


@pytest.mark.parametrize("state", WALKS)
def test_run_keeps_its_promises_when_it_is_led_to(state: str) -> None:
    Run.reached.clear()
    run = Run()
    run.apply(
        depth="training",
        evaluated=True,
        nodes=2,
        cents=150 if state in ("BudgetExhausted", "revived") else 1_000,
        on_exhausted="stop",
        restarts=2,
        drains=["saves"],
    )
    for name, arguments in WALKS[state]:
        getattr(run, name)(**arguments)
        run.holds()
    run.teardown()
    assert Run.reached[state] > 0, f"the walk does not reach it: {Run.reached}"
