"""Everything that can happen to a run, as rules that Hypothesis draws in any order.

Rules that can do nothing are not offered, and what starts and completes a gang has rules of its own, so that a draw
gets deep; ``support.witness`` says what must hold after each step.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rft_operator.api import KIND
from rft_operator.domain.facts import LABEL_FINETUNE
from rft_operator.errors import Conflict, Unavailable
from rft_trainer.contract import Outcome, Stage
from rft_trainer.stage_results import StageResult
from support.builders import NAME, NAMESPACE, merged
from support.cluster import NODE_PRICES, Fault, Object, holds_node, is_terminal
from support.controllers import TOTAL_STEPS
from support.machine import OperatedCluster

FAULTS = {
    "409": Fault(Conflict("the object has been modified", status=409), after=False),
    "429": Fault(Unavailable("too many requests", status=429, retry_after_seconds=1), after=False),
    "500": Fault(Unavailable("internal error", status=500), after=False),
    "500 after the effect": Fault(Unavailable("internal error", status=500), after=True),
    "time-out": Fault(Unavailable("time-out"), after=False),
    "time-out after the effect": Fault(Unavailable("time-out"), after=True),
    "none": None,
}
EXITS = (1, 1, 75, 76, 78, 79, 137, "OOMKilled", "no result", "empty result", "preempted", "taken away", "evicted")
ALL_KINDS = ("Pod", "Job", "Node", KIND)
FIRST = st.sampled_from(("nothing", "the gang runs", "the gang runs", "a new life"))
"""What is done before a rule, so that most things happen to a gang that runs."""
DEPTHS = {"applied": 0, "training": 1, "trained": 2, "evaluating": 3}


class Run(RuleBasedStateMachine):
    """One run, and what users, nodes, pods, the API server and the operator's process do."""

    reached: Counter[str] = Counter()
    """What was seen, over all draws."""
    more: Mapping[str, Any] = {}
    """What the spec of every draw has beside."""
    cluster: type[OperatedCluster] = OperatedCluster

    def __init__(self) -> None:
        super().__init__()
        self.world: OperatedCluster

    @initialize(
        depth=st.sampled_from(("training", "training", "training", "applied", "trained", "evaluating")),
        evaluated=st.sampled_from((True, True, True, False)),
        nodes=st.sampled_from((2, 2, 1)),
        cents=st.sampled_from((150, 150, 220, 1_000)),
        on_exhausted=st.sampled_from(("stop", "stop", "suspend")),
        restarts=st.sampled_from((2, 9, 0)),
        drains=st.lists(st.sampled_from(("saves", "late", "unsaved", "ignores")), min_size=1, max_size=3),
    )
    def apply(self, depth: str, cents: int, drains: list[str], **choice: Any) -> None:
        self.spec = merged(spec_of(cents=cents, **choice), dict(self.more))
        self.world = self.cluster(reached=self.reached, drains=drains, **self.spec)
        self.world.work()
        for step in (self.gang_starts, self.work_is_done) * 3:
            if self._depth() < DEPTHS[depth]:
                step()

    def _depth(self) -> int:
        done = {(each["stage"], each.get("outcome")) for each in self.world.known.get("attempts", ())}
        pods = [pod for pod in self.world.kube.find("Pod") if pod["status"]["phase"] == "Running"]
        stages = {pod["metadata"]["labels"]["rft.dev/stage"] for pod in pods}
        if ("train", "Succeeded") in done:
            return 3 if "evaluate" in stages else 2
        return 1 if "train" in stages else 0

    def pods(self, phase: str = "") -> list[Object]:
        """Pods that have not ended; ``bound`` or ``unbound``, or of one phase."""
        pods = [pod for pod in self.world.kube.find("Pod") if not is_terminal(pod)]
        if phase in ("bound", "unbound"):
            return [pod for pod in pods if holds_node(pod) is (phase == "bound")]
        return [pod for pod in pods if not phase or pod["status"]["phase"] == phase]

    def obedient(self) -> list[Object]:
        """Running pods whose kubelet can say how they end."""
        return [pod for pod in self.pods("Running") if pod["spec"]["nodeName"] not in self.world.dead]

    def _first(self, what: str) -> None:
        world = self.world
        if what == "nothing":
            return
        if what == "a new life":
            world.sweep()
            world.work()
            if world.exists and (world.holds("Complete") or world.holds("Failed")):
                world.kube.remove(KIND, NAMESPACE, NAME)
                world.advance(60)
            if not world.exists:
                world.apply_again(**self.spec)
        if world.exists and world.run.spec.suspend:
            world.edit(suspend=False)
        world.work()
        for step in (self.gang_starts, self.work_is_done, self.gang_starts):
            if not self._depth():
                step()

    # -- what goes well ---------------------------------------------------------------------------------------

    @rule()
    def gang_starts(self) -> None:
        """Whatever waits for a node or an image gets it."""
        for _ in range(2):
            self.world.advance(1)
            self.world.schedule(self.pods())
            self.world.work()
            self.world.start_all()
            self.world.work()

    @rule()
    def work_is_done(self) -> None:
        """The running gang completes, if all of it runs."""
        pods = self.obedient()
        wanted = {pod["metadata"]["ownerReferences"][0]["uid"] for pod in self.pods()}
        if pods and len(wanted) == 1 and len(pods) == len(self.pods()):
            self.world.complete_pods(pods)
        self.world.work()
        self.world.advance(1)

    @rule(first=FIRST, seconds=st.sampled_from((1, 5, 31, 61, 200, 400, 901, 3_700)))
    def time_passes(self, first: str, seconds: int) -> None:
        self._first(first)
        self.world.advance(seconds)

    @rule(first=FIRST, step=st.integers(1, 20), saved=st.booleans())
    def trainer_reports(self, first: str, step: int, saved: bool) -> None:
        self._first(first)
        world = self.world
        open_ = [each for each in world.known.get("attempts", ()) if "endTime" not in each and each["stage"] == "train"]
        if not open_ or not self.obedient():
            return
        world.step = min(TOTAL_STEPS - 1, world.step + step)
        world.saved = world.step if saved else world.saved
        world.report(step=world.step, attempt=open_[0]["number"], checkpoint=world.saved or None)
        world.dirty = True
        world.work()

    # -- the cluster ------------------------------------------------------------------------------------------

    @precondition(lambda self: self.pods("unbound"))
    @rule(index=st.integers(0, 1))
    def one_pod_is_bound(self, index: int) -> None:
        pods = self.pods("unbound")
        self.world.schedule([pods[index % len(pods)]])
        self.world.work()

    @rule()
    def controllers_act(self) -> None:
        self.world.tick()
        self.world.work()

    @rule(first=FIRST, index=st.integers(0, 1), how=st.sampled_from(EXITS))
    def one_pod_ends(self, first: str, index: int, how: int | str) -> None:
        self._first(first)
        world, pods = self.world, self.obedient()
        if not pods:
            return
        pod = pods[index % len(pods)]
        stage = Stage(pod["metadata"]["labels"]["rft.dev/stage"])
        empty = StageResult(stage=stage, outcome=Outcome.COMPLETED).model_dump_json(exclude_none=True)
        if isinstance(how, int):
            world.end(pod, exit_code=how)
        elif how == "OOMKilled":
            world.end(pod, exit_code=137, reason=how)
        elif how == "evicted":
            world.end(pod, exit_code=137, pod_reason="Evicted")
        elif how == "preempted":
            world.preempt(pod)
        elif how == "taken away":
            world.force_away(pod)
        else:
            world.end(pod, exit_code=0, message=empty if how == "empty result" else "")
        world.work()

    @rule(
        first=FIRST,
        name=st.sampled_from(sorted(NODE_PRICES)),
        what=st.sampled_from(("silent", "back", "back", "removed")),
    )
    def node_fails(self, first: str, name: str, what: str) -> None:
        self._first(first)
        world = self.world
        there = name in world.nodes()
        if what == "silent" and there and name not in world.dead:
            world.silence(name)
        elif what == "back" and name in world.dead:
            world.revive_node(name)
        elif what == "back" and not there:
            world.add_node(name)
        elif what == "removed" and there and len(world.nodes()) > 1:
            world.remove_node(name)
        world.work()

    # -- the user ---------------------------------------------------------------------------------------------

    @rule(first=FIRST)
    def user_suspends_or_resumes(self, first: str) -> None:
        self._first(first)
        if self.world.exists:
            self.world.edit(suspend=not self.world.run.spec.suspend)
            self.world.work()

    @precondition(lambda self: self.world.exists)
    @rule(more=st.sampled_from((40, 150, 1_000)))
    def user_raises_the_limit(self, more: int) -> None:
        failed = self.world.holds("Failed")
        self.world.set_limit(self.world.limit_micro // 10_000 + more)
        self.world.work()
        self.reached["revived"] += failed and not self.world.holds("Failed")

    @rule(first=FIRST, percent=st.sampled_from((0, 20, 60)))
    def user_lowers_the_limit(self, first: str, percent: int) -> None:
        """Never below what is spent: the API server refuses that."""
        self._first(first)
        world = self.world
        shown = (world.known.get("cost") or {}).get("spentMicroUSD", 0)
        lowest = -(-max(shown, world.spent_micro()) // 10_000) + 1
        now = world.limit_micro // 10_000
        if world.exists and lowest < now:
            world.set_limit(lowest + (now - lowest) * percent // 100)
            world.work()

    @rule(first=FIRST, sure=st.sampled_from((False, False, True)))
    def user_deletes_or_applies_again(self, first: str, sure: bool) -> None:
        """Deleting needs a second thought; a namesake of a run that has ended or gone is applied at once."""
        self._first(first)
        world = self.world
        if not world.exists:
            world.apply_again(**self.spec)
        elif sure or world.holds("Complete") or world.holds("Failed"):
            training = any(each["spec"].get("activeDeadlineSeconds") for each in self.pods("bound"))
            world.kube.remove(KIND, NAMESPACE, NAME)
            self.reached["deleted while training"] += training
        world.work()

    # -- the API server and the operator's process --------------------------------------------------------------

    @rule(kinds=st.sets(st.sampled_from(ALL_KINDS)))
    def watches_lose_events(self, kinds: set[str]) -> None:
        """Events of some kinds are lost from now on; with none, a sweep repairs what was lost."""
        if kinds:
            self.world.deaf |= kinds
        elif self.world.up:
            self.world.sweep()
            self.world.work()

    @rule(faults=st.lists(st.sampled_from(sorted(FAULTS)), min_size=1, max_size=4))
    def writes_fail(self, faults: list[str]) -> None:
        self.world.kube.schedule = [FAULTS[fault] for fault in faults]

    @rule(
        first=FIRST,
        seconds=st.sampled_from((0, 40, 2_000)),
        meanwhile=st.sampled_from(("nothing", "nothing", "started", "done", "suspended")),
    )
    def operator_is_killed(self, first: str, seconds: int, meanwhile: str) -> None:
        self._first(first)
        self.world.kill_operator()
        if meanwhile == "started":
            self.gang_starts()
        elif meanwhile == "done":
            self.work_is_done()
        elif meanwhile == "suspended":
            self.user_suspends_or_resumes(first="nothing")
        self.world.advance(seconds)
        self.world.start_operator()
        self.world.work()

    # -- what must hold ---------------------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        self.world.check(quiet=self.world.quiet)
        self.world.check_rest()

    def teardown(self) -> None:
        if not hasattr(self, "world") or sys.exc_info()[0] is not None:
            return
        world = self.world
        world.kube.schedule = []
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
        assert not [each for each in held if each["metadata"].get("finalizers")], "a finalizer is left"
        for name in list(world.dead):
            world.remove_node(name)
        world.advance(60)
        assert not world.remains()


def spec_of(*, evaluated: bool, nodes: int, cents: int, on_exhausted: str, restarts: int) -> dict[str, Any]:
    """Return the parts of the spec that are drawn."""
    spec: dict[str, Any] = {
        "resources": {"nodes": nodes},
        "budget": {"limitUSD": f"{cents // 100}.{cents % 100:02d}", "onExhausted": on_exhausted},
        "retries": {"maxRestarts": restarts},
        "timeouts": {"pendingSeconds": 900, "startupSeconds": 600, "stallSeconds": 900},
    }
    return spec if evaluated else {**spec, "evaluation": None}
