"""Money on a real control plane: deadlines that follow the limit, nodes that fall silent, prices that float."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rft_operator.api.status import ConditionType
from rft_operator.domain.timestamps import epoch
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.operator_thread import Settings, operating
from support.polling import eventually

PATIENT = {"node_lost_seconds": 3_600}
"""So that a silent node ends no attempt while a test looks at its money."""


def write_prices(file: Path, *, rise_at: str) -> None:
    match = "match: {instanceType: rft-local}"
    rows = (
        f'- {{name: first, {match}, usdPerHour: "3.60"}}',
        f'- {{name: second, {match}, usdPerHour: "36", effectiveFrom: "{rise_at}"}}',
    )
    file.write_text("\n".join(["version: 1", "prices:", *rows, ""]), encoding="utf-8")


async def deadlines(kubelet: Kubelet) -> set[int]:
    return {pod["spec"]["activeDeadlineSeconds"] for pod in await kubelet.pods(Stage.TRAIN)}


async def to_training(kubelet: Kubelet, run: LiveRun, **spec: Any) -> None:
    await run.apply(**spec)
    await kubelet.work(Stage.PREPARE)
    await kubelet.start(Stage.TRAIN)
    await run.until(lambda status: len(status.ledger.open) == 2, what="the meter to run")


async def test_pods_carry_the_deadline_on_record_and_a_lower_one_when_the_limit_is_lowered(
    settings: Settings, kubelet: Kubelet, run: LiveRun
) -> None:
    async with operating(settings()):
        await to_training(kubelet, run)
        (attempt,) = await run.attempts(Stage.TRAIN)
        assert await deadlines(kubelet) == {attempt.deadline_seconds}
        await run.edit(budget={"limitUSD": "6"})

        async def lowered() -> bool:
            return max(await deadlines(kubelet)) < (attempt.deadline_seconds or 0)

        await eventually(lowered, what="the deadlines to be lowered")
        low = await deadlines(kubelet)
        await run.edit(budget={"limitUSD": "30"})
        await run.until(lambda status: (status.cost.remaining_usd or "") > "20", what="the raised limit to be taken")
        assert await deadlines(kubelet) == low


async def test_charge_of_a_silent_node_is_disputed_since_its_last_lease_and_ends_when_the_node_goes(
    settings: Settings, kubelet: Kubelet, kube: KubeClient, run: LiveRun
) -> None:
    async with operating(settings(**PATIENT)):
        await to_training(kubelet, run)
        node = kubelet.nodes[0]
        await kubelet.silence(node)
        found = await run.until_condition(ConditionType.BUDGET_AT_RISK, reason="NodeUnreachable")
        assert node in found.message
        (entry,) = [each for each in (await run.status()).ledger.open if each.node == node]
        lease = await kube.read(kind="Lease", namespace="kube-node-lease", name=node)
        renewed = int(datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp())
        assert entry.disputed_since is not None
        assert epoch(entry.disputed_since) == max(renewed, epoch(entry.start_time))
        await kubelet.remove_node(node)
        status = await run.until(lambda status: len(status.ledger.open) == 1, what="the charge to end")
        closed = [each for each in status.ledger.uncounted if each.node == node]
        assert [each.end_basis for each in closed] in (["nodeGone"], [])
        await run.until_condition(ConditionType.BUDGET_AT_RISK, "False")


async def test_floating_price_changes_at_its_second_and_the_sum_is_exact(
    settings: Settings, kubelet: Kubelet, run: LiveRun, prices: Path
) -> None:
    change = int(time.time()) + 12
    at = datetime.fromtimestamp(change, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    write_prices(prices, rise_at=at)
    async with operating(settings()):
        await to_training(kubelet, run, budget={"usdPerGpuHour": None, "pricePolicy": "floating", "limitUSD": 100})
        await run.until(
            lambda status: {each.price_source for each in status.ledger.open} == {"second"},
            what="the new price",
        )
        await kubelet.complete(Stage.TRAIN)
        await kubelet.work(Stage.EVALUATE)
        await run.until_condition(ConditionType.COMPLETE)
        status = await run.until(
            lambda status: not (status.ledger.open or status.ledger.uncounted), what="the last bill"
        )
    pods = [*await kubelet.pods(Stage.TRAIN), *await kubelet.pods(Stage.EVALUATE)]
    expected = 0
    for pod in pods:
        (bound,) = [each for each in pod["status"]["conditions"] if each["type"] == "PodScheduled"]
        written = [
            each["time"]
            for each in pod["metadata"]["managedFields"]
            if "f:phase" in each["fieldsV1"].get("f:status", {})
        ]
        for second in range(epoch(bound["lastTransitionTime"]), max(epoch(each) for each in written)):
            expected += 3_600_000 if second < change else 36_000_000
    assert status.cost.spent_micro_usd == -(-expected // 3_600)
