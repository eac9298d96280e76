"""A run under everything that can happen to it, in any order: the operator's core against a hostile cluster.

Hypothesis draws the order; ``support.machine`` says what must hold after each step. The draw is the same on every
machine, but changes with the code; so a few walks by hand go to each state that matters under the same watch.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rft_operator.api import KIND
from rft_operator.domain.facts import LABEL_FINETUNE
from rft_operator.errors import Conflict, Unavailable
from rft_trainer.contract import Outcome, Stage, StageResult
from support.builders import NAME, NAMESPACE
from support.cluster import NODE_PRICES, Fault, Object, holds_node, is_terminal
from support.machine import OperatedCluster

LIMITS_CENTS = (150, 220, 1_000)
FAULTS = {
    "409": Fault(Conflict("the object has been modified", status=409), after=False),
    "429": Fault(Unavailable("too many requests", status=429, retry_after_seconds=1), after=False),
    "500": Fault(Unavailable("internal error", status=500), after=False),
    "500 after the effect": Fault(Unavailable("internal error", status=500), after=True),
    "time-out": Fault(Unavailable("time-out"), after=False),
    "time-out after the effect": Fault(Unavailable("time-out"), after=True),
    "none": None,
}
DEPTHS = {"applied": 0, "training": 1, "trained": 2, "evaluating": 3}
EXITS = (1, 1, 75, 76, 78, 79, 137, "OOMKilled", "no result", "empty result")
reached: Counter[str] = Counter()


class Run(RuleBasedStateMachine):
    """One run, and what users, nodes, pods, the API server and the operator's process do."""

    def __init__(self) -> None:
        super().__init__()
        self.world: OperatedCluster

    @initialize(
        depth=st.sampled_from(("training", "training", "applied", "trained", "evaluating")),
        evaluated=st.sampled_from((True, True, False)),
        nodes=st.integers(1, 2),
        cents=st.sampled_from(LIMITS_CENTS),
        on_exhausted=st.sampled_from(("stop", "stop", "suspend")),
        restarts=st.integers(0, 2),
        drains=st.lists(st.sampled_from(("saves", "late", "unsaved", "ignores")), min_size=1, max_size=3),
    )
    def apply(self, depth: str, cents: int, drains: list[str], **choice: Any) -> None:
        self.spec = _spec(cents=cents, **choice)
        self.world = OperatedCluster(reached=reached, drains=drains, **self.spec)
        self.world.work()
        while self._depth() < DEPTHS[depth] and self._natural_step():
            self.world.advance(3)

    def _depth(self) -> int:
        done = {(each["stage"], each.get("outcome")) for each in self.world.known.get("attempts", ())}
        pods = [pod for pod in self.world.kube.find("Pod") if pod["status"]["phase"] == "Running"]
        stages = {pod["metadata"]["labels"]["rft.dev/stage"] for pod in pods}
        if ("train", "Succeeded") in done:
            return 3 if "evaluate" in stages else 2
        return 1 if "train" in stages else 0

    # -- what goes well ---------------------------------------------------------------------------------------

    def _natural_step(self) -> bool:
        """The next thing of an undisturbed life; False if the run is at its end."""
        world = self.world
        pods = [pod for pod in world.kube.find("Pod") if not is_terminal(pod)]
        if not pods:
            world.tick()
        elif any(not pod["spec"].get("nodeName") for pod in pods):
            world.schedule(pods)
        elif any(pod["status"]["phase"] == "Pending" for pod in pods):
            world.start_all()
        else:
            self._complete(pods)
        world.work()
        return not (world.holds("Complete") or world.holds("Failed"))

    def _complete(self, pods: list[Object]) -> None:
        stages = {pod["metadata"]["labels"]["rft.dev/stage"] for pod in pods}
        asked = any(pod["metadata"].get("deletionTimestamp") for pod in pods)
        silent = any(pod["spec"]["nodeName"] in self.world.dead for pod in pods)
        if len(stages) == 1 and not asked and not silent:
            self.world.complete_pods(pods)

    @rule(times=st.integers(1, 4))
    def go_on(self, times: int) -> None:
        for _ in range(times):
            self._natural_step()

    @rule(seconds=st.sampled_from((1, 5, 11, 31, 61, 200, 700, 3_700)))
    def let_time_pass(self, seconds: int) -> None:
        self.world.advance(seconds)

    @rule(step=st.integers(1, 20), saved=st.booleans())
    def report(self, step: int, saved: bool) -> None:
        world = self.world
        open_ = [each for each in world.known.get("attempts", ()) if "endTime" not in each and each["stage"] == "train"]
        if not open_ or not world.up or not world.kube.find("Pod"):
            return
        world.step = min(49, world.step + step)
        if saved:
            world.saved = world.step
        world.report(step=world.step, attempt=open_[0]["number"], checkpoint=world.saved or None)
        world.dirty = True
        world.work()

    # -- the cluster ------------------------------------------------------------------------------------------

    def _pods(self, *, held: bool | None = None) -> list[Object]:
        pods = [pod for pod in self.world.kube.find("Pod") if not is_terminal(pod)]
        return pods if held is None else [pod for pod in pods if holds_node(pod) is held]

    def _pick(self, pods: list[Object], index: int) -> Object | None:
        return pods[index % len(pods)] if pods else None

    @rule()
    def controllers_act(self) -> None:
        self.world.tick()
        self.world.work()

    @rule(index=st.integers(0, 3))
    def bind_one_pod(self, index: int) -> None:
        pod = self._pick(self._pods(held=False), index)
        if pod is not None:
            self.world.schedule([pod])
            self.world.work()

    @rule()
    def start_pods(self) -> None:
        self.world.start_all()
        self.world.work()

    @rule(index=st.integers(0, 3), how=st.sampled_from(EXITS))
    def end_one_pod(self, index: int, how: int | str) -> None:
        running = [pod for pod in self._pods(held=True) if pod["spec"]["nodeName"] not in self.world.dead]
        pod = self._pick([pod for pod in running if pod["status"]["phase"] == "Running"], index)
        if pod is None:
            return
        stage = Stage(pod["metadata"]["labels"]["rft.dev/stage"])
        empty = StageResult(stage=stage, outcome=Outcome.COMPLETED).model_dump_json(exclude_none=True)
        if isinstance(how, int):
            self.world.end(pod, exit_code=how)
        elif how == "OOMKilled":
            self.world.end(pod, exit_code=137, reason=how)
        else:
            self.world.end(pod, exit_code=0, message=empty if how == "empty result" else "")
        self.world.work()

    @rule(index=st.integers(0, 3))
    def preempt_one_pod(self, index: int) -> None:
        pod = self._pick([pod for pod in self._pods() if not pod["metadata"].get("deletionTimestamp")], index)
        if pod is not None:
            self.world.preempt(pod)
            self.world.work()

    @rule(index=st.integers(0, 3))
    def take_one_pod_away(self, index: int) -> None:
        self.world.tick()  # a pod that has ended is counted by the Job controller before it can go
        pod = self._pick(self.world.kube.find("Pod"), index)
        if pod is not None:
            self.world.force_away(pod)
            self.world.work()

    @rule(name=st.sampled_from(sorted(NODE_PRICES)))
    def node_falls_silent(self, name: str) -> None:
        if name in self.world.nodes() and name not in self.world.dead:
            self.world.silence(name)
            self.world.work()

    @rule(name=st.sampled_from(sorted(NODE_PRICES)))
    def node_comes_back(self, name: str) -> None:
        if name in self.world.dead:
            self.world.revive_node(name)
        elif name not in self.world.nodes():
            self.world.add_node(name)
        self.world.work()

    @rule(name=st.sampled_from(sorted(NODE_PRICES)))
    def node_is_removed(self, name: str) -> None:
        if name in self.world.nodes() and len(self.world.nodes()) > 1:
            self.world.remove_node(name)
            self.world.work()

    # -- the user ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.exists)
    @rule(wanted=st.booleans())
    def suspend(self, wanted: bool) -> None:
        self.world.edit(suspend=wanted)
        self.world.work()

    @precondition(lambda self: self.world.exists)
    @rule(more=st.sampled_from((40, 150, 1_000)))
    def raise_limit(self, more: int) -> None:
        self.world.set_limit(self.world.limit_micro // 10_000 + more)
        failed = self.world.holds("Failed")
        self.world.work()
        reached["revived"] += failed and not self.world.holds("Failed")

    @precondition(lambda self: self.world.exists)
    @rule(percent=st.sampled_from((0, 20, 60)))
    def lower_limit(self, percent: int) -> None:
        world = self.world
        shown = (world.known.get("cost") or {}).get("spentMicroUSD", 0)
        lowest = -(-max(shown, world.spent_micro()) // 10_000) + 1
        now = world.limit_micro // 10_000
        if lowest < now:
            world.set_limit(lowest + (now - lowest) * percent // 100)
            world.work()

    @precondition(lambda self: self.world.exists)
    @rule(sure=st.sampled_from((True, False, False)))
    def delete(self, sure: bool) -> None:
        if not sure:
            return
        training = any(each["spec"].get("activeDeadlineSeconds") for each in self._pods(held=True))
        self.world.kube.remove(KIND, NAMESPACE, NAME)
        reached["deleted while training"] += training
        self.world.work()

    @precondition(lambda self: not self.world.exists)
    @rule()
    def apply_a_namesake(self) -> None:
        self.world.apply_again(**self.spec)
        self.world.work()

    # -- the API server and the operator's process --------------------------------------------------------------

    @rule(kinds=st.sets(st.sampled_from(("Pod", "Job", "Node", KIND)), min_size=1))
    def watches_lose_events(self, kinds: set[str]) -> None:
        self.world.deaf |= kinds

    @rule()
    def sweep(self) -> None:
        if self.world.up:
            self.world.sweep()
            self.world.work()

    @rule(faults=st.lists(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=4))
    def writes_fail(self, faults: list[str]) -> None:
        self.world.kube.schedule = [FAULTS[fault] for fault in faults]

    @rule(seconds=st.sampled_from((0, 0, 40, 2_000)))
    def operator_is_killed(self, seconds: int) -> None:
        self.world.kill_operator()
        self.world.advance(seconds)
        self.world.start_operator()
        self.world.work()

    # -- what must hold ---------------------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        self.world.check()
        self.world.check_rest()

    def teardown(self) -> None:
        if not hasattr(self, "world") or sys.exc_info()[0] is not None:
            return
        world = self.world
        world.kube.schedule = []
        if not world.up:
            world.start_operator()
        world.sweep()
        world.work()
        world.advance(400)
        self.holds()
        if world.exists:
            world.kube.remove(KIND, NAMESPACE, NAME)
            world.work()
        world.advance(1_000)
        assert not world.exists, f"the resource does not go: {world.known}"
        held = [
            each for each in world.kube.objects.values() if LABEL_FINETUNE in (each["metadata"].get("labels") or {})
        ]
        assert not [each for each in held if each["metadata"].get("finalizers")]
        for name in list(world.dead):
            world.remove_node(name)
        world.advance(60)
        assert not world.remains()


def _spec(*, evaluated: bool, nodes: int, cents: int, on_exhausted: str, restarts: int) -> dict[str, Any]:
    budget: dict[str, Any] = {
        "limitUSD": f"{cents // 100}.{cents % 100:02d}",
        "onExhausted": on_exhausted,
    }
    spec: dict[str, Any] = {
        "resources": {"nodes": nodes},
        "budget": budget,
        "retries": {"maxRestarts": restarts},
        "timeouts": {"pendingSeconds": 900, "startupSeconds": 600, "stallSeconds": 900},
    }
    return spec if evaluated else {**spec, "evaluation": None}


def test_run_keeps_its_promises_when_anything_happens_in_any_order() -> None:
    reached.clear()
    run_state_machine_as_test(
        Run,
        settings=settings(
            max_examples=100,
            stateful_step_count=40,
            derandomize=True,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert sum(reached.values()) > 100, f"the draw no longer does anything: {reached}"


def walk(*steps: tuple[str, dict[str, Any]], **choice: Any) -> None:
    """Take steps of the machine by hand, from a running gang; what must hold is checked after each and at the end."""
    reached.clear()
    start = {"evaluated": True, "nodes": 2, "cents": 1_000, "on_exhausted": "stop", "restarts": 2, "drains": ["saves"]}
    run = Run()
    run.apply(depth="training", **{**start, **choice})
    for name, arguments in steps:
        getattr(run, name)(**arguments)
        run.holds()
    run.teardown()


Steps = list[tuple[str, dict[str, Any]]]
TO_THE_END: Steps = [("go_on", {"times": 4}), ("go_on", {"times": 4})]
UNTIL_THE_MONEY_ENDS: Steps = [
    ("report", {"step": 9, "saved": True}),
    ("let_time_pass", {"seconds": 200}),
    ("let_time_pass", {"seconds": 200}),
    ("let_time_pass", {"seconds": 200}),
    ("go_on", {"times": 4}),
]
WALKS: dict[str, Steps] = {
    "Complete": TO_THE_END,
    "evaluate Succeeded": TO_THE_END,
    "Failed": [("end_one_pod", {"index": 0, "how": 78}), ("let_time_pass", {"seconds": 61})],
    "Suspended": [("suspend", {"wanted": True}), ("let_time_pass", {"seconds": 200})],
    "train NodeLost": [("node_falls_silent", {"name": "node-1"}), ("let_time_pass", {"seconds": 200})],
    "deleted while training": [("delete", {"sure": True}), ("let_time_pass", {"seconds": 200})],
    "BudgetExhausted": UNTIL_THE_MONEY_ENDS,
    "revived": [*UNTIL_THE_MONEY_ENDS, ("raise_limit", {"more": 1_000})],
}


@pytest.mark.parametrize("state", WALKS)
def test_run_keeps_its_promises_when_it_is_led_to(state: str) -> None:
    cents = 150 if state in ("BudgetExhausted", "revived") else 1_000
    walk(*WALKS[state], cents=cents)
    assert reached[state] > 0, f"the walk does not reach it: {reached}"
