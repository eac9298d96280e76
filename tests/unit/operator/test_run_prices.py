"""Prices while a run lives: they move, they are announced, they are missing; the limit holds on all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rft_operator.domain.budget import STOP_SLACK_SECONDS
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_trainer.contract import Stage
from support.stage import START, World
from support.team import TeamWorld, team_budget

CATALOGUE = """version: 1
prices:
- {name: first, match: {instanceType: rft-local}, usdPerHour: "3.60"}
- {name: second, match: {instanceType: rft-local}, usdPerHour: "%s", effectiveFrom: "%s"}
"""
TWINS = (("dear", 9), ("cheap", 1))
GRACE_SECONDS = 60
"""Of the builders' spec."""


def by_node(later: str, *, after: int, **budget: Any) -> World:
    """Return a world whose catalogue changes its one price some seconds after the start."""
    world = World(budget={"usdPerGpuHour": None, **budget})
    world.catalogue, problems = PriceCatalogue.parse(CATALOGUE % (later, rfc3339(START + after)))
    assert not problems
    return world


def deadlines(world: World) -> set[int]:
    return {pod["spec"]["activeDeadlineSeconds"] for pod in world.pods(Stage.TRAIN)}


async def test_floating_price_moves_bill_and_stop_line_at_the_second_it_changes() -> None:
    world = by_node("7.20", after=107, pricePolicy="floating")
    await world.to_training()  # bound 6 seconds after the start
    announced = epoch(world.status.cost.stop_time)
    await world.after(300)
    assert world.status.usage.gpu_seconds == 2 * 301
    # 101 s at $3.60 and 200 s at $7.20 for each of two GPUs.
    assert world.status.cost.spent_micro_usd == 2 * (101 * 1_000 + 200 * 2_000)
    assert epoch(world.status.cost.stop_time) == announced, "the stop line knew the rise before it came"
    assert {entry.price_source for entry in world.status.ledger.open} == {"second"}


async def test_locked_price_stays_when_the_catalogue_changes() -> None:
    world = by_node("7.20", after=107)
    await world.to_training()
    await world.after(300)
    assert world.status.cost.spent_micro_usd == 2 * 301 * 1_000


async def test_training_is_stopped_at_once_when_an_edited_price_puts_it_past_the_stop_line() -> None:
    world = by_node("7.20", after=100_000, pricePolicy="floating")
    await world.to_training()
    first_stop = epoch(world.status.cost.stop_time)
    world.catalogue, _ = PriceCatalogue.parse(
        'version: 1\nprices: [{name: edited, match: {instanceType: rft-local}, usdPerHour: "300"}]'
    )
    await world.after(30)
    assert world.status.attempts[-1].stop_reason == "BudgetExhausted"
    assert world.now < first_stop


def flat(price: str) -> PriceCatalogue:
    catalogue, problems = PriceCatalogue.parse(
        f'version: 1\nprices: [{{name: flat, match: {{instanceType: rft-local}}, usdPerHour: "{price}"}}]'
    )
    assert not problems
    return catalogue


async def test_limit_holds_when_a_rise_is_dated_back_to_the_start() -> None:
    world = World(
        budget={"usdPerGpuHour": None, "pricePolicy": "floating", "limitUSD": 20}, timeouts={"startupSeconds": 86_400}
    )
    world.catalogue = flat("3.60")
    await world.to_training()
    await world.after(4_000)
    before = world.status.cost.spent_micro_usd
    world.catalogue, _ = PriceCatalogue.parse(CATALOGUE % ("72", rfc3339(START + 10)))
    await world.after(1)
    assert world.status.cost.spent_micro_usd == before + 2 * 1_000
    assert world.status.attempts[-1].stop_reason == "BudgetExhausted"
    world.now += GRACE_SECONDS
    world.drain(Stage.TRAIN)
    await world.after(5)
    assert float(world.status.cost.overshoot_usd) == 0


async def test_limit_holds_when_the_price_rises_twentyfold_seconds_before_the_stop_line() -> None:
    world = World(
        budget={"usdPerGpuHour": None, "pricePolicy": "floating", "limitUSD": 10},
        evaluation=None,
        timeouts={"startupSeconds": 86_400},
    )
    world.catalogue = flat("3.60")
    await world.to_training()
    await world.after(epoch(world.status.cost.stop_time) - world.now - 10)
    assert [attempt.stop_reason for attempt in world.status.attempts] == [None, None]
    world.catalogue = flat("72")
    await world.after(1)
    assert world.status.attempts[-1].stop_reason == "BudgetExhausted"
    world.now += GRACE_SECONDS + STOP_SLACK_SECONDS - 1
    world.drain(Stage.TRAIN)
    await world.after(5)
    assert world.status.usage.gpu_seconds > 0
    assert world.status.ledger.open == []
    assert float(world.status.cost.overshoot_usd) == 0
    assert float(world.status.cost.spent_usd) <= 10


