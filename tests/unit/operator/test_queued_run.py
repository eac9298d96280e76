"""A run whose GPU Jobs wait in a queue of Kueue: suspended creation, admission, eviction, and money all the while."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.domain.facts import FINALIZER, GATE
from rft_operator.domain.prices import PriceCatalogue
from rft_trainer.contract import Stage
from support.queueing import admit, end, evict, start
from support.stage import World

HOURS = 3_600
UNKNOWN = ("Unknown", "PriceUnknown")


def queued(**change: Any) -> World:
    return World(**{"scheduling": {"queueName": "team-a"}, **change})


async def to_queue(world: World) -> World:
    """Bring the run to a training Job that waits in its queue."""
    await world.settle()
    world.run_pods(Stage.PREPARE)
    await world.after(5)
    world.complete(Stage.PREPARE)
    await world.settle()
    return world


async def to_training(world: World) -> World:
    """Bring the run to a training gang that runs by Kueue's leave."""
    await to_queue(world)
    admit(world, Stage.TRAIN)
    await world.settle()
    start(world, Stage.TRAIN)
    await world.after(1)
    return world


def gated(world: World, attempt: int = 1) -> list[str]:
    return [pod["metadata"]["name"] for pod in world.pods(Stage.TRAIN, attempt) if pod["spec"].get("schedulingGates")]


async def test_no_pod_is_let_in_before_the_whole_gang_is_there() -> None:
    world = await to_queue(queued())
    admit(world, Stage.TRAIN, ranks=[0])
    await world.settle()
    assert len(gated(world)) == 1, "alone it would pay for waiting, and be counted beside the whole gang"
    world.create_pods(Stage.TRAIN, ranks=[1])
    await world.settle()
    assert (gated(world), len(world.pods(Stage.TRAIN))) == ([], 2)


async def test_gpu_job_is_created_suspended_in_its_queue_and_a_cpu_job_is_not() -> None:
    world = await to_queue(queued(scheduling={"queueName": "team-a", "queuePriorityClassName": "urgent"}))
    train, prepare = world.job(Stage.TRAIN), world.job(Stage.PREPARE)
    assert train["spec"]["suspend"] is True
    assert train["metadata"]["labels"].items() >= {
        ("kueue.x-k8s.io/queue-name", "team-a"),
        ("kueue.x-k8s.io/priority-class", "urgent"),
    }
    assert train["spec"]["template"]["spec"]["schedulingGates"] == [{"name": GATE}]
    assert "suspend" not in prepare["spec"]
    assert "kueue.x-k8s.io/queue-name" not in prepare["metadata"]["labels"]
    assert "schedulingGates" not in prepare["spec"]["template"]["spec"]


async def test_queued_run_says_what_it_waits_for_and_costs_nothing_however_long_it_waits() -> None:
    world = await to_queue(queued())
    assert world.status.stage == "Queued"
    for type_ in ("Scheduled", "Running"):
        condition = world.condition(type_)
        assert (condition.status, condition.reason) == ("False", "WaitingForQuota")
        assert "demo-train-1 from queue team-a" in condition.message
    world.now += 100 * HOURS
    assert await world.settle() == 0, "a run that waits in a queue is idle"
    assert world.status.attempts[-1].stop_reason is None
    assert world.status.cost.spent_usd == "0.000000"


async def test_gates_are_opened_when_kueue_admits_the_job() -> None:
    world = await to_queue(queued())
    admit(world, Stage.TRAIN)
    assert len(gated(world)) == 2
    await world.settle()
    assert gated(world) == []
    start(world, Stage.TRAIN)
    await world.after(1)
    assert world.condition("Running").status == "True"


async def test_gate_of_another_stays_when_ours_is_opened() -> None:
    world = await to_queue(queued())
    topology = {"name": "kueue.x-k8s.io/topology"}
    admit(world, Stage.TRAIN)
    for pod in world.pods(Stage.TRAIN):
        name = pod["metadata"]["name"]
        world.kube.patch("Pod", "team", name, lambda obj: obj["spec"]["schedulingGates"].append(topology))
    await world.settle()
    assert [pod["spec"]["schedulingGates"] for pod in world.pods(Stage.TRAIN)] == [[topology], [topology]]


