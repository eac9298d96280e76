"""What the operator's core got wrong once with money: each told as a plain story."""

from __future__ import annotations

from rft_operator.domain.money import micro_of_text
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import epoch
from rft_trainer.contract import Stage
from support.builders import NAMESPACE
from support.run_steps import silence_node, to_unbound_gang
from support.stage import World

SMALL = {"limitUSD": "1.50", "usdPerGpuHour": "3.60"}
"""Of $1.50 the evaluation keeps $0.66: training may spend $0.84, its stop costs $0.18."""


async def test_waiting_gang_is_stopped_when_the_limit_no_longer_pays_for_its_stop() -> None:
    world = World()
    await to_unbound_gang(world)
    world.edit(budget={"limitUSD": "0.10"})
    await world.settle()
    assert world.status.attempts[-1].stop_reason == "BudgetExhausted"
    assert world.job_gone(Stage.TRAIN)


async def test_stop_line_counts_a_lost_pod_beside_a_gang_that_is_not_bound_yet() -> None:
    world = World(nodes=3, budget={"limitUSD": 2, "usdPerGpuHour": "3.60"})
    await world.to_training()
    silence_node(world, "node-2")
    await world.after(31)
    world.set_status(world.pods(Stage.TRAIN)[0], phase="Failed", exit_code=75)
    await world.settle()
    # One GPU burns on the lost node, two more are asked for: 3 x (60 + 30) s are kept back for the stop.
    world.create_pods(Stage.TRAIN, 2)
    first = world.pods(Stage.TRAIN, 2)[0]
    world.bind(first, "node-1")
    await world.settle()
    spent = world.status.cost.spent_micro_usd
    left = 2_000_000 - 660_000 - spent - 3 * 90 * 1_000
    assert epoch(world.status.cost.stop_time) == world.now + left // 3_000


async def test_pod_is_charged_at_the_price_of_its_bind_when_the_price_changed_before_it_was_seen() -> None:
    world = World(budget={"usdPerGpuHour": None})
    text = """version: 1
prices:
- {name: old, match: {instanceType: rft-local}, usdPerHour: 1}
- {name: new, match: {instanceType: rft-local}, usdPerHour: 2, effectiveFrom: "2026-01-01T00:10:00Z"}
"""
    world.catalogue = PriceCatalogue.parse(text)[0]
    await to_unbound_gang(world)
    for index, pod in enumerate(world.pods(Stage.TRAIN)):
        world.bind(pod, f"node-{index + 1}")
    world.now += 900
    await world.settle()
    assert {entry.price_source for entry in world.status.ledger.open} == {"old"}


async def test_failed_run_stays_failed_when_the_price_falls_until_its_limit_is_raised() -> None:
    world = World(budget={"usdPerGpuHour": None, "limitUSD": "1.50"}, evaluation=None)
    dear = "version: 1\nprices: [{name: a, match: {instanceType: rft-local}, usdPerHour: %s}]"
    world.catalogue = PriceCatalogue.parse(dear % "9")[0]
    await world.to_training()
    await world.after(150)
    world.drain(Stage.TRAIN)
    await world.settle()
    assert world.condition("Failed").reason == "BudgetExhausted"
    world.catalogue = PriceCatalogue.parse(dear % "1")[0]
    await world.after(60)
    assert world.condition("Failed").status == "True"
    for edit in (
        {"ttlSecondsAfterFinished": 86_400},
        {"budget": {"limitUSD": "1.45"}},
        {"budget": {"limitUSD": "1.5"}},
    ):
        world.edit(**edit)
        await world.settle()
        assert world.condition("Failed").status == "True", f"{edit} is no more money than it had"
    world.edit(budget={"limitUSD": "1.60"})
    await world.reconciler.reconcile(world.key)
    assert world.condition("Failed").status == "False"
    assert world.status.stage == "Pending", "the word for its stage goes with the condition, in one write"
    cost = world.status.cost
    assert micro_of_text(cost.remaining_usd) == 1_600_000 - cost.spent_micro_usd, "so does the money"
    await world.settle()
    assert world.condition("Failed").status == "False"
    assert world.status.cost.ended_at_limit_usd is None


async def test_run_that_is_not_let_in_is_told_that_a_shorter_evaluation_would_do() -> None:
    world = World(budget={**SMALL, "limitUSD": "0.70"})
    await world.settle()
    accepted = world.condition("Accepted")
    assert accepted.reason == "BudgetInsufficient"
    assert accepted.message.endswith(
        "Raise budget.limitUSD. Until it has started evaluation.maxSeconds may be lowered, too."
    )


async def test_trained_model_is_evaluated_when_the_limit_is_raised_after_its_reserve_was_gone() -> None:
    world = World(budget={**SMALL, "evaluationReserveUSD": "0.01"})
    await world.to_training()
    await world.after(655)
    await world.after(60)
    world.complete(Stage.TRAIN)
    await world.settle()
    assert world.condition("Failed").reason == "EvaluationReserveExhausted"
    assert world.condition("Failed").message.endswith("Raise budget.limitUSD."), "maxSeconds is fixed by now"
    world.edit(budget={"limitUSD": 3})
    await world.settle()
    assert (world.status.attempts[-1].stage, world.condition("Failed").status) == ("evaluate", "False")
    assert world.condition("WithinBudget").status == "True"


