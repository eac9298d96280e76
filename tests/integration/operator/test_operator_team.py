"""Two runs that want the last dollars of their team, on a real control plane under a running operator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from rft_operator.api import BUDGET_KIND
from rft_operator.api.status import ConditionType, DisplayStage
from rft_operator.api.team import FinetuneBudget
from rft_operator.domain.money import usd_display
from rft_operator.runtime.kube_client import KubeClient
from rft_trainer.contract import Stage
from support.api_server import ApiServer
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.operator_thread import OperatorThread, idle
from support.polling import eventually
from support.team import team_budget

ONE_GPU: dict[str, Any] = {"evaluation": None, "budget": {"limitUSD": 10}}
MICRO_USD_PER_GPU_SECOND = 1_000


@pytest.fixture
async def first(kube: KubeClient, namespace: str) -> LiveRun:
    """The run that gets the money."""
    return LiveRun(kube, namespace, "first")


@pytest.fixture
async def second(kube: KubeClient, namespace: str) -> LiveRun:
    """The run that waits for it."""
    return LiveRun(kube, namespace, "second")


async def both_want_the_last_dollars(kube: KubeClient, first: LiveRun, second: LiveRun) -> None:
    await kube.create(team_budget(namespace=first.namespace, limitUSD=15))
    await first.apply(**ONE_GPU)
    await first.until_condition(ConditionType.ACCEPTED)
    await second.apply(**ONE_GPU)
    refusal = await second.until_condition(ConditionType.ACCEPTED, "False", reason="TeamBudgetExhausted")
    assert refusal.message.startswith(
        "Team budget 'team': limit $15.00, reserved for runs $10.00, spent by runs that ended $0.00, free $5.00; "
        "this run wants $10.00."
    )
    assert (await second.status()).start_time is None
    assert await second.children("Job") == []


async def stored(kube: KubeClient, namespace: str) -> FinetuneBudget:
    return FinetuneBudget.parse(dict(await kube.get(kind=BUDGET_KIND, namespace=namespace, name="team")))


async def test_second_run_starts_when_the_first_one_is_finished(
    operator: OperatorThread, kubelet: Kubelet, kube: KubeClient, server: ApiServer, first: LiveRun, second: LiveRun
) -> None:
    await both_want_the_last_dollars(kube, first, second)
    assert columns(server, first.namespace) == ["team", "15", "$10.00", "$0.00", "$5.00", "none"]
    events = await second.events_until("TeamBudgetExhausted")
    assert [(each.type, each.reason, each.count) for each in events] == [("Warning", "TeamBudgetExhausted", 1)]
    await kubelet.work(Stage.PREPARE, run="first")
    await kubelet.work(Stage.TRAIN, run="first", seconds=2)
    status = await first.until(lambda found: found.stage is DisplayStage.COMPLETE, what="the first run's end")
    await second.until_condition(ConditionType.ACCEPTED)

    async def booked() -> FinetuneBudget | None:
        found = await stored(kube, first.namespace)
        return found if [each.settled for each in found.status.reservations] == [True, False] else None

    budget = await eventually(booked, what="the first run's bill to be booked")
    spent = budget.status.reservations[0].spent_micro_usd
    assert spent == (await first.status()).cost.spent_micro_usd
    assert spent == status.usage.gpu_seconds * MICRO_USD_PER_GPU_SECOND
    assert spent >= 2 * 2 * MICRO_USD_PER_GPU_SECOND
    assert budget.status.reservations[1].reserved_micro_usd == 10_000_000


async def test_second_run_starts_when_the_first_one_is_deleted(
    operator: OperatorThread, kubelet: Kubelet, kube: KubeClient, first: LiveRun, second: LiveRun
) -> None:
    await both_want_the_last_dollars(kube, first, second)
    await kubelet.work(Stage.PREPARE, run="first")
    await kubelet.hold(await kubelet.start(Stage.TRAIN, run="first"))
    await first.delete()
    await second.until_condition(ConditionType.ACCEPTED, seconds=60.0)

    async def booked() -> FinetuneBudget | None:
        found = await stored(kube, first.namespace)
        return found if [each.name for each in found.status.reservations] == ["second"] else None

    budget = await eventually(booked, what="the first run's record to be closed")
    gone = next(each for each in await first.events_until("Deleted") if each.reason == "Deleted")
    assert budget.status.closed_micro_usd >= 2 * 2 * MICRO_USD_PER_GPU_SECOND
    assert f"{usd_display(budget.status.closed_micro_usd)} in all" in gone.note
    assert budget.status.closed_micro_usd < 5_000_000, "booked as it was, not as it could have been"


async def test_team_that_waits_costs_no_write(
    operator: OperatorThread, kubelet: Kubelet, kube: KubeClient, first: LiveRun, second: LiveRun
) -> None:
    await both_want_the_last_dollars(kube, first, second)
    await kubelet.start(Stage.PREPARE, run="first")
    await first.until_condition(ConditionType.RUNNING)
    await idle(operator, second)  # ... and the budget knows it
    before = await version(kube, first.namespace)
    await idle(operator, second)
    assert await version(kube, first.namespace) == before


async def version(kube: KubeClient, namespace: str) -> str:
    found: Mapping[str, Any] = await kube.get(kind=BUDGET_KIND, namespace=namespace, name="team")
    return str(found["metadata"]["resourceVersion"])


def columns(server: ApiServer, namespace: str) -> list[str]:
    """Return what a user sees of the budget, but its age."""
    shown = server.kubectl("get", "finetunebudgets", "-n", namespace).stdout.splitlines()
    assert re.split(r"\s{2,}", shown[0].strip()) == ["NAME", "LIMIT", "RESERVED", "SPENT", "FREE", "WINDOW", "AGE"]
    *values, age = re.split(r"\s{2,}", shown[1].strip())
    assert re.fullmatch(r"\d+[smh].*", age)
    return values
