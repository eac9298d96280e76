"""A run whose GPU Jobs Kueue starts, preempts and starts again, on the real API server with the real Job controller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from kubernetes.aio import client

from rft_operator.api.status import ConditionType, DisplayStage
from rft_operator.domain.facts import GATE
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.api_server import ApiServer
from support.kubelet import Kubelet
from support.kueue import FLAVOR, MANAGER, Kueue
from support.live_run import LiveRun
from support.operator_thread import OperatorThread, Settings, operating, sweeps
from support.pod_history import PodHistory
from support.polling import eventually

QUEUED = {"scheduling": {"queueName": "team-a"}}


@pytest.fixture
async def kueue(server: ApiServer, kube: KubeClient, namespace: str) -> AsyncIterator[Kueue]:
    """Kueue, as far as Jobs can tell."""
    async with client.ApiClient(await server.configuration()) as api:
        yield Kueue(client.BatchV1Api(api), kube, namespace)


async def test_run_waits_for_its_quota_at_no_cost_and_completes_when_kueue_admits_its_jobs(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun, kueue: Kueue, history: PodHistory
) -> None:
    await run.apply(**QUEUED)
    await kubelet.work(Stage.PREPARE)
    await kueue.waiting(Stage.TRAIN)
    condition = await run.until_condition(ConditionType.SCHEDULED, "False", reason="WaitingForQuota")
    assert "queue team-a" in condition.message
    await sweeps(operator)
    status = await run.status()
    assert (status.stage, status.cost.spent_usd) == (DisplayStage.QUEUED, "0.000000")
    assert await kubelet.pods(Stage.TRAIN) == []
    await kueue.admit(Stage.TRAIN)
    await kubelet.start(Stage.TRAIN)
    await run.until_condition(ConditionType.RUNNING)
    job = await kube_job(run, "demo-train-1")
    assert job["spec"]["template"]["spec"]["nodeSelector"] == FLAVOR, "what Kueue wrote is left alone"
    writers = {each["manager"] for each in job["metadata"]["managedFields"] if "f:spec" in each["fieldsV1"]}
    assert MANAGER in writers
    await kubelet.complete(Stage.TRAIN)
    await kueue.admit(Stage.EVALUATE)
    await kubelet.start(Stage.EVALUATE)
    await kubelet.complete(Stage.EVALUATE)
    await run.until_condition(ConditionType.COMPLETE)
    status = await run.until(lambda found: not found.ledger.uncounted and not found.ledger.open, what="the bill")
    assert status.usage.gpu_seconds == sum(each.gpu_seconds for each in history.gpu_time(run.namespace))


async def test_preempted_run_saves_pays_to_the_second_and_goes_on_without_a_restart_when_kueue_takes_its_quota(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun, kueue: Kueue, history: PodHistory
) -> None:
    await run.apply(**QUEUED, retries={"maxRestarts": 0})
    await kubelet.work(Stage.PREPARE)
    await kueue.admit(Stage.TRAIN)
    await kubelet.hold(await kubelet.start(Stage.TRAIN))
    await kueue.evict(Stage.TRAIN)
    await kueue.waiting(Stage.TRAIN, 2)
    (first, second) = await run.attempts(Stage.TRAIN)
    assert (first.reason, first.counted, second.start_step) == ("Preempted", False, 20)
    status = await run.until(
        lambda found: not found.ledger.uncounted and found.stage is DisplayStage.QUEUED,
        what="a bill and a place in line",
    )
    assert (status.ledger.open, status.restarts.toward_limit) == ([], 0)
    assert status.usage.gpu_seconds == sum(each.gpu_seconds for each in history.gpu_time(run.namespace)) >= 4
    jobs = {job["metadata"]["name"] for job in await run.children("Job")}
    assert "demo-train-1" not in jobs, "Kueue could start the old Job again"
    await kueue.admit(Stage.TRAIN, 2)
    await kubelet.start(Stage.TRAIN, 2)
    await run.until_condition(ConditionType.RUNNING)


async def test_no_pod_is_bound_when_kueue_starts_a_preempted_job_again_while_the_operator_is_down(
    settings: Settings, kubelet: Kubelet, run: LiveRun, kueue: Kueue
) -> None:
    async with operating(settings()):
        await run.apply(**QUEUED)
        await kubelet.work(Stage.PREPARE)
        await kueue.admit(Stage.TRAIN)
        old = {pod["metadata"]["uid"] for pod in await kubelet.start(Stage.TRAIN)}
        await run.until_condition(ConditionType.RUNNING)
    await kueue.evict(Stage.TRAIN)
    await kueue.admit(Stage.TRAIN)

    async def made_anew() -> bool:
        pods = [pod for pod in await kubelet.pods(Stage.TRAIN) if pod["metadata"]["uid"] not in old]
        assert all(pod["spec"]["schedulingGates"] == [{"name": GATE}] for pod in pods)
        return len(pods) == 2

    await eventually(made_anew, what="the Job controller to make the pods anew", seconds=60)
    async with operating(settings("operator-2")):
        await kueue.waiting(Stage.TRAIN, 2)
        (first, _) = await run.attempts(Stage.TRAIN)
        assert (first.reason, first.counted) == ("Preempted", False)


async def kube_job(run: LiveRun, name: str) -> dict[str, Any]:
    return dict(await run.kube.get(kind="Job", namespace=run.namespace, name=name))
