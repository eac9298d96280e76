"""Runs under team budgets: who starts, who waits and why, what a raise needs, when a deleted run may go."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.api import BUDGET_KIND, KIND
from rft_operator.domain.facts import FINALIZER
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import rfc3339
from rft_operator.errors import Unavailable
from rft_trainer.contract import Stage
from support.builders import NAMESPACE
from support.team import DOLLAR, GPU_SECOND, TeamWorld, team_budget

DAY = 86_400
PLAIN: dict[str, Any] = {"evaluation": None, "budget": {"limitUSD": 10}}


def accepted(world: TeamWorld, name: str) -> tuple[str, str]:
    found = world.at(name).condition("Accepted")
    return found.status.value, found.reason


def within(world: TeamWorld, name: str) -> tuple[str, str]:
    found = world.at(name).condition("WithinBudget")
    return found.status.value, found.reason


def priced(usd: str) -> PriceCatalogue:
    row = f"{{name: local, match: {{instanceType: rft-local}}, basis: gpu, usdPerHour: '{usd}', source: x}}"
    found, problems = PriceCatalogue.parse(f"version: 1\ncurrency: USD\nprices: [{row}]\n")
    assert not problems
    return found


async def finish(world: TeamWorld, name: str) -> None:
    await world.at(name).to_training()
    world.at(name).complete(Stage.TRAIN)
    await world.after(1)


async def delete(world: TeamWorld, name: str) -> None:
    world.kube.remove("ReasoningFinetune", NAMESPACE, name)
    await world.settle()


async def test_only_one_of_two_runs_starts_when_both_want_the_last_dollars() -> None:
    world = TeamWorld(team_budget(limitUSD=15), **PLAIN)
    await world.settle()
    assert accepted(world, "a") == ("True", "Accepted")
    assert accepted(world, "b") == ("False", "TeamBudgetExhausted")
    assert world.at("b").status.start_time is None
    message = world.condition("Accepted").message
    assert message.startswith(
        "Team budget 'team': limit $15.00, reserved for runs $10.00, spent by runs that ended $0.00, free $5.00; "
        "this run wants $10.00."
    )
    assert "lower spec.budget.limitUSD" in message
    assert world.reasons().count("TeamBudgetExhausted") == 1
    assert ("Warning", "TeamBudgetExhausted", message) in world.kube.events


async def test_waiting_run_starts_by_itself_when_the_other_one_is_finished() -> None:
    world = TeamWorld(team_budget(limitUSD=15), **PLAIN)
    await finish(world, "a")
    assert world.at("a").status.stage == "Complete"
    assert accepted(world, "b") == ("True", "Accepted")
    assert FINALIZER not in world.at("a").run.metadata.finalizers


async def test_waiting_run_starts_by_itself_when_the_other_one_is_deleted() -> None:
    world = TeamWorld(team_budget(limitUSD=15), **PLAIN)
    await world.settle()
    await delete(world, "a")
    assert accepted(world, "b") == ("True", "Accepted")
    assert world.budget().status.closed_micro_usd == 0


async def test_waiting_run_starts_by_itself_when_the_team_limit_is_raised() -> None:
    world = TeamWorld(team_budget(limitUSD=15), **PLAIN)
    await world.settle()
    world.kube.patch(BUDGET_KIND, NAMESPACE, "team", lambda obj: obj["spec"].update(limitUSD=20))
    await world.settle()
    assert accepted(world, "b") == ("True", "Accepted")


async def test_run_waits_without_an_event_while_its_reservation_is_not_on_record() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN)
    await world.reconciler.reconcile(world.key)
    assert accepted(world, "a") == ("False", "WaitingForTeamBudget")
    assert world.reasons() == []
    await world.settle()
    assert accepted(world, "a") == ("True", "Accepted")


async def test_run_that_cannot_start_anyway_reserves_nothing() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **{**PLAIN, "budget": {"limitUSD": "0.01"}})
    await world.settle()
    assert accepted(world, "a") == ("False", "BudgetInsufficient")
    assert world.promised() == 0


async def test_run_that_is_refused_for_another_reason_gives_its_reservation_back_and_asks_anew() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf", "namespace": NAMESPACE}}
    model = {"uri": "hf://org/m", "secretRef": {"name": "hf"}}
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN, model=model)
    world.kube.put(secret)
    await world.reconciler.reconcile(world.key)
    await world.keeper.settle(NAMESPACE)
    assert world.promised() == 10 * DOLLAR
    world.kube.remove("Secret", NAMESPACE, "hf")
    await world.settle()
    assert accepted(world, "a") == ("False", "SecretNotFound")
    assert world.promised() == 0
    world.apply("b", **PLAIN)
    world.names = ("a", "b")
    await world.settle()
    assert accepted(world, "b") == ("True", "Accepted")
    world.kube.put(secret)
    await world.settle()
    assert accepted(world, "a") == ("False", "TeamBudgetExhausted")


async def test_run_that_was_refused_for_a_moment_asks_on_record_before_it_is_let_in() -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf", "namespace": NAMESPACE}}
    world = TeamWorld(
        team_budget(limitUSD=15), names=("a",), **PLAIN, model={"uri": "hf://org/m", "secretRef": {"name": "hf"}}
    )
    world.kube.put(secret)
    await world.reconciler.reconcile(world.key)
    await world.keeper.settle(NAMESPACE)
    world.kube.remove("Secret", NAMESPACE, "hf")
    await world.reconciler.reconcile(world.key)
    world.kube.put(secret)
    assert await world.reconciler.reconcile(world.key) == 0
    assert accepted(world, "a") == ("False", "WaitingForTeamBudget")
    await world.reconciler.reconcile(world.key)
    assert accepted(world, "a") == ("True", "Accepted")
    await world.settle()
    assert world.promised() == 10 * DOLLAR


async def test_raise_that_waits_for_the_team_hides_neither_that_the_price_is_lost_nor_that_it_is_known_again() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), evaluation=None, budget={"limitUSD": 10})
    known, lost = priced("3.60"), PriceCatalogue()
    world.kube.patch(KIND, NAMESPACE, "a", lambda obj: obj["spec"]["budget"].pop("usdPerGpuHour"))
    world.catalogue = known
    await world.settle()
    world.run_pods(Stage.PREPARE)
    await world.after(5)
    world.complete(Stage.PREPARE)
    while world.status.attempts[-1].stage != "train":  # it is on record before its Job is made
        await world.reconciler.reconcile(world.key)
        await world.keeper.settle(NAMESPACE)
    world.kube.patch(KIND, NAMESPACE, "a", lambda obj: obj["spec"]["budget"].update(limitUSD=50))
    world.catalogue = lost
    await world.settle()
    assert world.job_gone(Stage.TRAIN)
    assert within(world, "a") == ("Unknown", "PriceUnknown")
    world.catalogue = known
    await world.after(30)
    assert not world.job_gone(Stage.TRAIN)
    assert within(world, "a") == ("True", "TeamBudgetExhausted")


async def test_run_outside_the_selector_starts_without_a_reservation() -> None:
    world = TeamWorld(team_budget(limitUSD=0, selector={"matchLabels": {"team": "x"}}), names=("a",), **PLAIN)
    await world.settle()
    assert accepted(world, "a") == ("True", "Accepted")


async def test_nothing_starts_beside_a_budget_that_cannot_be_read() -> None:
    world = TeamWorld(names=("a",), **PLAIN)
    world.kube.put({**team_budget(), "spec": {"limitUSD": "lots"}})
    await world.settle()
    assert accepted(world, "a") == ("False", "WaitingForTeamBudget")
    assert "'team'" not in world.condition("Accepted").message
    assert world.condition("Accepted").message.startswith("Team budget team cannot be read")
    for _ in range(3):
        await world.keeper.settle(NAMESPACE)
    assert world.reasons().count("Unreadable") == 1


async def test_raised_limit_waits_and_the_old_one_holds_while_the_budget_cannot_be_read() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN)
    await world.to_training()
    world.edit(budget={"limitUSD": 50})
    await world.settle()
    make_readable(world, False)
    await world.after(60)
    assert within(world, "a") == ("True", "WaitingForTeamBudget")
    cost = world.status.cost
    assert cost.spent_micro_usd + round(float(cost.remaining_usd) * DOLLAR) == 10 * DOLLAR
    make_readable(world, True)
    await world.settle()
    assert within(world, "a") == ("True", "TeamBudgetExhausted")


async def test_first_gpu_pod_waits_for_a_budget_that_cannot_be_read_and_so_not_told_of_it() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN)
    await world.settle()
    make_readable(world, False)
    world.run_pods(Stage.PREPARE)
    world.complete(Stage.PREPARE)
    await world.settle()
    assert [each.stage for each in world.status.attempts] == ["prepare"]
    assert within(world, "a") == ("True", "WaitingForTeamBudget")
    assert "cannot be read" in world.condition("WithinBudget").message
    assert "takes no GPU" in world.condition("WithinBudget").message
    make_readable(world, True)
    await world.settle()
    assert world.budget().status.reservations[0].started
    assert [each.stage for each in world.status.attempts] == ["prepare", "train"]
    assert within(world, "a") == ("True", "WithinLimit")


async def test_deleted_run_waits_for_a_budget_that_cannot_be_read_so_that_its_bill_is_booked_as_it_is() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN)
    await world.to_training()
    make_readable(world, False)
    await delete(world, "a")
    for pod in world.pods(Stage.TRAIN):
        world.set_status(pod, phase="Failed", exit_code=143)
    await world.settle()
    assert within(world, "a") == ("True", "BillClosed")
    assert "team cannot be read by this operator" in world.condition("WithinBudget").message
    spent = world.status.cost.spent_micro_usd
    make_readable(world, True)
    await world.settle()
    assert world.kube.find("ReasoningFinetune") == []
    assert world.budget().status.closed_micro_usd == spent
    assert "RunVanished" not in world.reasons()


def make_readable(world: TeamWorld, readable: bool) -> None:
    def write(obj: dict[str, Any]) -> None:
        obj["spec"] = {"limitUSD": 15} if readable else {"limitUSD": 15, "novel": True}

    world.kube.patch(BUDGET_KIND, NAMESPACE, "team", write)


async def test_gpu_pods_start_only_when_the_budget_knows_that_they_may_exist() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN)
    await world.settle()
    world.run_pods(Stage.PREPARE)
    world.complete(Stage.PREPARE)
    for _ in range(6):
        await world.reconciler.reconcile(world.key)
    assert FINALIZER in world.run.metadata.finalizers
    assert [each.stage for each in world.status.attempts] == ["prepare"]
    await world.settle()
    assert world.budget().status.reservations[0].started
    assert [each.stage for each in world.status.attempts] == ["prepare", "train"]


async def test_raised_limit_waits_for_its_reservation_and_the_old_one_holds() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN)
    await world.to_training()
    world.edit(budget={"limitUSD": 20})
    await world.settle()
    assert within(world, "a") == ("True", "TeamBudgetExhausted")
    assert world.condition("WithinBudget").message.endswith("Until then the run may spend $10.00.")
    assert world.status.cost.remaining_usd.startswith("9.9")
    world.kube.patch(BUDGET_KIND, NAMESPACE, "team", lambda obj: obj["spec"].update(limitUSD=20))
    await world.settle()
    assert within(world, "a") == ("True", "WithinLimit")
    assert world.budget().status.reservations[0].reserved_micro_usd == 20 * DOLLAR


async def test_run_ends_at_its_reservation_though_its_own_limit_was_raised_and_goes_on_when_the_team_can_pay() -> None:
    world = TeamWorld(team_budget(limitUSD=10), names=("a",), **PLAIN)
    await world.to_training()
    world.report(step=9, checkpoint=9)
    world.edit(budget={"limitUSD": 15})
    await world.after(4_960)
    assert world.status.attempts[-1].stop_reason == "BudgetExhausted"
    world.drain(Stage.TRAIN)
    await world.after(1)
    assert world.condition("Failed").reason == "BudgetExhausted"
    assert within(world, "a") == ("False", "TeamBudgetExhausted")
    world.kube.patch(BUDGET_KIND, NAMESPACE, "team", lambda obj: obj["spec"].update(limitUSD=20))
    await world.settle()
    assert world.condition("Failed").status.value == "False"
    assert [(each.stage, each.number) for each in world.status.attempts][-1] == ("train", 2)


async def test_failed_run_goes_on_only_with_its_reservation_when_its_limit_is_raised() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **{**PLAIN, "budget": {"limitUSD": 2}})
    await world.to_training()
    world.report(step=9, checkpoint=9)
    await world.after(960)
    world.drain(Stage.TRAIN)
    await world.after(1)
    assert world.condition("Failed").reason == "BudgetExhausted"
    spent = world.status.cost.spent_micro_usd
    assert world.promised() == spent
    world.edit(budget={"limitUSD": 30})
    await world.settle()
    assert within(world, "a") == ("False", "TeamBudgetExhausted")
    assert world.condition("Failed").status.value == "True"
    assert world.promised() == spent
    assert world.reasons().count("TeamBudgetExhausted") == 1
    world.edit(budget={"limitUSD": 15})
    await world.settle()
    assert world.condition("Failed").status.value == "False"
    assert world.promised() == 15 * DOLLAR


async def test_failed_run_is_not_thrown_away_by_its_time_to_live_while_it_waits_for_its_team_to_go_on() -> None:
    spec = {**PLAIN, "budget": {"limitUSD": 2}, "ttlSecondsAfterFinished": 600}
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **spec)
    await world.to_training()
    world.report(step=9, checkpoint=9)
    await world.after(960)
    world.drain(Stage.TRAIN)
    await world.after(1)
    world.edit(budget={"limitUSD": 30})
    await world.settle()
    await world.after(700)
    assert within(world, "a") == ("False", "TeamBudgetExhausted")
    world.edit(budget={"limitUSD": 2})
    await world.settle()
    assert not world.kube.find("ReasoningFinetune")


async def test_failed_run_asks_no_more_when_its_limit_is_lowered_again() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **{**PLAIN, "budget": {"limitUSD": 2}})
    await world.to_training()
    await world.after(960)
    world.drain(Stage.TRAIN)
    await world.after(1)
    world.edit(budget={"limitUSD": 30})
    await world.settle()
    world.edit(budget={"limitUSD": 2})
    await world.settle()
    assert within(world, "a") == ("False", "Exhausted")
    assert await world.settle() == 0


async def test_deleted_run_goes_only_when_its_bill_is_booked() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN)
    await world.to_training()
    world.now += 100
    world.kube.remove("ReasoningFinetune", NAMESPACE, "a")
    for pod in world.pods(Stage.TRAIN):
        world.set_status(pod, phase="Failed", exit_code=143)
    for _ in range(8):
        await world.reconciler.reconcile(world.key)
    assert FINALIZER in world.run.metadata.finalizers
    assert within(world, "a") == ("True", "BillClosed")
    await world.settle()
    assert world.kube.find("ReasoningFinetune") == []
    await world.settle()
    status = world.budget().status
    assert (status.closed_micro_usd, status.reservations) == (2 * 101 * GPU_SECOND, [])
    assert "RunVanished" not in world.reasons()


async def test_run_that_was_robbed_of_its_finalizer_is_booked_in_full() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN)
    await world.to_training()
    world.kube.patch("ReasoningFinetune", NAMESPACE, "a", lambda obj: obj["metadata"].update(finalizers=[]))
    await delete(world, "a")
    assert world.budget().status.closed_micro_usd == 10 * DOLLAR
    assert world.reasons().count("RunVanished") == 1


async def test_what_was_spent_before_midnight_is_known_to_the_second_when_the_run_is_looked_at_first() -> None:
    """Once an entry is folded its times are lost: the run waits with that until the budget has seen its window."""
    world = TeamWorld(team_budget(limitUSD=100, window="day"), names=("a",), **{**PLAIN, "budget": {"limitUSD": 90}})
    world.now += DAY - 100
    await world.to_training()
    began = world.now - 1
    midnight = world.now + DAY - world.now % DAY
    world.now = midnight + 50
    for pod in world.pods(Stage.TRAIN):
        world.set_status(pod, phase="Failed", exit_code=1)
    for _ in range(8):
        await world.reconciler.reconcile(world.key)
    await world.settle()
    (record,) = world.budget().status.reservations
    assert world.budget().status.window_start == rfc3339(midnight)
    assert record.spent_before_micro_usd == 2 * (midnight - began) * GPU_SECOND
    assert record.spent_micro_usd == 2 * 50 * GPU_SECOND
    await world.after(3_600)
    assert not world.status.ledger.uncounted


async def test_idle_team_causes_no_write_when_time_passes() -> None:
    world = TeamWorld(team_budget(limitUSD=15), **PLAIN)
    await world.settle()
    world.now += 3_000
    assert await world.settle() == 0


async def test_sums_of_spending_runs_are_written_once_a_minute() -> None:
    world = TeamWorld(team_budget(limitUSD=100), **PLAIN)
    await world.at("a").to_training()
    version = world.budget().metadata.resource_version
    for _ in range(5):
        await world.after(11)
    assert world.budget().metadata.resource_version == version
    await world.after(11)
    assert world.budget().metadata.resource_version != version
    assert world.budget().status.display.spent == world.at("a").status.cost.display


async def test_budgets_are_all_written_in_the_end_when_a_write_between_them_fails() -> None:
    world = TeamWorld(team_budget("x", limitUSD=15), team_budget("y", limitUSD=15), names=("a",), **PLAIN)
    await world.settle()
    world.apply("b", **{**PLAIN, "budget": {"limitUSD": 4}})
    world.names = ("a", "b")
    await world.reconciler.reconcile(world.at("b").key)
    world.kube.faults = [None, Unavailable("down", status=500)]
    with pytest.raises(Unavailable):
        await world.keeper.settle(NAMESPACE)
    world.restart_operator()
    await world.settle()
    assert accepted(world, "b") == ("True", "Accepted")
    assert world.promised("x") == world.promised("y") == 14 * DOLLAR


async def test_run_of_another_controller_is_no_part_of_the_team() -> None:
    world = TeamWorld(team_budget(limitUSD=15), names=("a",), **PLAIN, managedBy="example.com/other")
    await world.settle()
    assert world.promised() == 0


async def test_stop_names_what_the_run_may_spend_while_its_team_has_no_more() -> None:
    world = TeamWorld(team_budget(limitUSD=10), names=("a",), **PLAIN)
    await world.at("a").to_training()
    world.edit(budget={"limitUSD": 50})
    await world.after(60)
    await world.after(5_000)
    (stopped,) = [each for each in world.status.attempts if each.stop_reason == "BudgetExhausted"]
    assert "the limit is $10.00," in stopped.message


async def test_forecast_above_what_the_team_has_says_so_and_asks_for_no_higher_limit() -> None:
    world = TeamWorld(team_budget(limitUSD=10), names=("a",), **PLAIN)
    await world.at("a").to_training()
    world.edit(budget={"limitUSD": 50})
    world.report(step=5, eta_seconds=9_000)
    await world.after(60)
    (words,) = [words for _, reason, words in world.kube.events if reason == "ForecastOverLimit"]
    assert "the limit is $10.00: " in words
    assert words.endswith("Its team budgets have reserved $10.00 of its limit of $50.00; it goes on with more.")


async def test_end_for_want_of_money_names_the_team_when_the_runs_own_limit_is_not_what_is_short() -> None:
    world = TeamWorld(team_budget(limitUSD=10), names=("a",), **PLAIN)
    await world.at("a").to_training()
    world.edit(budget={"limitUSD": 50})
    await world.after(4_960)
    world.drain(Stage.TRAIN)
    await world.after(1)
    failed = world.condition("Failed")
    assert failed.reason == "BudgetExhausted"
    assert "limit $10.00" in failed.message
    assert "Raise budget.limitUSD" not in failed.message
    assert failed.message.endswith(
        "Its team budgets have reserved $10.00 of its limit of $50.00; it goes on with more."
    )