async def test_deadline_of_the_pods_is_lowered_before_they_may_start_when_the_limit_was_lowered_in_the_queue() -> None:
    world = await to_queue(queued())
    before = world.status.attempts[-1].deadline_seconds
    world.edit(budget={"limitUSD": 3})
    await world.settle()
    admit(world, Stage.TRAIN)
    await world.settle()
    after = world.status.attempts[-1].deadline_seconds
    assert after < before
    assert {pod["spec"]["activeDeadlineSeconds"] for pod in world.pods(Stage.TRAIN)} == {after}
    assert gated(world) == []


async def test_run_leaves_the_queue_when_its_money_is_not_enough_any_more_and_comes_back_when_it_is() -> None:
    world = await to_queue(queued())
    world.edit(budget={"limitUSD": "0.90"})
    await world.settle()
    assert world.job_gone(Stage.TRAIN), "a Job that could do nothing useful keeps its place"
    failed = world.condition("Failed")
    assert (failed.status, failed.reason) == ("True", "BudgetExhausted")
    assert "short" in world.status.attempts[-1].message
    assert world.status.attempts[-1].counted is False
    world.edit(budget={"limitUSD": 10})
    await world.settle()
    assert world.job(Stage.TRAIN, 2)["spec"]["suspend"] is True
    assert world.status.stage == "Queued"


async def test_no_gate_is_opened_when_the_price_became_unknown_in_the_queue() -> None:
    world = queued(budget={"usdPerGpuHour": None})
    world.catalogue = _catalogue()
    await to_queue(world)
    world.catalogue = PriceCatalogue()
    admit(world, Stage.TRAIN)
    await world.settle()
    assert len(gated(world)) == 2
    assert (world.condition("WithinBudget").status, world.condition("WithinBudget").reason) == UNKNOWN
    world.catalogue = _catalogue()
    await world.after(30)
    assert gated(world) == []
    assert world.condition("WithinBudget").reason == "WithinLimit"


async def test_gang_that_was_gated_for_want_of_a_price_until_its_time_was_up_says_so() -> None:
    world = queued(budget={"usdPerGpuHour": None}, timeouts={"pendingSeconds": 600})
    world.catalogue = _catalogue()
    await to_queue(world)
    world.catalogue = PriceCatalogue()
    admit(world, Stage.TRAIN)
    await world.settle()
    assert await world.reconciler.reconcile(world.key) == 30, "only somebody's edit could wake it, else"
    await world.after(600)
    ended = world.status.attempts[-1]
    assert ended.reason == "PendingTimeout"
    assert ended.message.startswith("Not started within 600 s: The pool has no known price: ")


async def test_run_says_that_its_price_was_lost_between_the_record_of_its_attempt_and_its_job() -> None:
    world = World(budget={"usdPerGpuHour": None})
    world.catalogue = _catalogue()
    await world.settle()
    world.run_pods(Stage.PREPARE)
    await world.after(5)
    world.complete(Stage.PREPARE)
    while world.status.attempts[-1].stage != "train":
        await world.reconciler.reconcile(world.key)
    world.catalogue = PriceCatalogue()
    await world.settle()
    assert world.job_gone(Stage.TRAIN)
    assert (world.condition("WithinBudget").status, world.condition("WithinBudget").reason) == UNKNOWN
    world.catalogue = _catalogue()
    await world.after(30)
    assert not world.job_gone(Stage.TRAIN)
    assert world.condition("WithinBudget").reason == "WithinLimit"


def _catalogue() -> PriceCatalogue:
    words = (
        "{name: local, match: {instanceType: rft-local}, basis: gpu, usdPerHour: '3.60', source: x, asOf: 2026-01-01}"
    )
    found, problems = PriceCatalogue.parse(f"version: 1\ncurrency: USD\nprices: [{words}]\n")
    assert not problems
    return found


