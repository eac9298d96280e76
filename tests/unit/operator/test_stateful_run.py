"""A run under everything that can happen to it, in any order: the operator's core against a hostile cluster.

Hypothesis draws the order; ``support.witness`` says what must hold after each step. The draw is the same on every
machine, but changes with the code; so a few walks by hand go to each state that matters under the same watch.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from support.any_order import Run

OFTEN_REACHED = ("Complete", "Failed", "BudgetExhausted", "Suspended", "evaluate Succeeded", "deleted while training")


def test_run_keeps_its_promises_when_anything_happens_in_any_order() -> None:
    Run.reached.clear()
    run_state_machine_as_test(
        Run,
        settings=settings(
            max_examples=80,
            stateful_step_count=40,
            derandomize=True,
            deadline=None,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
    missed = [state for state in OFTEN_REACHED if not Run.reached[state]]
    assert not missed, f"the draw no longer reaches {missed}: {Run.reached}"


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
