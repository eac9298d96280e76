"""Operators that are killed, and operators that follow each other: nothing is done twice, and no second is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from itertools import groupby

from rft_operator.api.status import ConditionType, Status
from rft_operator.config import Config
from rft_operator.domain.facts import FINALIZER
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.kubelet import Kubelet, Pod
from support.live_run import LiveRun
from support.operator_process import LEADING, STANDING_BY, OperatorProcess
from support.operator_thread import Settings, operating
from support.pod_history import PodHistory
from support.polling import eventually

Spawn = Callable[[Config], OperatorProcess]


async def test_run_completes_with_one_attempt_and_the_exact_bill_when_the_operator_is_killed_during_training(
    spawn: Spawn, settings: Settings, kubelet: Kubelet, run: LiveRun, history: PodHistory
) -> None:
    config = settings()
    async with spawn(config) as operator:
        await operator.leading()
        await run.apply()
        await kubelet.work(Stage.PREPARE)
        ranks = await kubelet.start(Stage.TRAIN)
        await run.until(lambda status: len(status.ledger.open) == 2, what="the meter to run")
        await operator.kill()
    await kubelet.hold(ranks)
    trainers = await kubelet.complete(Stage.TRAIN)
    await run.controllers_rest(but=FINALIZER)
    # A restarted container keeps its pod's name, and with it the lease.
    async with spawn(config) as operator:
        await operator.leading()
        await kubelet.work(Stage.EVALUATE)
        await run.until_condition(ConditionType.COMPLETE)
        status = await run.until(lambda status: not status.ledger.uncounted, what="the last bill")
        await operator.stop()
    assert [(each.number, each.outcome) for each in await run.attempts(Stage.TRAIN)] == [(1, "Succeeded")]
    assert status.restarts.total == 0
    witnessed = history.gpu_time(run.namespace)
    assert {each.pod for each in witnessed} > {pod["metadata"]["name"] for pod in trainers}
    assert status.usage.gpu_seconds == sum(each.gpu_seconds for each in witnessed) >= 4
    assert "Traceback" not in operator.words()


def third_is_metered(status: Status) -> bool:
    ledger = status.ledger
    return [each.attempt for each in ledger.open] == [3, 3] and not ledger.uncounted


async def held(kube: KubeClient, pod: Pod) -> bool:
    """Return whether a pod is deleted and has ended, and our finalizer alone keeps it."""
    meta = pod["metadata"]
    found = await kube.get(kind="Pod", namespace=meta["namespace"], name=meta["name"])
    deleted, kept = found["metadata"].get("deletionTimestamp"), found["metadata"].get("finalizers")
    return bool(deleted) and kept == [FINALIZER] and found["status"]["phase"] == "Failed"


async def holder(kube: KubeClient, namespace: str) -> str:
    lease = await kube.read(kind="Lease", namespace=namespace, name="rft-operator")
    return str(lease["spec"].get("holderIdentity"))


async def test_one_operator_works_and_the_next_takes_over_when_it_stops_or_is_killed(
    spawn: Spawn, settings: Settings, kubelet: Kubelet, kube: KubeClient, run: LiveRun, history: PodHistory
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(spawn(settings("operator-1")))
        await first.leading()
        second = await stack.enter_async_context(spawn(settings("operator-2")))
        await second.ready(STANDING_BY)
        await run.apply()
        await kubelet.work(Stage.PREPARE)
        _, rank = await kubelet.start(Stage.TRAIN, 1)
        await run.until_condition(ConditionType.RUNNING)
        assert (await second.metrics()).writes() == 0
        await first.stop()
        assert await holder(kube, run.namespace) in ("", "operator-2")
        await second.leading()
        await kubelet.end(rank, exit_code=1, message="a rank failed")
        third = await stack.enter_async_context(operating(settings("operator-3", progress_url=None), until=STANDING_BY))
        _, rank = await kubelet.start(Stage.TRAIN, 2)
        await run.until(lambda status: len(status.ledger.open) == 2, what="the meter to run")
        assert (await third.metrics()).writes() == 0
        await second.kill()
        await kubelet.hold([rank])
        meta = rank["metadata"]
        await kube.delete(kind="Pod", namespace=run.namespace, name=meta["name"], uid=meta["uid"])
        await eventually(lambda: held(kube, rank), what="only the ledger to hold the pod")
        assert await third.get("/readyz") == (200, STANDING_BY)
        await third.ready(LEADING)
        await kubelet.start(Stage.TRAIN, 3)
        status = await run.until(third_is_metered, what="the third attempt to be the only open bill")
        assert meta["name"] not in [pod["metadata"]["name"] for pod in await kubelet.pods(Stage.TRAIN, 2)]
    assert [(each.number, each.reason) for each in await run.attempts(Stage.TRAIN)][:2] == [
        (1, "TrainerFailed"),
        (2, "Drained"),
    ]
    closed = [each for each in history.gpu_time(run.namespace) if each.attempt != "3"]
    assert len(closed) == 4
    assert sum(each.gpu_seconds for each in status.ledger.totals) == sum(each.gpu_seconds for each in closed) >= 4
    writers = [writer for writer, _ in groupby(event.instance for event in await run.events())]
    assert writers == ["operator-1", "operator-2", "operator-3"]
