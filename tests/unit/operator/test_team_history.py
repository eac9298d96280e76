"""Team budgets under everything that can happen, in any order: no dollar is promised twice, none is spent too much.

Hypothesis draws the order; ``support.team_machine`` says what must hold after each step.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rft_operator.api import BUDGET_KIND, KIND
from rft_operator.domain.timestamps import rfc3339
from rft_operator.errors import Conflict, KubeError, Unavailable
from support.cluster import Fault
from support.draws import drawn
from support.team import team_budget
from support.team_machine import TeamMachine

NAMES = st.sampled_from(["a", "b", "c"])
DOLLARS = st.integers(1, 6)
DAY = 86_400
ERRORS: dict[str, Callable[[], KubeError]] = {
    "conflict": lambda: Conflict("late", status=409),
    "busy": lambda: Unavailable("busy", status=429),
    "down": lambda: Unavailable("down", status=500),
}
OFTEN_REACHED = ("gang", "done", "rest", "failed look", "failed settling", "robbed", "waited", "rolled")


class History(RuleBasedStateMachine):
    """What users, owners, the cluster and misfortune do."""

    reached: Counter[str] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()

    def drive(self, work: Any) -> None:
        self.loop.run_until_complete(work)

    @initialize(
        window=st.sampled_from(["none", "day", "week"]),
        limit=st.integers(3, 9),
        second=st.booleans(),
        dollars=st.lists(DOLLARS, max_size=3),
        depth=st.integers(0, 4),
        until_midnight=st.sampled_from([DAY, 1_500, 300]),
    )
    def begin(self, window: str, limit: int, second: bool, dollars: list[int], depth: int, until_midnight: int) -> None:
        budgets = [team_budget("team", limitUSD=limit, window=window)]
        if second:
            budgets.append(team_budget("all", limitUSD=limit + 2, window="day"))

        async def build() -> None:
            self.it = TeamMachine(*budgets)
            self.it.pass_time(DAY - until_midnight)
            await self.it.settle()
            for name, amount in zip("abc", dollars, strict=False):
                self.it.user_applies(name, amount)
            await self.it.bring_on(depth)

        self.drive(build())

    @rule(name=NAMES, dollars=DOLLARS)
    def user_applies_or_edits(self, name: str, dollars: int) -> None:
        if not self.it.exists(name):
            self.it.user_applies(name, dollars)
        elif not self.it.at(name).run.metadata.deletion_timestamp:
            self.it.user_edits_limit(name, dollars)

    @rule(name=NAMES, by_force=st.sampled_from([False, False, True]))
    def user_deletes(self, name: str, by_force: bool) -> None:
        if self.it.exists(name):
            self.it.user_deletes(name, by_force=by_force)

    @rule(limit=st.integers(0, 12))
    def owner_edits_the_limit(self, limit: int) -> None:
        self.it.owner_edits("team", limitUSD=limit)

    @rule()
    def owner_resets(self) -> None:
        self.it.owner_edits("team", resetTime=rfc3339(self.it.now))

    @rule()
    def gangs_start(self) -> None:
        self.it.gangs_start()

    @precondition(lambda self: self.it.running())
    @rule(which=st.integers(0, 2), done=st.booleans())
    def work_ends(self, which: int, done: bool) -> None:
        names = sorted({pod["metadata"]["labels"]["rft.dev/finetune"] for pod in self.it.running()})
        self.it.pods_end(names[which % len(names)], done=done)

    @rule(seconds=st.sampled_from([1, 20, 300, 1_500, 7_000]))
    def time_passes_unattended(self, seconds: int) -> None:
        self.it.pass_time(seconds)

    @rule(after=st.integers(0, 40))
    def midnight_passes_unattended(self, after: int) -> None:
        self.it.pass_time(DAY - self.it.now % DAY + after)
        self.reached["rolled"] += 1

    @rule(kind=st.sampled_from([KIND, BUDGET_KIND, "Pod"]))
    def watch_goes_deaf(self, kind: str) -> None:
        self.it.deaf.add(kind)

    @rule(
        error=st.sampled_from(sorted(ERRORS)),
        after=st.booleans(),
        skipped=st.integers(0, 3),
        then=st.sampled_from(["look", "settle", "nothing"]),
        name=NAMES,
    )
    def write_will_fail(self, error: str, after: bool, skipped: int, then: str, name: str) -> None:
        fault = Fault(ERRORS[error](), after and error != "conflict")
        self.it.kube.schedule += [*([None] * skipped), fault]
        if then == "look":
            self.drive(self.it.look(name))
        elif then == "settle":
            self.drive(self.it.keep())

    @rule(name=NAMES, times=st.sampled_from([1, 1, 6]))
    def operator_looks_at_a_run(self, name: str, times: int) -> None:
        for _ in range(times):
            self.drive(self.it.look(name))

    @rule()
    def operator_settles(self) -> None:
        self.drive(self.it.keep())

    @rule()
    def operator_restarts(self) -> None:
        self.it.deaf.clear()
        self.it.restart_operator()

    @rule()
    def everything_comes_to_rest(self) -> None:
        self.drive(self.it.check_rest())

    @rule()
    def runs_are_brought_on(self) -> None:
        """Steer towards gangs that live."""

        self.drive(self.it.bring_on(3))

    @invariant()
    def limits_hold(self) -> None:
        if hasattr(self, "it"):
            self.it.check()
            waits = [each for each in self.it.kube.find(KIND) if "TeamBudgetExhausted" in str(each.get("status"))]
            self.reached["waited"] += bool(waits)

    def teardown(self) -> None:
        try:
            if hasattr(self, "it"):
                self.drive(self.it.check_rest())
                self.reached.update(self.it.reached)
        finally:
            self.loop.close()


def test_no_history_promises_a_dollar_twice_or_spends_more_than_a_limit() -> None:
    History.reached.clear()
    run_state_machine_as_test(History, settings=drawn(60))
    missed = [state for state in OFTEN_REACHED if not History.reached[state]]
    assert not missed, f"the draw no longer reaches {missed}: {History.reached}"
