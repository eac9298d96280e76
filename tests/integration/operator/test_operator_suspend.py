"""A run that its user suspends and resumes."""

from __future__ import annotations

from rft_operator.api.status import ConditionType, DisplayStage
from rft_trainer.contract import Stage
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.operator_thread import OperatorThread
from support.pod_history import PodHistory
from support.polling import eventually
from support.side import GARBAGE_SECONDS


async def test_run_frees_its_gpus_and_resumes_with_the_next_attempt_when_it_is_suspended_and_resumed(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun, history: PodHistory
) -> None:
    await run.apply()
    await kubelet.work(Stage.PREPARE)
    await kubelet.hold(await kubelet.start(Stage.TRAIN))
    await run.edit(suspend=True)
    await run.until_condition(ConditionType.SUSPENDED)
    status = await run.until(lambda status: not status.ledger.uncounted, what="the bill of the first attempt")
    assert (status.stage, status.ledger.open) == (DisplayStage.SUSPENDED, [])
    assert [(each.outcome, each.reason, each.counted) for each in await run.attempts(Stage.TRAIN)] == [
        ("Drained", "Suspended", False)
    ]

    async def freed() -> bool:
        jobs = [job["metadata"]["name"] for job in await run.children("Job")]
        return jobs == ["demo-prepare-1"] and not await kubelet.pods(Stage.TRAIN)

    await eventually(freed, what="the Job and its pods to be gone", seconds=GARBAGE_SECONDS)
    assert status.usage.gpu_seconds == sum(each.gpu_seconds for each in history.gpu_time(run.namespace)) >= 4
    await run.edit(suspend=False)
    await kubelet.start(Stage.TRAIN, 2)
    await run.until_condition(ConditionType.SUSPENDED, "False")
    second = (await run.attempts(Stage.TRAIN))[1]
    assert (second.number, second.start_step) == (2, 20)
    status = await run.status()
    assert (status.restarts.total, status.restarts.toward_limit, status.restarts.resumes) == (1, 0, 1)
