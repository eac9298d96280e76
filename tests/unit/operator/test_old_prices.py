"""Prices that grow too old while a run goes on, or change when it is over."""

from __future__ import annotations

from typing import Any

from rft_operator.domain.budget import STOP_SLACK_SECONDS
from rft_operator.domain.prices import PriceCatalogue
from rft_trainer.contract import Stage
from support.stage import World

GRACE_SECONDS = 60
"""Of the builders' spec."""
PENDING_SECONDS = 600
"""After which the pods are bound at the latest."""


async def test_limit_holds_without_the_operator_when_a_price_grows_too_old_before_another_rises() -> None:
    """One of the two machines rises to $60; the other's price is too old by then, so that the pool has none."""
    budget = {"usdPerGpuHour": None, "pricePolicy": "floating"}
    world = World(budget=budget, evaluation=None, timeouts={"pendingSeconds": PENDING_SECONDS})
    world.catalogue, problems = PriceCatalogue.parse(
        """version: 1
maxAgeDays: 30
prices:
- {name: ageing, match: {instanceType: rft-local}, usdPerHour: "1", asOf: 2025-12-02T00:30:00Z}
- {name: now, match: {instanceType: rft-local, zone: b}, usdPerHour: "1", asOf: 2026-01-01}
- {name: dear, match: {instanceType: rft-local, zone: b}, usdPerHour: "60", asOf: 2026-01-01,
   effectiveFrom: 2026-01-01T01:00:00Z}
"""
    )
    assert not problems

    def move(obj: dict[str, Any]) -> None:
        obj["metadata"]["labels"]["topology.kubernetes.io/zone"] = "b"

    world.kube.patch("Node", "", "node-2", move)
    await world.to_prepared()
    deadline = world.job(Stage.TRAIN)["spec"]["template"]["spec"]["activeDeadlineSeconds"]
    longest = PENDING_SECONDS + deadline + GRACE_SECONDS + STOP_SLACK_SECONDS  # the operator is gone from here on
    at_first = 3_600 - PENDING_SECONDS
    assert longest > 3_600, "the rise is not reached"
    assert 2 * at_first + (longest - 3_600) * (1 + 60) <= 10 * 3_600


async def test_complete_run_is_written_no_more_when_prices_change() -> None:
    rows = "version: 1\nprices: [{{name: {name}, match: {{instanceType: rft-local}}, usdPerHour: {dollars}}}]"
    world = World(budget={"usdPerGpuHour": None})
    world.catalogue, _ = PriceCatalogue.parse(rows.format(name="then", dollars=3))
    await world.to_training()
    await world.to_evaluation()
    world.complete(Stage.EVALUATE)
    await world.after(1)
    await world.after(60)
    assert world.condition("Complete").status == "True"
    before = world.status
    world.catalogue, _ = PriceCatalogue.parse(rows.format(name="now", dollars=9))
    assert await world.settle() == 0
    assert (world.status.cost.price_source, world.status) == ("then", before)