async def test_preempted_attempt_uses_up_no_restart_and_the_next_one_resumes_when_kueue_suspends_its_job() -> None:
    world = await to_training(queued())
    world.report(step=20)
    await world.after(60)
    evict(world, Stage.TRAIN)
    await world.settle()
    assert world.status.attempts[-1].stop_reason == "Preempted"
    world.now += 10
    end(world, Stage.TRAIN, exit_code=75, step=22)
    await world.after(1)
    first, second = world.status.attempts[1:]
    assert (first.outcome, first.reason, first.counted, first.end_step) == ("Failed", "Preempted", False, 22)
    assert "Kueue took its quota in queue team-a back" in first.message
    assert (second.number, second.start_step) == (2, 22)
    assert world.job_gone(Stage.TRAIN, 1)
    assert world.job(Stage.TRAIN, 2)["spec"]["suspend"] is True
    restarts = world.status.restarts
    assert (restarts.total, restarts.toward_limit, restarts.resumes) == (1, 0, 1)
    assert world.status.stage == "Queued"
    # 2 GPUs from the bind to the end: 1 + 60 + 10 s, at 1,000 micro-dollars a GPU-second.
    assert world.status.cost.spent_usd == "0.142000"


@pytest.mark.parametrize("exit_code", [76, 137])
async def test_preempted_attempt_uses_up_no_restart_when_its_pods_could_not_save(exit_code: int) -> None:
    world = await to_training(queued())
    evict(world, Stage.TRAIN)
    end(world, Stage.TRAIN, exit_code=exit_code)
    await world.after(1)
    attempt = world.status.attempts[1]
    assert (attempt.reason, attempt.counted) == ("Preempted", False)
    assert world.status.attempts[-1].number == 2


async def test_pods_stay_gated_and_the_attempt_ends_when_kueue_readmits_its_job_while_the_operator_is_down() -> None:
    world = await to_training(queued())
    evict(world, Stage.TRAIN)
    end(world, Stage.TRAIN, exit_code=75, step=20)
    admit(world, Stage.TRAIN, suffix="y")
    world.restart_operator()
    assert len(gated(world)) == 2
    await world.settle()
    first, second = world.status.attempts[1:]
    assert (first.reason, first.counted, second.number) == ("Preempted", False, 2)
    assert world.job_gone(Stage.TRAIN, 1)
    assert not world.pods(Stage.TRAIN, 1), "nothing of the first attempt was bound a second time"


async def test_attempt_goes_on_waiting_when_its_job_is_suspended_before_a_pod_was_bound() -> None:
    world = await to_queue(queued())
    admit(world, Stage.TRAIN)
    await world.settle()
    evict(world, Stage.TRAIN)
    await world.settle()
    assert not world.pods(Stage.TRAIN), f"the finalizer {FINALIZER} holds pods that never cost anything"
    assert world.status.stage == "Queued"
    admit(world, Stage.TRAIN, suffix="y")
    await world.settle()
    start(world, Stage.TRAIN)
    await world.after(1)
    assert [each.number for each in world.status.attempts if each.stage == "train"] == [1]
    assert world.condition("Running").status == "True"


async def test_wait_for_a_node_counts_from_the_admission_when_the_job_was_queued() -> None:
    world = await to_queue(queued(timeouts={"pendingSeconds": 600}))
    await world.after(5 * HOURS)
    admit(world, Stage.TRAIN)
    await world.after(599)
    assert world.status.attempts[-1].stop_reason is None
    await world.after(2)
    reasons = [each.reason or each.stop_reason for each in world.status.attempts if each.stage == "train"]
    assert reasons[0] == "PendingTimeout"


async def test_queued_job_is_deleted_when_the_user_suspends_the_run() -> None:
    world = await to_queue(queued())
    world.edit(suspend=True)
    await world.settle()
    assert world.job_gone(Stage.TRAIN)
    assert world.condition("Suspended").status == "True"
    assert world.status.attempts[-1].counted is False


async def test_evaluation_waits_in_the_queue_too() -> None:
    world = await to_training(queued())
    world.complete(Stage.TRAIN)
    await world.after(1)
    assert world.job(Stage.EVALUATE)["spec"]["suspend"] is True
    assert world.status.stage == "Queued"
    admit(world, Stage.EVALUATE)
    await world.settle()
    start(world, Stage.EVALUATE)
    await world.after(5)
    world.complete(Stage.EVALUATE)
    await world.settle()
    assert world.status.stage == "Complete"


async def test_suspended_job_without_a_queue_is_shown_as_what_it_is() -> None:
    world = World()
    await to_queue(world)
    world.kube.patch("Job", "team", "demo-train-1", lambda job: job["spec"].update(suspend=True))
    await world.settle()
    condition = world.condition("Scheduled")
    assert (condition.reason, "spec.suspend of Job demo-train-1" in condition.message) == ("JobSuspended", True)
