"""What the operator's core got wrong once with gangs, attempts and news that came late: each told as a plain story."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.api.status import MAX_ATTEMPTS_KEPT
from rft_operator.domain.facts import Report, Settings
from rft_operator.domain.observe import ANNOTATION_RUN_UID
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import rfc3339
from rft_operator.errors import Unavailable
from rft_trainer.contract import Outcome, Stage
from rft_trainer.stage_results import StageResult, TrainSummary
from support.builders import NAME, NAMESPACE, node
from support.cluster import Fault
from support.machine import OperatedCluster
from support.run_steps import silence_node, to_unbound_gang
from support.stage import World

TIME_OUT_AFTER = Fault(Unavailable("time-out"), after=True)


# -- gangs and attempts ---------------------------------------------------------------------------------------


async def test_waiting_gang_is_given_up_at_once_when_the_run_is_suspended() -> None:
    world = World()
    await to_unbound_gang(world)
    world.edit(suspend=True)
    await world.settle()
    assert world.status.stage == "Suspended"
    assert not world.pods(Stage.TRAIN)


async def test_gang_waits_anew_when_a_rank_is_replaced_long_after_the_start() -> None:
    world = World(timeouts={"pendingSeconds": 600})
    await world.to_training()
    world.report(step=5)
    await world.after(800)
    name = world.pods(Stage.TRAIN)[1]["metadata"]["name"]
    world.kube.patch("Pod", NAMESPACE, name, lambda obj: obj["metadata"].update(finalizers=[]))
    world.kube.remove("Pod", NAMESPACE, name)
    await world.settle()
    assert world.status.attempts[-1].stop_reason is None
    world.report(step=6)
    await world.after(599)
    assert world.status.attempts[-1].stop_reason is None
    await world.after(1)
    assert world.status.attempts[-1].stop_reason == "PendingTimeout"


def test_job_whose_creation_was_not_answered_is_removed_when_its_attempt_was_ended_meanwhile() -> None:
    run = OperatedCluster()
    run.work()
    run.deaf = {"Job", "Pod"}
    run.kube.objects.pop(("Job", NAMESPACE, f"{NAME}-prepare-1"))
    run.start_operator()
    run.deaf = {"Job", "Pod"}
    run.kube.schedule = [TIME_OUT_AFTER]
    run.work()
    run.edit(suspend=True)
    run.work()
    assert run.holds("Suspended")
    assert run.kube.find("Job")
    run.sweep()
    run.work()
    assert not run.kube.find("Job")


def test_next_gang_waits_when_watches_lost_that_the_former_one_still_ends() -> None:
    run = OperatedCluster(drains=["late"])
    run.advance(1)
    run.schedule(run.pods(Stage.PREPARE))
    run.start_all()
    run.advance(1)
    run.complete_pods(run.pods(Stage.PREPARE))
    run.work()
    run.deaf = {"Pod"}
    run.advance(1)
    run.schedule(run.pods(Stage.TRAIN))
    run.start_all()
    run.edit(suspend=True)
    run.work()
    run.edit(suspend=False)
    run.advance(10)
    assert not run.pods(Stage.TRAIN, 2)
    run.advance(60)
    run.sweep()
    run.advance(1)
    assert run.pods(Stage.TRAIN, 2)


async def test_pod_of_a_deleted_namesake_is_no_rank_of_the_new_run_when_its_node_kept_it() -> None:
    world = World()
    await world.to_training()
    ghost = world.pods(Stage.TRAIN)[1]
    ghost["metadata"].update(finalizers=[], ownerReferences=[], deletionTimestamp=rfc3339(world.now))
    ghost["metadata"]["annotations"][ANNOTATION_RUN_UID] = "a deleted namesake's"
    fresh = World()
    fresh.now += 600
    fresh.kube.put(ghost)
    silence_node(fresh, "node-2")
    await fresh.after(600)
    fresh.run_pods(Stage.PREPARE)
    await fresh.after(5)
    fresh.complete(Stage.PREPARE)
    await fresh.settle()
    assert not fresh.job_gone(Stage.TRAIN)
    assert fresh.status.attempts[-1].stop_reason is None


@pytest.mark.parametrize(("reason", "exit_code"), [("ContainerStatusUnknown", 137), ("Unknown", 255)])
async def test_node_that_was_restarted_under_its_pods_uses_up_no_restart(reason: str, exit_code: int) -> None:
    world = World(retries={"maxRestarts": 0})
    await world.to_training()
    world.set_status(world.pods(Stage.TRAIN)[0], phase="Failed", exit_code=exit_code, reason=reason)
    world.set_status(world.pods(Stage.TRAIN)[1], phase="Failed", exit_code=1, reason="Error")
    await world.after(1)
    first = world.status.attempts[1]
    assert (first.reason, first.counted) == ("NodeLost", False)
    assert reason in first.message


async def test_node_loss_ends_no_run_whose_restarts_were_lowered_below_those_it_has_used() -> None:
    world = World(retries={"maxRestarts": 3})
    await world.to_training()
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await world.after(1)
    await world.after(30)
    world.edit(retries={"maxRestarts": 0})
    world.run_pods(Stage.TRAIN, 2)
    await world.after(5)
    world.finish_pods(Stage.TRAIN, 2, exit_code=255, reason="Unknown")
    await world.after(1)
    await world.after(30)
    assert [each.reason for each in world.status.attempts[1:]] == ["TrainerFailed", "NodeLost", None]
    world.run_pods(Stage.TRAIN, 3)
    world.finish_pods(Stage.TRAIN, 3, exit_code=1)
    await world.after(1)
    assert world.condition("Failed").reason == "BackoffLimitExceeded"


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("reason", ["UnexpectedAdmissionError", "OutOfnvidia.com/gpu", "NodeAffinity"])
async def test_pod_that_its_kubelet_refuses_uses_up_no_restart_and_its_words_are_told(
    reason: str, *, running: bool
) -> None:
    world = World(retries={"maxRestarts": 0})
    await (world.to_training() if running else to_unbound_gang(world))

    def refuse(obj: dict[str, Any]) -> None:
        words = "Pod was rejected: no healthy devices present"
        obj["status"].update(phase="Failed", reason=reason, message=words)

    for pod in world.pods(Stage.TRAIN):
        if not running:
            world.bind(pod, "node-1")
        world.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], refuse)
    await world.after(1)
    first = world.status.attempts[1]
    assert (first.reason, first.counted) == ("NodeRefused", False)
    assert "node-1, whose kubelet refused it" in first.message
    assert first.message.endswith("no healthy devices present")
    assert world.status.attempts[-1].number == 2


async def test_pods_are_the_gang_when_the_clock_of_the_api_server_that_stored_them_is_behind() -> None:
    world = World(timeouts={"pendingSeconds": 600})
    await world.to_prepared()
    world.now -= 2
    world.run_pods(Stage.TRAIN)
    world.now += 2
    await world.settle()
    assert world.status.pods.running == 2
    world.report(step=1)
    await world.after(700)
    assert world.status.attempts[-1].stop_reason is None, "they would be waited for, and run unseen"


async def test_number_of_an_attempt_is_never_used_again_when_older_attempts_are_forgotten() -> None:
    world = World()
    await world.settle()
    world.run_pods(Stage.PREPARE)
    await world.after(1)
    world.complete(Stage.PREPARE)
    await world.settle()
    for number in range(1, MAX_ATTEMPTS_KEPT + 3):
        world.run_pods(Stage.TRAIN, number)
        await world.settle()
        world.drain(Stage.TRAIN, number)
        await world.settle()
    kept = world.status.attempts
    assert len(kept) == MAX_ATTEMPTS_KEPT
    assert (kept[0].stage, kept[0].number) == ("prepare", 1)
    assert kept[-1].number == MAX_ATTEMPTS_KEPT + 3


async def test_stage_that_says_it_is_done_without_its_numbers_has_failed() -> None:
    world = World(retries={"maxRestarts": 0})
    await world.settle()
    world.run_pods(Stage.PREPARE)
    await world.after(1)
    world.finish_pods(Stage.PREPARE, result=StageResult(stage=Stage.PREPARE, outcome=Outcome.COMPLETED))
    await world.settle()
    assert world.status.last_failure.reason == "ResultsUnavailable"
    assert world.condition("Failed").status == "True"


async def test_model_is_not_trained_when_its_trainer_stopped_before_the_last_step() -> None:
    world = World()
    await world.to_training()
    half = TrainSummary(step=25, total_steps=50, tokens=1, checkpoint_step=25)
    world.finish_pods(Stage.TRAIN, result=StageResult(stage=Stage.TRAIN, outcome=Outcome.COMPLETED, train=half))
    await world.settle()
    assert world.condition("Trained").status != "True"
    assert world.status.checkpoint.step == 25


async def test_eviction_for_what_the_pod_itself_did_uses_up_a_restart() -> None:
    world = World()
    await world.to_training()
    pod = world.pods(Stage.TRAIN)[0]
    world.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], lambda obj: obj["status"].update(reason="Evicted"))
    world.finish_pods(Stage.TRAIN, exit_code=137)
    await world.settle()
    assert world.status.last_failure.reason == "Evicted"
    assert world.status.restarts.toward_limit == 1


async def test_run_is_not_shown_as_suspended_when_it_has_ended() -> None:
    world = World(budget={"limitUSD": "1.50", "usdPerGpuHour": "3.60", "onExhausted": "suspend"}, evaluation=None)
    await world.to_training()
    await world.after(650)
    world.drain(Stage.TRAIN)
    await world.settle()
    assert world.condition("Suspended").status == "True"
    world.edit(budget={"onExhausted": "stop"})
    await world.settle()
    assert world.condition("Failed").status == "True"
    assert world.condition("Suspended").status == "False"


async def test_pause_has_lasted_since_it_began_when_its_reason_changes() -> None:
    world = World(budget={"limitUSD": "1.50", "usdPerGpuHour": "3.60", "onExhausted": "suspend"}, evaluation=None)
    await world.to_training()
    world.edit(suspend=True)
    await world.after(700)
    world.drain(Stage.TRAIN)
    await world.settle()
    before = world.condition("Suspended")
    world.edit(suspend=False)
    await world.after(100)
    after = world.condition("Suspended")
    assert (before.reason, after.reason) == ("Requested", "BudgetExhausted")
    assert (before.status, before.last_transition_time) == (after.status, after.last_transition_time)


# -- what the operator did not see ----------------------------------------------------------------------------


async def test_training_goes_on_when_the_operator_was_down_for_longer_than_a_stall() -> None:
    world = World(timeouts={"stallSeconds": 120})
    await world.to_training()
    world.report(step=5)
    await world.after(1)
    world.now += 3_000
    world.restart_operator()
    await world.settle()
    assert world.status.attempts[-1].stop_reason is None
    await world.after(119)
    assert world.status.attempts[-1].stop_reason is None
    await world.after(1)
    assert world.status.attempts[-1].stop_reason == "Stalled"


@pytest.mark.parametrize(("stall_seconds", "write_seconds"), [(30, 60), (900, 3_600)])
async def test_training_whose_steps_are_a_small_share_is_no_stall_when_they_are_written_less_often(
    stall_seconds: int, write_seconds: int
) -> None:
    settings = Settings(trainer_image="x", progress_url="https://rft:8443", progress_write_seconds=write_seconds)
    world = World(settings=settings, timeouts={"stallSeconds": stall_seconds}, budget={"limitUSD": 900})
    await world.to_training()
    for step in range(1, 40):
        world.report(step=step, total=10_000)
        await world.after(stall_seconds // 3)
        assert world.status.attempts[-1].stop_reason is None
    await world.after(stall_seconds)
    assert world.status.attempts[-1].stop_reason == "Stalled"


async def test_save_is_no_stall_when_its_report_changed_nothing_else() -> None:
    world = World(timeouts={"stallSeconds": 30})
    await world.to_training()
    for phase in ("train", "save"):
        world.report(step=5, phase=phase)
        await world.after(20)
    await world.after(60)
    assert world.status.attempts[-1].stop_reason is None


async def test_suspended_run_does_not_say_that_it_holds_no_gpu_when_a_silent_node_does() -> None:
    world = World()
    await world.to_training()
    silence_node(world, "node-2")
    world.edit(suspend=True)
    await world.after(60)
    world.set_status(world.pods(Stage.TRAIN)[0], phase="Failed", exit_code=76)
    await world.after(60)
    suspended = world.condition("Suspended")
    assert suspended.status == "True"
    assert "nodes that do not answer" in suspended.message
    world.kube.remove("Node", "", "node-2")
    await world.after(5)
    assert "no GPU is held" in world.condition("Suspended").message


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.EVALUATE])
async def test_progress_of_a_stage_without_steps_is_written_once_in_a_while(stage: Stage) -> None:
    world = World()
    if stage is Stage.PREPARE:
        await world.settle()
        world.run_pods(stage)
    else:
        await world.to_training()
        await world.to_evaluation()
    await world.after(1)
    written = []
    for left in range(600, 0, -5):
        news = Report(stage=stage, attempt=1, received_at=world.now, percent=7, eta_seconds=left, metrics=())
        world.cache.put_report(world.key, news)
        await world.after(5)
        written.append(world.status.progress.eta_seconds)
    assert len(set(written)) == pytest.approx(600 / world.settings.progress_write_seconds, abs=1)


async def test_pod_is_not_lost_at_once_when_its_node_answered_again_just_before_it_was_bound() -> None:
    world = World(settings=Settings(trainer_image="trainer", node_lost_seconds=30))
    await to_unbound_gang(world)
    for name in ("node-1", "node-2"):
        silence_node(world, name)
    await world.after(60)
    for pod, name in zip(world.pods(Stage.TRAIN), ("node-1", "node-2"), strict=True):
        world.bind(pod, name)
    await world.settle()
    assert world.status.attempts[1].stop_reason is None
    await world.after(29)
    assert world.status.attempts[1].stop_reason is None
    await world.after(1)
    assert world.status.attempts[1].reason == "NodeLost", "and if nothing is heard of it after that, it is"


async def test_pod_is_not_lost_at_once_when_its_new_node_is_not_in_view_yet() -> None:
    settings = Settings(trainer_image="trainer", node_lost_seconds=30)
    world = World(settings=settings)
    await to_unbound_gang(world)
    for pod in world.pods(Stage.TRAIN):
        world.bind(pod, "node-9")
    await world.settle()
    assert world.status.attempts[1].reason is None
    await world.after(30)
    assert world.status.attempts[1].reason == "NodeLost"


def test_resource_goes_when_a_pod_ends_never_because_its_node_is_silent() -> None:
    run = OperatedCluster()
    run.to_running_gang()
    for name in run.nodes():
        run.silence(name)
    run.kube.remove("ReasoningFinetune", NAMESPACE, NAME)
    run.work()
    run.advance(200)
    assert not run.exists
    assert [pod["metadata"].get("finalizers") for pod in run.pods(Stage.TRAIN)] == [[], []]


async def test_bill_goes_on_when_a_node_object_is_deleted_and_its_kubelet_registers_anew() -> None:
    world = World()
    await world.to_training()
    await world.after(60)
    world.kube.remove("Node", "", "node-2")
    await world.settle()
    assert [each.end_basis for each in world.status.ledger.uncounted] == ["nodeGone"]
    world.now += 5
    world.kube.put(node("node-2"))
    await world.after(60)
    assert not world.status.ledger.uncounted
    world.complete(Stage.TRAIN)
    await world.after(1)
    # Two GPUs for 1 + 60 + 5 + 60 s: the pod on the node that was away for 5 s never stopped.
    assert world.status.usage.gpu_seconds == 2 * 126


async def test_resumed_run_says_that_it_waits_for_a_price_and_no_more_that_it_is_suspended() -> None:
    world = World(budget={"usdPerGpuHour": None, "limitUSD": 20})
    world.catalogue, _ = PriceCatalogue.parse(
        'version: 1\nprices: [{name: flat, match: {instanceType: rft-local}, usdPerHour: "3.60"}]'
    )
    await world.to_training()
    world.edit(suspend=True)
    await world.after(1)
    world.drain(Stage.TRAIN)
    await world.after(1)
    assert world.status.stage == "Suspended"
    world.catalogue = PriceCatalogue()
    world.edit(suspend=False)
    await world.after(60)
    assert world.condition("Suspended").status == "False"
    within = world.condition("WithinBudget")
    assert (world.status.stage, within.reason) == ("Pending", "PriceUnknown")
    assert "Helm value prices" in within.message
