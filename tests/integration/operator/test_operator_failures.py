"""What goes wrong with pods: in conditions and Events with the pods' own words, and in the restart counters."""

from __future__ import annotations

from collections.abc import Callable

from rft_operator.api.status import ConditionType, DisplayStage, Status
from rft_trainer.contract import ExitCode, Outcome, Stage
from rft_trainer.stage_results import StageResult
from support.kubelet import Kubelet
from support.live_run import Event, LiveRun
from support.operator_thread import OperatorThread, idle

BACK_OFF = 'Back-off pulling image "rft-trainer:test": not found'


async def announced(run: LiveRun, reason: str) -> list[Event]:
    return [event for event in await run.events_until(reason) if event.reason == reason]


async def test_pod_that_waits_is_announced_once_in_its_own_words_when_it_stays_unschedulable_or_without_image(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun
) -> None:
    await kubelet.cordon()
    await run.apply()
    found = await run.until_condition(ConditionType.RUNNING, "False", reason="Unschedulable")
    assert "0/2 nodes are available: 2 node(s) were unschedulable" in found.message
    await announced(run, "Unschedulable")
    await idle(operator, run)
    (event,) = await announced(run, "Unschedulable")
    assert (event.type, event.count) == ("Warning", 1)
    assert "0/2 nodes are available: 2 node(s) were unschedulable" in event.note
    await kubelet.cordon(wanted=False)
    (pod,) = await kubelet.bound(Stage.PREPARE)
    for reason, words in (("ErrImagePull", "not found"), ("ImagePullBackOff", BACK_OFF)):
        await kubelet.wait(pod, reason=reason, message=words)
        await run.until(_running_says(words), what=words)
    found = await run.until_condition(ConditionType.RUNNING, "False", reason="ImagePullBackOff")
    assert f"{pod['metadata']['name']} on {pod['spec']['nodeName']}: ImagePullBackOff: {BACK_OFF}" in found.message
    assert "Check podTemplate.image" in found.message
    (event,) = await announced(run, "ImagePullBackOff")
    assert "not found" in event.note
    assert event.count == 1


def _running_says(words: str) -> Callable[[Status], bool]:
    def holds(status: Status) -> bool:
        return any(each.type is ConditionType.RUNNING and words in each.message for each in status.conditions)

    return holds


async def test_attempts_are_classified_and_counted_when_ranks_end_badly(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun
) -> None:
    await run.apply()
    await kubelet.work(Stage.PREPARE)
    _, second = await kubelet.start(Stage.TRAIN, 1)
    await kubelet.end(second, exit_code=137, reason="OOMKilled", message="last words")
    first, _ = await kubelet.start(Stage.TRAIN, 2)
    await kubelet.preempt(first)
    _, second = await kubelet.start(Stage.TRAIN, 3)
    await kubelet.end(second, exit_code=1, message="RuntimeError: the loss is not a number")
    first, _ = await kubelet.start(Stage.TRAIN, 4)
    refusal = StageResult(stage=Stage.TRAIN, outcome=Outcome.FAILED, error="the tokenizer has no chat template")
    await kubelet.end(first, exit_code=ExitCode.BAD_INPUT, message=refusal.model_dump_json(exclude_none=True))
    await run.until_condition(ConditionType.FAILED, reason="BadInput")
    assert [(each.reason, each.outcome, each.counted) for each in await run.attempts(Stage.TRAIN)] == [
        ("OOMKilled", "Failed", True),
        ("Preempted", "Failed", False),
        ("TrainerFailed", "Failed", True),
        ("BadInput", "Failed", True),
    ]
    status = await run.status()
    assert status.stage is DisplayStage.FAILED
    assert (status.restarts.total, status.restarts.toward_limit) == (3, 3)
    assert status.last_failure is not None
    assert (status.last_failure.pod, status.last_failure.node) == (
        first["metadata"]["name"],
        first["spec"]["nodeName"],
    )
    assert (status.last_failure.reason, status.last_failure.exit_code) == ("BadInput", 78)
    words = {
        "OOMKilled": "ran out of memory: last words. Raise resources.memory",
        "Preempted": "was preempted (PreemptionByScheduler)",
        "TrainerFailed": "failed with exit code 1 (Error): RuntimeError: the loss is not a number",
        "BadInput": "refused its input: the tokenizer has no chat template",
    }
    for reason, part in words.items():
        (event,) = await announced(run, reason)
        assert part in event.note
        assert (event.type, event.count) == ("Warning", 1)
    await run.events_until("Failed")
    await run.until(lambda status: not status.ledger.open and not status.ledger.uncounted, what="the last bill")
    await run.controllers_rest()
    await idle(operator, run)
