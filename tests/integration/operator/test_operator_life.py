"""A run from apply to Complete under a running operator: real Jobs, a real scheduler, and a bill to the second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rft_operator.api import KIND
from rft_operator.api.status import ConditionType, DisplayStage, Status
from rft_operator.domain.facts import FINALIZER
from rft_trainer.contract import Stage
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.operator_thread import OperatorThread, idle
from support.pod_history import PodHistory
from support.polling import eventually

MICRO_USD_PER_GPU_SECOND = 1_000
"""At the $3.60 per GPU-hour of support.builders.SPEC."""


def finalized(objects: Iterable[Mapping[str, Any]]) -> list[str]:
    return [each["metadata"]["name"] for each in objects if FINALIZER in each["metadata"].get("finalizers", ())]


def owner(obj: Mapping[str, Any]) -> tuple[str, str, str, bool]:
    (each,) = obj["metadata"]["ownerReferences"]
    return each["kind"], each["name"], each["uid"], each["controller"]


def settled(status: Status) -> bool:
    return status.stage is DisplayStage.COMPLETE and not status.ledger.open and not status.ledger.uncounted


async def job_of(run: LiveRun, stage: Stage) -> Mapping[str, Any]:
    (found,) = [job for job in await run.children("Job") if job["metadata"]["labels"]["rft.dev/stage"] == stage.value]
    return found


async def test_run_is_trained_evaluated_and_billed_to_the_second_when_its_pods_do_their_work(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun, history: PodHistory
) -> None:
    await run.apply()
    await kubelet.work(Stage.PREPARE)
    await kubelet.work(Stage.TRAIN, Stage.EVALUATE, seconds=2)
    status = await run.until(settled, what="the end and the last bill")
    assert [(each.stage, each.number, each.outcome) for each in status.attempts] == [
        ("prepare", 1, "Succeeded"),
        ("train", 1, "Succeeded"),
        ("evaluate", 1, "Succeeded"),
    ]
    witnessed = history.gpu_time(run.namespace)
    assert [each.stage for each in witnessed] == ["train", "train", "evaluate"]
    seconds = sum(each.gpu_seconds for each in witnessed)
    assert seconds >= 6
    assert (status.usage.gpu_seconds, status.cost.spent_micro_usd) == (seconds, seconds * MICRO_USD_PER_GPU_SECOND)
    assert status.evaluation is not None
    assert status.evaluation.display == "0.000 -> 0.900 [0.826-0.945] Improved"
    reasons = [event.reason for event in await run.events_until("Complete")]
    assert [each for each in reasons if each != "AttemptStarted"] == [
        "Accepted", "Prepared", "Trained", "Evaluated", "Complete"
    ]  # fmt: skip
    assert reasons.count("AttemptStarted") == 3

    async def released() -> bool:
        return not finalized([await run.raw(), *await run.children("Pod")])

    await eventually(released, what="our finalizers to come off")


async def test_pod_is_owned_and_a_gpu_pod_held_and_bounded_when_a_stage_starts(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun
) -> None:
    await run.apply()
    (prepare,) = await kubelet.start(Stage.PREPARE)
    assert finalized([prepare, await run.raw()]) == []
    assert "activeDeadlineSeconds" not in prepare["spec"]
    await kubelet.complete(Stage.PREPARE)
    trainers = await kubelet.work(Stage.TRAIN)
    (evaluator,) = await kubelet.start(Stage.EVALUATE)
    assert len(finalized([*trainers, evaluator, await run.raw()])) == 4
    # $10 less the evaluation's reserve of $0.66, for two GPUs at $3.60 an hour, less grace and slack of 90 s.
    assert [pod["spec"]["activeDeadlineSeconds"] for pod in trainers] == [4_580, 4_580]
    assert evaluator["spec"]["activeDeadlineSeconds"] == 600
    uid = (await run.raw())["metadata"]["uid"]
    for stage, pods in ((Stage.PREPARE, [prepare]), (Stage.TRAIN, trainers), (Stage.EVALUATE, [evaluator])):
        job = await job_of(run, stage)
        assert owner(job) == (KIND, run.name, uid, True)
        assert {owner(pod) for pod in pods} == {("Job", f"{run.name}-{stage.value}-1", job["metadata"]["uid"], True)}


async def test_idle_run_costs_no_write_when_everything_is_listed_and_reconciled_again(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun
) -> None:
    await run.apply()
    await kubelet.work(Stage.PREPARE)
    await kubelet.start(Stage.TRAIN)

    async def trains() -> bool:
        status = (await job_of(run, Stage.TRAIN))["status"]
        return bool(status.get("ready") == 2)

    await eventually(trains, what="the Job controller to count the trainers")
    await run.until_condition(ConditionType.RUNNING)
    await idle(operator, run)
    await kubelet.complete(Stage.TRAIN)
    await kubelet.work(Stage.EVALUATE)
    await run.until(settled, what="the end and the last bill")
    await run.controllers_rest()
    await idle(operator, run)


async def test_metrics_show_the_machinery_and_the_money_when_a_run_is_complete(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun
) -> None:
    await run.apply()
    await kubelet.work(Stage.PREPARE)
    await kubelet.work(Stage.TRAIN, Stage.EVALUATE, seconds=1)
    status = await run.until(settled, what="the end and the last bill")
    assert status.usage.gpu_seconds >= 3
    samples = await operator.metrics()
    mine = {"namespace": run.namespace, "finetune": run.name}
    assert samples.total("reasoning_finetune_gpu_seconds_total", **mine) == status.usage.gpu_seconds
    assert round(samples.total("reasoning_finetune_cost_usd_total", **mine), 6) == status.cost.spent_micro_usd / 1e6
    by_stage = {each.stage: each.gpu_seconds for each in status.usage.by_stage}
    assert samples.total("reasoning_finetune_gpu_seconds_total", phase="train") == by_stage["train"]
    assert samples.total("reasoning_finetune_budget_usd", **mine) == 10
    assert samples.total("reasoning_finetune_stage", stage="Complete", **mine) == 1
    assert samples.total("rft_leader") == 1
    assert samples.total("rft_last_sweep_timestamp_seconds") > 0
    assert samples.total("rft_reconciles_total", result="ok") > 0
    assert samples.total("rft_reconciles_total", result="crash") == 0
    for name in ("rft_reconcile_duration_seconds_count", "rft_queue_wait_seconds_count", "rft_status_writes_total"):
        assert samples.total(name) > 0, name
    for kind in (KIND, "Pod", "Job", "ConfigMap", "PersistentVolumeClaim", "Service", "Node"):
        assert samples.total("rft_watch_events_total", kind=kind) > 0, kind
