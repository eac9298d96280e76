"""Runs that go, by hand or by their time to live: nothing of them stays."""

from __future__ import annotations

import pytest

from rft_operator.api.status import ConditionType
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.operator_thread import OperatorThread, Settings, operating
from support.polling import eventually
from support.side import GARBAGE_SECONDS


@pytest.mark.parametrize("kubelet", [4], indirect=True)
async def test_run_leaves_nothing_behind_when_it_is_deleted_in_any_stage(
    operator: OperatorThread, kubelet: Kubelet, kube: KubeClient, namespace: str
) -> None:
    names = ("refused", "preparing", "training", "evaluating", "complete", "retaining")
    runs = {name: LiveRun(kube, namespace, name) for name in names}
    dropped = {"storage": {"retain": False}}
    await runs["refused"].apply(storage={"claimName": "nowhere"})
    for name, stages in (
        ("evaluating", (Stage.PREPARE, Stage.TRAIN)),
        ("complete", (Stage.PREPARE, Stage.TRAIN, Stage.EVALUATE)),
        ("retaining", (Stage.PREPARE, Stage.TRAIN, Stage.EVALUATE)),
        ("training", (Stage.PREPARE,)),
        ("preparing", ()),
    ):
        await runs[name].apply(**({} if name == "retaining" else dropped))
        await kubelet.work(*stages, run=name)
    await kubelet.start(Stage.PREPARE, run="preparing")
    ranks = await kubelet.start(Stage.TRAIN, run="training")
    await kubelet.start(Stage.EVALUATE, run="evaluating")
    await runs["refused"].until_condition(ConditionType.ACCEPTED, "False")
    await runs["complete"].until_condition(ConditionType.COMPLETE)
    await runs["retaining"].until_condition(ConditionType.COMPLETE)
    await kubelet.hold(ranks)
    for run in runs.values():
        await run.delete()

    async def left() -> dict[str, list[str]]:
        found = {name: await run.leftovers() for name, run in runs.items()}
        return {name: things for name, things in found.items() if things}

    async def gone() -> bool:
        return await left() == {"retaining": ["PersistentVolumeClaim retaining-data"]}

    try:
        await eventually(gone, what="everything of the runs to be gone", seconds=GARBAGE_SECONDS)
    except AssertionError as error:
        error.add_note(f"left are {await left()}")
        raise
    deleted = [event.note for event in await runs["training"].events_until("Deleted") if event.reason == "Deleted"]
    assert len(deleted) == 1
    assert "GPU-hours" in deleted[0]
    assert "$0.00" not in deleted[0]


async def test_run_is_deleted_by_itself_when_its_time_to_live_has_passed(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun
) -> None:
    await run.apply(ttlSecondsAfterFinished=2, storage={"retain": False}, evaluation=None)
    await kubelet.work(Stage.PREPARE, Stage.TRAIN)

    async def gone() -> bool:
        return not await run.leftovers()

    await eventually(gone, what="the run to be gone", seconds=GARBAGE_SECONDS)
    await run.events_until("Complete")


async def test_namespace_goes_when_it_is_deleted_under_a_run_in_training(
    settings: Settings, kubelet: Kubelet, kube: KubeClient, run: LiveRun
) -> None:
    # The operator lives elsewhere, as it does where a chart installed it.
    async with operating(settings(namespace="default", leader_election=False, progress_url=None)) as operator:
        await run.apply(checkpoint={"graceSeconds": 10})
        await kubelet.work(Stage.PREPARE)
        await kubelet.start(Stage.TRAIN)
        await run.until(lambda status: len(status.ledger.open) == 2, what="the meter to run")
        await kube.delete(kind="Namespace", namespace="", name=run.namespace)

        async def gone() -> bool:
            return run.namespace not in [each["metadata"]["name"] for each in await kube.list(kind="Namespace")]

        await eventually(gone, what="the namespace to be gone", seconds=GARBAGE_SECONDS)
        assert (await operator.metrics()).total("reasoning_finetune_budget_usd") == 0