async def test_floating_run_goes_on_at_the_new_price_after_its_notice_when_the_budget_is_enough() -> None:
    world = World(budget={"usdPerGpuHour": None, "pricePolicy": "floating", "limitUSD": 500}, evaluation=None)
    world.catalogue = flat("3.60")
    await world.to_training()  # bound 6 seconds after the start
    world.catalogue = flat("7.20")
    await world.after(10)
    bound, seen = START + 6, world.now
    (step,) = {entry.announced[0].since for entry in world.status.ledger.open}
    assert epoch(step) == seen + GRACE_SECONDS + STOP_SLACK_SECONDS
    await world.after(600)
    assert world.status.cost.spent_micro_usd == 2 * ((epoch(step) - bound) * 1_000 + (world.now - epoch(step)) * 2_000)


@pytest.mark.parametrize("gone", [True, False])
async def test_announced_rise_is_charged_when_the_operator_was_away_and_the_nodes_are_gone(gone: bool) -> None:
    world = by_node("36", after=107, pricePolicy="floating", limitUSD=900)
    world.edit(evaluation=None)
    await world.to_training()
    world.now = START + 1_107
    world.finish_pods(Stage.TRAIN, exit_code=1)
    for name in ("node-1", "node-2") if gone else ():
        world.kube.remove("Node", "", name)
    world.restart_operator()
    await world.settle()
    assert world.status.cost.spent_micro_usd == 2 * (101 * 1_000 + 1_000 * 10_000)


@pytest.mark.parametrize("team", [True, False])
async def test_announced_rise_is_charged_when_a_team_budgets_window_began_meanwhile(team: bool) -> None:
    spec = {"evaluation": None, "budget": {"limitUSD": 900, "usdPerGpuHour": None, "pricePolicy": "floating"}}
    budgets = [team_budget(limitUSD=1_000, window="day")] if team else []
    world = TeamWorld(*budgets, names=("a",), **spec)
    midnight = START + 2 * 86_400
    world.catalogue, _ = PriceCatalogue.parse(CATALOGUE % ("36", rfc3339(midnight + 100)))
    world.now = midnight - 500
    await world.to_training()
    bound = world.now - 1
    world.now = midnight + 1_100  # the operator was down since before midnight
    world.finish_pods(Stage.TRAIN, exit_code=1)
    world.now += 60
    world.restart_operator()
    await world.settle()
    assert world.status.cost.spent_micro_usd == 2 * ((midnight + 100 - bound) * 1_000 + 1_000 * 10_000)
    assert world.status.ledger.former == []


def price_at(second: int, rise: int) -> int:
    return 36_000_000 if second >= rise else 3_600_000


async def test_limit_holds_without_the_operator_when_an_announced_price_rises_tenfold() -> None:
    rise = START + 900
    world = by_node("36", after=900, pricePolicy="floating", limitUSD="30")
    await world.to_training()
    (deadline,) = deadlines(world)
    bound = START + 6
    gone = bound + deadline + GRACE_SECONDS + STOP_SLACK_SECONDS  # nobody looks any more
    spent = sum(2 * price_at(second, rise) for second in range(bound, gone)) / 3_600
    reserve = float(world.status.cost.reserve_usd) * 1_000_000
    assert reserve == pytest.approx(36_000_000 * (600 + 30 + STOP_SLACK_SECONDS) / 3_600)
    assert spent <= 30_000_000 - reserve


async def test_limit_holds_and_the_evaluation_is_paid_when_an_announced_price_rises_during_the_stop() -> None:
    world = by_node("36", after=4_000, pricePolicy="floating", limitUSD="20")
    world.edit(timeouts={"startupSeconds": 86_400})
    await world.to_training()
    for _ in range(400):
        if world.status.attempts[-1].stop_reason is not None:
            break
        await world.after(20)
    assert world.status.attempts[-1].stop_reason == "BudgetExhausted"
    world.now += GRACE_SECONDS
    world.drain(Stage.TRAIN)
    await world.after(5)
    assert [attempt.stage for attempt in world.status.attempts] == ["prepare", "train", "evaluate"]
    reserve = float(world.status.cost.reserve_usd)
    assert float(world.status.cost.spent_usd) + reserve <= 20


async def test_retry_does_not_start_on_a_pool_that_nobody_prices_any_more() -> None:
    world = by_node("7.20", after=100_000)
    await world.to_training()
    await world.after(60)

    def relabel(obj: dict[str, Any]) -> None:
        obj["metadata"]["labels"]["node.kubernetes.io/instance-type"] = "new-machine"

    for name in ("node-1", "node-2"):
        world.kube.patch("Node", "", name, relabel)
    await world.after(60)
    assert world.status.usage.gpu_seconds == 2 * 121, "what runs goes on being charged at the price on record"
    world.finish_pods(Stage.TRAIN, exit_code=1)
    for _ in range(5):
        await world.after(20)
    assert [attempt.number for attempt in world.status.attempts if attempt.stage == "train"] == [1]
    within = world.condition("WithinBudget")
    assert (within.status, within.reason) == ("Unknown", "PriceUnknown")
    assert world.status.usage.gpu_seconds == 2 * 121