async def test_model_that_is_trained_further_is_evaluated_again_before_the_run_completes() -> None:
    world = World(budget=SMALL)
    await world.to_training()
    await world.after(400)
    world.drain(Stage.TRAIN, step=20)
    await world.settle()
    world.run_pods(Stage.EVALUATE)
    await world.settle()
    world.edit(budget={"limitUSD": 10})
    await world.after(5)
    world.complete(Stage.EVALUATE)
    await world.settle()
    assert world.condition("Evaluated").reason == "TrainingGoesOn"
    world.run_pods(Stage.TRAIN, 2)
    await world.after(5)
    world.complete(Stage.TRAIN, 2)
    await world.settle()
    assert world.condition("Complete").status != "True"
    world.run_pods(Stage.EVALUATE, 2)
    await world.after(5)
    world.complete(Stage.EVALUATE, 2)
    await world.settle()
    assert world.condition("Complete").status == "True"


async def test_evaluation_that_takes_too_long_uses_up_restarts_when_money_is_left() -> None:
    world = World(retries={"maxRestarts": 0})
    await world.to_training()
    world.complete(Stage.TRAIN)
    await world.settle()
    world.run_pods(Stage.EVALUATE)
    await world.after(600)
    pod = world.pods(Stage.EVALUATE)[0]
    world.kube.patch(
        "Pod", NAMESPACE, pod["metadata"]["name"], lambda obj: obj["status"].update(reason="DeadlineExceeded")
    )
    world.finish_pods(Stage.EVALUATE, exit_code=137)
    await world.settle()
    assert world.condition("Failed").reason == "BackoffLimitExceeded"


async def test_sum_says_from_when_it_is_when_a_new_gang_begins_to_cost() -> None:
    world = World()
    await world.to_training()
    await world.after(10)
    world.edit(suspend=True)
    await world.settle()
    world.drain(Stage.TRAIN)
    await world.after(3_600)
    world.edit(suspend=False)
    await world.settle()
    world.run_pods(Stage.TRAIN, 2)
    await world.settle()
    assert epoch(world.status.usage.metered_until) == world.now
    world.now += 30
    assert await world.settle() == 0


async def test_run_that_is_not_let_in_is_told_that_a_smaller_reserve_would_do_where_it_names_one() -> None:
    world = World(budget={**SMALL, "limitUSD": "0.70", "evaluationReserveUSD": "0.60"})
    await world.settle()
    message = world.condition("Accepted").message
    assert message.endswith("Raise budget.limitUSD. budget.evaluationReserveUSD may be lowered, too.")
    world.edit(budget={"evaluationReserveUSD": "0.13"})
    await world.settle()
    assert world.condition("Accepted").status == "True"


async def test_run_whose_money_lasts_longer_than_the_calendar_is_tended_as_any_other() -> None:
    world = World(budget={"limitUSD": 999_999_999, "usdPerGpuHour": "0.000001"}, evaluation=None)
    await world.to_training()
    await world.after(100)
    assert not world.status.cost.stop_time
    assert world.status.usage.gpu_seconds == 2 * 101
    world.edit(budget={"limitUSD": "0.0001"})
    await world.settle()
    assert world.status.cost.stop_time
    world.complete(Stage.TRAIN)
    await world.settle()
    assert world.status.stage == "Complete"


async def test_free_pool_trains_although_all_of_the_limit_is_kept_for_the_evaluation() -> None:
    world = World(budget={"limitUSD": 5, "usdPerGpuHour": None, "evaluationReserveUSD": 5})
    world.catalogue, problems = PriceCatalogue.parse(
        "version: 1\nprices: [{name: ours, match: {instanceType: rft-local}, usdPerHour: 0, free: true}]"
    )
    assert not problems
    await world.to_prepared()
    assert world.job(Stage.TRAIN)["spec"]["template"]["spec"]["activeDeadlineSeconds"] > 10**9
    world.run_pods(Stage.TRAIN)
    await world.after(100)
    assert [each.stop_reason for each in world.status.attempts] == [None, None]


async def test_gang_is_not_stopped_before_it_is_bound_for_a_rise_that_its_locked_price_escapes() -> None:
    world = World(
        evaluation=None,
        budget={"limitUSD": 5, "usdPerGpuHour": None, "pricePolicy": "locked"},
        checkpoint={"graceSeconds": 600},
        timeouts={"pendingSeconds": 60},
    )
    world.catalogue, problems = PriceCatalogue.parse(
        "version: 1\nprices:\n- {name: now, match: {instanceType: rft-local}, usdPerHour: 1}\n"
        "- {name: dear, match: {instanceType: rft-local}, usdPerHour: 60, effectiveFrom: 2026-01-01T00:02:00Z}\n"
    )
    assert not problems
    await world.to_prepared()
    await world.after(1)
    assert [(each.number, each.stop_reason) for each in world.status.attempts if each.stage == "train"] == [(1, None)]
    world.run_pods(Stage.TRAIN)
    await world.after(300)
    assert world.status.attempts[-1].stop_reason is None
    assert world.status.cost.rate_usd_per_hour == "2.000000"
