"""The life of a run, from apply to the end, over a fake API server."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.domain.prices import PriceCatalogue
from rft_trainer.contract import ExitCode, Outcome, Stage
from rft_trainer.stage_results import StageResult
from support.builders import NAME, NAMESPACE
from support.run_steps import silence_node
from support.stage import World


async def test_run_completes_with_scores_and_cost_when_every_stage_completes() -> None:
    world = World()
    await world.to_training()
    world.report(step=20)
    await world.after(600)
    world.complete(Stage.TRAIN)
    await world.after(1)
    assert world.status.progress is None, "the training's progress is not the evaluation's"
    world.run_pods(Stage.EVALUATE)
    await world.after(100)
    world.complete(Stage.EVALUATE)
    await world.settle()

    status = world.status
    assert status.stage == "Complete"
    assert world.condition("Complete").status == "True"
    assert world.condition("Failed").status == "False"
    assert status.evaluation.display == "0.000 -> 0.900 [0.826-0.945] Improved"
    # 2 GPUs x 601 s of training + 1 GPU x 100 s of evaluation, at 1,000 micro-dollars a GPU-second.
    assert status.usage.gpu_seconds == 2 * 601 + 100
    assert status.cost.spent_usd == "1.302000"
    assert [(each.stage, each.outcome) for each in status.attempts] == [
        ("prepare", "Succeeded"),
        ("train", "Succeeded"),
        ("evaluate", "Succeeded"),
    ]
    assert not status.ledger.open
    assert not status.ledger.uncounted


@pytest.mark.parametrize(("storage", "volume"), [({}, f"{NAME}-data"), ({"claimName": "weights"}, "weights")])
async def test_end_says_where_the_model_is_when_the_run_is_complete(storage: dict[str, str], volume: str) -> None:
    world = World(storage=storage)
    world.kube.put(claim("weights", "ReadWriteMany"))
    await world.to_training()
    await world.to_evaluation()
    world.complete(Stage.EVALUATE)
    await world.settle()
    place = f"The model is at pvc://{volume}/{NAME}-{world.run.metadata.uid[:8]}/export."
    assert world.condition("Complete").message == f"Trained and evaluated as asked. {place}"
    assert next(words for _, reason, words in world.kube.events if reason == "Complete").endswith(place)


async def test_finished_run_causes_no_write_when_time_passes() -> None:
    world = World()
    await world.to_training()
    await world.to_evaluation()
    world.complete(Stage.EVALUATE)
    await world.settle()
    world.now += 3_600
    assert await world.settle() == 0


@pytest.mark.parametrize("told", [False, True], ids=["by the attempt before", "by its own reports"])
async def test_all_of_a_stage_is_shown_as_done_when_it_completed_after_its_last_report(told: bool) -> None:
    world = World(evaluation=None)
    await world.to_training()
    world.report(step=20, eta_seconds=600)
    await world.after(600)
    attempt = 1
    if not told:
        world.finish_pods(Stage.TRAIN, exit_code=1)
        await world.settle()
        await world.after(60)
        attempt = 2
        world.run_pods(Stage.TRAIN, attempt)
        await world.after(60)
    world.complete(Stage.TRAIN, attempt)
    await world.settle()
    assert world.status.stage == "Complete"
    shown = world.status.progress
    assert (shown.percent, shown.display, shown.step, shown.total_steps) == (100, "100%", 50, 50)
    assert shown.eta_seconds == 0


@pytest.mark.parametrize("complete", [False, True], ids=["running", "complete"])
async def test_conditions_speak_of_the_spec_as_it_is_after_an_edit_that_changes_none_of_them(complete: bool) -> None:
    world = World(evaluation=None)
    await world.to_training()
    if complete:
        world.complete(Stage.TRAIN)
        await world.after(1)
    world.edit(budget={"limitUSD": "500"}, ttlSecondsAfterFinished=86_400)
    before = world.condition("Prepared")
    await world.settle()
    # kubectl wait takes no condition of an older generation: it would wait for ever for one that is True
    assert {each.observed_generation for each in world.status.conditions} == {2}
    assert world.condition("Prepared").last_transition_time == before.last_transition_time
    assert world.condition("Complete").status == ("True" if complete else "Unknown")
    assert await world.settle() == 0


async def test_waiting_run_causes_no_write_when_time_passes() -> None:
    world = World()
    await world.settle()
    world.now += 30
    assert await world.settle() == 0


async def test_attempt_ends_at_the_step_of_its_result_when_the_last_report_is_older() -> None:
    world = World()
    await world.to_training()
    world.report(step=18)
    await world.after(10)
    world.edit(suspend=True)
    await world.settle()
    world.drain(Stage.TRAIN, step=20)
    await world.settle()
    assert world.status.attempts[-1].end_step == 20


async def test_training_resumes_from_the_checkpoint_when_a_rank_fails() -> None:
    world = World()
    await world.to_training()
    world.report(step=20, checkpoint=15)
    await world.after(60)
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await world.settle()
    assert world.status.restarts.toward_limit == 1
    assert world.status.last_failure.reason == "TrainerFailed"
    await world.after(30)
    second = world.status.attempts[-1]
    assert (second.stage, second.number, second.start_step) == ("train", 2, 15)
    assert world.status.restarts.resumes == 1
    world.run_pods(Stage.TRAIN, 2)
    await world.after(10)
    world.complete(Stage.TRAIN, 2)
    await world.settle()
    assert world.condition("Trained").status == "True"
    # Both attempts are paid for: 2 GPUs x 61 s and 2 GPUs x 10 s.
    assert world.status.usage.gpu_seconds == 2 * 61 + 2 * 10


async def test_run_fails_when_restarts_are_used_up() -> None:
    world = World(retries={"maxRestarts": 1})
    await world.to_training()
    for attempt in (1, 2):
        if attempt > 1:
            await world.after(400)
            world.run_pods(Stage.TRAIN, attempt)
            await world.after(1)
        world.finish_pods(Stage.TRAIN, attempt, exit_code=1)
        await world.settle()
    assert world.condition("Failed").reason == "BackoffLimitExceeded"
    assert world.condition("Complete").status == "False"
    assert world.status.stage == "Failed"


async def test_run_fails_at_once_when_the_input_is_bad() -> None:
    world = World()
    await world.settle()
    world.run_pods(Stage.PREPARE)
    await world.after(1)
    error = "dataset.uri: file:///nowhere.jsonl does not exist; mount it"
    world.finish_pods(
        Stage.PREPARE,
        exit_code=78,
        result=StageResult(stage=Stage.PREPARE, outcome=Outcome.FAILED, error=error),
    )
    await world.settle()
    assert world.condition("Failed").reason == "BadInput"
    assert error in world.condition("Failed").message


async def test_run_fails_at_once_when_its_training_diverged() -> None:
    world = World()
    await world.to_training()
    error = "diverged: step 7: the loss is not a finite number; Start a run with a lower training.learningRate"
    world.finish_pods(
        Stage.TRAIN,
        exit_code=ExitCode.DIVERGED,
        result=StageResult(stage=Stage.TRAIN, outcome=Outcome.FAILED, error=error),
    )
    await world.settle()
    assert world.condition("Failed").reason == "Diverged"
    assert error in world.condition("Failed").message
    assert world.status.last_failure.reason == "Diverged"


async def test_memory_exhaustion_is_named_when_a_rank_is_killed_for_it() -> None:
    world = World()
    await world.to_training()
    world.finish_pods(Stage.TRAIN, exit_code=137, reason="OOMKilled")
    await world.settle()
    assert world.status.last_failure.reason == "OOMKilled"
    assert "resources.memory" in world.status.last_failure.message


async def test_node_loss_does_not_count_as_a_restart_when_a_node_is_powered_off() -> None:
    world = World()
    await world.to_training()
    world.report(step=20, checkpoint=20)
    await world.after(10)

    silence_node(world, "node-2")
    await world.after(31)
    assert world.status.attempts[-1].stop_reason == "NodeLost"
    assert world.job_gone(Stage.TRAIN)
    # The live rank drains; the one on the dead node stays as it is.
    world.set_status(world.pods(Stage.TRAIN)[0], phase="Failed", exit_code=75)
    await world.after(5)
    attempts = world.status.attempts
    assert attempts[-2].reason == "NodeLost"
    assert attempts[-2].counted is False
    assert (attempts[-1].number, attempts[-1].start_step) == (2, 20)
    assert world.status.restarts.toward_limit == 0
    # The lost pod goes on being charged until it is gone.
    assert [entry.node for entry in world.status.ledger.open] == ["node-2"]


async def test_suspension_drains_and_resumes_when_the_field_is_toggled() -> None:
    world = World()
    await world.to_training()
    await world.after(10)
    world.edit(suspend=True)
    await world.settle()
    assert world.status.stage == "Stopping"
    assert world.job_gone(Stage.TRAIN)
    world.drain(Stage.TRAIN, step=20)
    await world.settle()
    assert world.status.stage == "Suspended"
    assert world.condition("Suspended").status == "True"
    assert world.status.checkpoint.step == 20
    assert not world.pods(Stage.TRAIN)
    spent = world.status.cost.spent_micro_usd
    await world.after(3_600)
    assert world.status.cost.spent_micro_usd == spent
    world.edit(suspend=False)
    await world.settle()
    assert (world.status.attempts[-1].number, world.status.attempts[-1].start_step) == (2, 20)
    assert world.status.restarts.toward_limit == 0


async def test_deletion_leaves_nothing_behind_when_training_runs() -> None:
    world = World(storage={"retain": False})
    await world.to_training()
    await world.after(10)
    world.kube.remove("ReasoningFinetune", NAMESPACE, NAME)
    await world.settle()
    world.drain(Stage.TRAIN)
    for _ in range(5):
        if ("ReasoningFinetune", NAMESPACE, NAME) not in world.kube.objects:
            break
        await world.reconciler.reconcile(world.key)
    left = {kind for kind, _, _ in world.kube.objects}
    assert left == {"Node"}
    assert "Deleted" in world.reasons()


async def test_deletion_is_not_held_up_when_the_node_never_answers_again() -> None:
    world = World(storage={"retain": False})
    await world.to_training()
    for name in ("node-1", "node-2"):
        silence_node(world, name)
    world.kube.remove("ReasoningFinetune", NAMESPACE, NAME)
    await world.settle_deleted()
    assert {kind for kind, _, _ in world.kube.objects} == {"Node"}


async def test_resource_is_deleted_when_its_time_to_live_is_over() -> None:
    world = World(evaluation=None, ttlSecondsAfterFinished=60)
    await world.to_training()
    world.complete(Stage.TRAIN)
    await world.settle()
    assert world.status.stage == "Complete"
    world.now += 61
    await world.settle_deleted()
    assert not world.kube.find("ReasoningFinetune")


async def test_run_waits_when_a_secret_is_missing_and_starts_when_it_appears() -> None:
    world = World(model={"uri": "hf://org/name", "secretRef": {"name": "hub"}})
    await world.settle()
    assert world.condition("Accepted").reason == "SecretNotFound"
    assert "'hub'" in world.condition("Accepted").message
    assert not world.kube.find("Job")
    world.kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub", "namespace": NAMESPACE}})
    await world.after(15)
    assert world.condition("Accepted").status == "True"
    assert world.kube.find("Job")


def claim(name: str, mode: str, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata,
        "spec": {"accessModes": [mode]},
    }


KEPT = {"app.kubernetes.io/managed-by": "rft-operator", "rft.dev/finetune": NAME}


@pytest.mark.parametrize(("mode", "told"), [("ReadWriteOnce", True), ("ReadWriteMany", False)])
@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("nodes", [1, 2])
async def test_claim_that_one_node_can_have_is_told_before_ranks_of_another_wait_for_it(
    mode: str, told: bool, kept: bool, nodes: int
) -> None:
    storage = {} if kept else {"claimName": "weights"}
    world = World(resources={"nodes": nodes}, storage=storage)
    world.kube.put(claim(f"{NAME}-data", mode, **KEPT) if kept else claim("weights", mode))
    world.restart_operator()
    await world.settle()
    messages = [message for _, reason, message in world.kube.events if reason == "ClaimNotShared"]
    assert len(messages) == (told and nodes == 2)
    for message in messages:
        assert (f"{NAME}-data" if kept else "weights") in message


async def test_run_does_not_start_when_no_price_is_known() -> None:
    world = World(budget={"usdPerGpuHour": None})
    await world.settle()
    assert world.condition("Accepted").reason == "PriceUnknown"
    assert "node-1" in world.condition("Accepted").message
    assert not world.kube.find("Job")


async def test_message_says_what_a_price_per_node_lacks_while_the_pool_is_empty() -> None:
    pool = {"node.kubernetes.io/instance-type": "p5"}
    world = World(nodes=0, budget={"usdPerGpuHour": None}, scheduling={"nodeSelector": pool})
    row = "{name: whole, match: {instanceType: p5}, basis: node, usdPerHour: '32'}"
    world.catalogue, _ = PriceCatalogue.parse(f"version: 1\nprices:\n- {row}\n")
    await world.settle()
    assert world.condition("Accepted").reason == "PriceUnknown"
    assert "add gpusPerNode" in world.condition("Accepted").message
    world.catalogue, _ = PriceCatalogue.parse(f"version: 1\nprices:\n- {row[:-1]}, gpusPerNode: 8}}\n")
    await world.after(30)
    assert world.condition("Accepted").status == "True"
    assert world.status.cost.usd_per_gpu_hour == "4.000000"


async def test_resource_of_another_controller_is_left_alone() -> None:
    world = World(managedBy="example.com/other")
    assert await world.settle() == 0
    assert world.status.stage is None


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.TRAIN])
async def test_run_fails_for_good_when_a_pod_was_given_devices_that_nobody_prices(stage: Stage) -> None:
    world = World()
    await (world.to_training() if stage is Stage.TRAIN else world.settle())
    if stage is Stage.PREPARE:
        world.run_pods(stage)

    def claim(obj: dict[str, Any]) -> None:
        obj["spec"] = {**obj["spec"], "resourceClaims": [{"name": "gpus", "resourceClaimTemplateName": "h100"}]}

    world.kube.patch("Pod", NAMESPACE, world.pods(stage)[0]["metadata"]["name"], claim)
    await world.settle()
    assert world.job_gone(stage)
    world.finish_pods(stage, exit_code=143)
    await world.settle()
    assert (world.condition("Failed").status, world.condition("Failed").reason) == ("True", "ResourceClaims")
    assert "has the resource claims gpus" in world.condition("Failed").message
    assert len([each for each in world.status.attempts if each.stage == stage.value]) == 1


async def test_stalled_training_is_restarted_when_no_step_is_made() -> None:
    world = World(timeouts={"stallSeconds": 120})
    await world.to_training()
    world.report(step=5)
    await world.after(1)
    await world.after(121)
    assert world.status.attempts[-1].stop_reason == "Stalled"
    assert world.job_gone(Stage.TRAIN)


@pytest.mark.parametrize(("phase", "stalled"), [("save", False), ("export", False), ("train", True)])
async def test_long_save_is_no_stall_when_the_trainer_says_that_it_saves(phase: str, stalled: bool) -> None:
    world = World(timeouts={"stallSeconds": 120})
    await world.to_training()
    world.report(step=5, phase=phase)
    await world.after(1)
    await world.after(121)
    assert (world.status.attempts[-1].stop_reason == "Stalled") is stalled
    await world.after(4 * 120)
    assert world.status.attempts[-1].stop_reason == "Stalled", "a phase that never ends is one all the same"


@pytest.mark.parametrize(("on_stall", "attempts"), [("restart", 2), ("fail", 1)])
async def test_hang_that_the_trainer_saw_itself_is_a_stall_when_the_attempt_ends(on_stall: str, attempts: int) -> None:
    world = World(timeouts={"onStall": on_stall})
    await world.to_training()
    error = "hang: rank 1 gave no sign of life for 96 s"
    hung = StageResult(stage=Stage.TRAIN, outcome=Outcome.FAILED, error=error)
    world.finish_pods(Stage.TRAIN, exit_code=ExitCode.STALLED, result=hung)
    await world.after(1)
    await world.after(60)
    trained = [attempt for attempt in world.status.attempts if attempt.stage == "train"]
    assert len(trained) == attempts
    assert (trained[0].reason, trained[0].counted) == ("Stalled", True)
    assert error in (trained[0].message or "")


async def test_unschedulable_gang_times_out_when_no_node_comes() -> None:
    world = World(timeouts={"pendingSeconds": 60})
    await world.settle()
    world.run_pods(Stage.PREPARE)
    await world.after(1)
    world.complete(Stage.PREPARE)
    await world.settle()
    world.create_pods(Stage.TRAIN)
    for pod in world.pods(Stage.TRAIN):
        world.kube.patch(
            "Pod",
            NAMESPACE,
            pod["metadata"]["name"],
            lambda obj: obj["status"].update(
                conditions=[
                    {"type": "PodScheduled", "status": "False", "message": "0/2 nodes: Insufficient nvidia.com/gpu"}
                ]
            ),
        )
    await world.settle()
    assert "Insufficient nvidia.com/gpu" in world.condition("Scheduled").message
    assert "Unschedulable" not in world.reasons()
    await world.after(11)
    assert world.condition("Running").reason == "Unschedulable"
    assert world.reasons().count("Unschedulable") == 1
    await world.after(50)
    assert world.status.attempts[-1].stop_reason == "PendingTimeout"


async def test_operator_restart_changes_nothing_when_training_runs() -> None:
    world = World()
    await world.to_training()
    await world.after(30)
    before = world.status
    world.restart_operator()
    assert await world.settle() == 0
    assert world.status == before