async def test_dearest_capacity_of_the_pools_machines_counts_before_a_pod_is_bound() -> None:
    world = World(budget={"usdPerGpuHour": None})
    world.catalogue, problems = PriceCatalogue.parse(
        """version: 1
prices:
- {name: spot, match: {instanceType: rft-local, capacityType: spot}, usdPerHour: "1"}
- {name: on-demand, match: {instanceType: rft-local, capacityType: on-demand}, usdPerHour: "4"}
"""
    )
    assert not problems

    def spot(obj: dict[str, Any]) -> None:
        obj["metadata"]["labels"]["karpenter.sh/capacity-type"] = "spot"

    for name in ("node-1", "node-2"):
        world.kube.patch("Node", "", name, spot)
    await world.to_training()
    assert "Price $4.00 per GPU-hour (on-demand)" in world.condition("Accepted").message
    assert {entry.price_source for entry in world.status.ledger.open} == {"spot"}
    (deadline,) = deadlines(world)
    assert 2 * 4 * (deadline + GRACE_SECONDS + STOP_SLACK_SECONDS) / 3_600 <= 10


async def test_machine_whose_price_grew_too_old_is_charged_at_it_when_a_pod_is_bound_there_all_the_same() -> None:
    world = World(budget={"usdPerGpuHour": None})
    world.catalogue, problems = PriceCatalogue.parse(
        """version: 1
maxAgeDays: 90
prices:
- {name: spot, match: {instanceType: rft-local, capacityType: spot}, usdPerHour: "1", asOf: 2025-12-31}
- {name: on-demand, match: {instanceType: rft-local, capacityType: on-demand}, usdPerHour: "4", asOf: 2025-01-01}
"""
    )
    assert not problems

    def capacity(type_: str) -> Callable[[dict[str, Any]], None]:
        return lambda obj: obj["metadata"]["labels"].update({"karpenter.sh/capacity-type": type_})

    for name in ("node-1", "node-2"):
        world.kube.patch("Node", "", name, capacity("spot"))
    await world.to_prepared()
    assert "Price $4.00 per GPU-hour (on-demand)" in world.condition("Accepted").message
    world.kube.patch("Node", "", "node-2", capacity("on-demand"))
    world.run_pods(Stage.TRAIN)
    await world.after(1)
    assert {entry.node: entry.price_source for entry in world.status.ledger.open} == {
        "node-1": "spot",
        "node-2": "on-demand",
    }
    (deadline,) = deadlines(world)
    assert 2 * 4 * (deadline + GRACE_SECONDS + STOP_SLACK_SECONDS) / 3_600 <= 10


async def test_reserve_is_never_too_small_to_start_the_evaluation() -> None:
    world = World(budget={"evaluationReserveUSD": "0.01"})
    await world.settle()
    assert float(world.status.cost.reserve_usd) == pytest.approx(3.60 * (60 + 30 + STOP_SLACK_SECONDS) / 3_600)


async def test_shared_gpus_are_refused_by_name_when_only_the_catalogue_prices_them() -> None:
    world = by_node("7.20", after=10_000)

    def share(obj: dict[str, Any]) -> None:
        obj["metadata"]["labels"] |= {"nvidia.com/gpu.product": "NVIDIA-A100-SHARED", "nvidia.com/gpu.replicas": "4"}

    world.kube.patch("Node", "", "node-1", share)
    await world.settle()
    accepted = world.condition("Accepted")
    assert (accepted.status, accepted.reason) == ("False", "PriceUnknown")
    assert "node-1 offers GPUs shared by 4 pods" in accepted.message


async def test_twins_of_the_catalogue_are_named_when_they_price_an_empty_pool() -> None:
    machine = {"node.kubernetes.io/instance-type": "rft-local"}
    world = World(nodes=0, budget={"usdPerGpuHour": None}, scheduling={"nodeSelector": machine})
    rows = [f"- {{name: {name}, match: {{instanceType: rft-local}}, usdPerHour: {price}}}" for name, price in TWINS]
    world.catalogue, problems = PriceCatalogue.parse("\n".join(["version: 1", "prices:", *rows]))
    assert not problems
    await world.settle()
    accepted = world.condition("Accepted")
    assert (accepted.status, accepted.reason) == ("False", "PriceUnknown")
    assert "dear, cheap of the catalogue" in accepted.message
    assert "remove one, give it effectiveFrom" in accepted.message
