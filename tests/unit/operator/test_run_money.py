"""Money while a run lives: what is on record before it can be spent, what moves the stop line, what people are told."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.domain.budget import STOP_SLACK_SECONDS
from rft_operator.domain.facts import Report, Settings
from rft_operator.domain.money import micro_of_text
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_trainer.contract import Stage
from support.stage import START, World

CATALOGUE = """version: 1
prices:
- {name: first, match: {instanceType: rft-local}, usdPerHour: "3.60"}
- {name: second, match: {instanceType: rft-local}, usdPerHour: "%s", effectiveFrom: "%s"}
"""
GRACE_SECONDS = 60
"""Of the builders' spec."""


def silence(world: World, name: str) -> None:
    def unknown(obj: dict[str, Any]) -> None:
        obj["status"]["conditions"][0].update(status="Unknown", lastTransitionTime=rfc3339(world.now))

    world.kube.patch("Node", "", name, unknown)


def waste(world: World) -> dict[str, int]:
    return {each.reason.value: each.gpu_seconds for each in world.status.usage.waste}


def deadlines(world: World) -> set[int]:
    return {pod["spec"]["activeDeadlineSeconds"] for pod in world.pods(Stage.TRAIN)}


async def test_worst_case_is_on_record_before_the_pods_that_may_cost_it_exist() -> None:
    world = World()
    await world.settle()
    world.run_pods(Stage.PREPARE)
    await world.after(5)
    world.complete(Stage.PREPARE)
    world.now += 1
    while not any(attempt.stage == "train" for attempt in world.status.attempts):
        await world.reconciler.reconcile(world.key)
    attempt = world.status.attempts[-1]
    assert ("Job", "team", "demo-train-1") not in world.kube.objects
    # $10 less the evaluation's reserve buys two GPUs at $3.60 this long, stop bound included.
    reserve = 3.60 * (600 + 30 + STOP_SLACK_SECONDS) / 3_600
    affordable = int((10 - reserve) / (2 * 3.60) * 3_600)
    assert attempt.deadline_seconds == affordable - GRACE_SECONDS - STOP_SLACK_SECONDS
    assert float(attempt.worst_case_usd) == pytest.approx(2 * 3.60 * affordable / 3_600)
    assert (attempt.gpus, attempt.grace_seconds) == (2, GRACE_SECONDS)
    await world.settle()
    pod_spec = world.job(Stage.TRAIN)["spec"]["template"]["spec"]
    assert pod_spec["activeDeadlineSeconds"] == attempt.deadline_seconds
    assert pod_spec["terminationGracePeriodSeconds"] == attempt.grace_seconds


async def test_deadlines_of_running_pods_are_lowered_when_the_limit_is_and_stay_when_it_is_raised() -> None:
    world = World()
    await world.to_training()
    before = deadlines(world)
    world.edit(budget={"limitUSD": "6"})
    await world.settle()
    (lowered,) = deadlines(world)
    assert lowered < min(before)
    started = epoch(world.pods(Stage.TRAIN)[0]["status"]["startTime"])
    assert abs(started + lowered - epoch(world.status.cost.stop_time)) <= 1
    world.edit(budget={"limitUSD": "20"})
    await world.settle()
    assert deadlines(world) == {lowered}
    assert epoch(world.status.cost.stop_time) > started + lowered


async def test_deadline_is_not_written_again_when_time_passes() -> None:
    world = World()
    await world.to_training()
    world.edit(budget={"limitUSD": "6"})
    await world.settle()
    before = deadlines(world)
    for _ in range(50):
        world.now += 7
        await world.settle()
    assert deadlines(world) == before


async def test_next_attempt_gets_the_time_that_saving_really_takes() -> None:
    world = World()
    await world.to_training()
    world.report(step=20, checkpoint=20, saved_in_seconds="80.2")
    await world.after(10)
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await world.after(1)
    await world.after(60)
    attempt = world.status.attempts[-1]
    assert (attempt.number, attempt.grace_seconds) == (2, 121)
    assert world.job(Stage.TRAIN, 2)["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 121


async def test_absurd_duration_of_a_save_does_not_eat_the_budget() -> None:
    world = World(budget={"limitUSD": 1_000})
    await world.to_training()
    world.report(step=20, checkpoint=20, saved_in_seconds="2000000000")
    await world.after(10)
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await world.after(1)
    await world.after(60)
    assert world.status.attempts[-1].grace_seconds == 7_200


# -- what people are told -----------------------------------------------------------------------------------------


async def test_forecast_above_the_limit_is_announced_once_and_shown() -> None:
    world = World()
    await world.to_training()
    world.report(step=5, eta_seconds=5_000)
    await world.after(60)
    assert world.condition("WithinBudget").reason == "ForecastOverLimit"
    spent, rest, reserve = 2 * 61 / 1_000, 2 * (5_000 - 60) / 1_000, 0.66
    assert float(world.status.cost.forecast_usd) == pytest.approx(spent + rest + reserve)
    for step in (6, 7):
        world.report(step=step, eta_seconds=5_000)
        await world.after(60)
    assert world.reasons().count("ForecastOverLimit") == 1
    world.report(step=30, eta_seconds=100)
    await world.after(60)
    assert world.condition("WithinBudget").reason == "WithinLimit"


@pytest.mark.parametrize(("policy", "later"), [("floating", 3_600), ("locked", 1_000)])
async def test_forecast_knows_the_prices_that_are_announced(policy: str, later: int) -> None:
    """A rise from $3.60 to $12.96 in 400 s, of a stage that takes 1,000 s more; a price that is locked stays."""
    world = World(budget={"usdPerGpuHour": None, "pricePolicy": policy, "limitUSD": 100}, evaluation=None)
    world.catalogue, problems = PriceCatalogue.parse(CATALOGUE % ("12.96", rfc3339(START + 467)))
    assert not problems
    await world.to_training()
    await world.after(START + 67 - world.now)
    world.report(step=5, eta_seconds=1_000)
    await world.settle()
    rest = 2 * (400 * 1_000 + 600 * later)
    assert micro_of_text(world.status.cost.forecast_usd) == world.status.cost.spent_micro_usd + rest


async def test_forecast_is_never_below_what_is_spent_when_attempts_do_not_report() -> None:
    world = World(budget={"limitUSD": "30"})
    await world.to_training()
    world.report(step=20)
    await world.after(10)
    assert float(world.status.cost.forecast_usd) >= float(world.status.cost.spent_usd)
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await world.settle()
    await world.after(60)
    world.run_pods(Stage.TRAIN, 2)
    for _ in range(5):
        await world.after(600)
        assert float(world.status.cost.forecast_usd) >= float(world.status.cost.spent_usd)
    assert await world.settle() == 0


async def test_forecast_is_announced_once_at_the_highest_threshold_it_reaches_anew() -> None:
    world = World(budget={"limitUSD": 10, "warnAtPercent": [50, 80, 90]})
    await world.to_training()
    for step, eta_seconds, told in (
        (4, 1_000, []),
        (5, 2_500, ["Forecast50Percent"]),
        (6, 3_900, ["Forecast50Percent", "Forecast80Percent"]),
        (7, 3_500, ["Forecast50Percent", "Forecast80Percent"]),
        (8, 3_900, ["Forecast50Percent", "Forecast80Percent"]),
        (9, 4_150, ["Forecast50Percent", "Forecast80Percent", "Forecast90Percent"]),
        (10, 5_000, ["Forecast50Percent", "Forecast80Percent", "Forecast90Percent", "ForecastOverLimit"]),
        (11, 1_000, ["Forecast50Percent", "Forecast80Percent", "Forecast90Percent", "ForecastOverLimit"]),
    ):
        world.report(step=step, eta_seconds=eta_seconds)
        await world.after(60)
        assert [each for each in world.reasons() if each.startswith("Forecast")] == told, step
    world.report(step=12, eta_seconds=3_400)
    await world.after(60)
    assert world.reasons().count("Forecast80Percent") == 2, "it had fallen far below, and is news again"


async def test_thresholds_are_announced_once_each_and_the_condition_names_the_last() -> None:
    world = World(budget={"warnAtPercent": [10, 20]})
    await world.to_training()
    for seconds in (499, 100, 500, 60):
        world.report(step=1)
        await world.after(seconds)
    assert [reason for reason in world.reasons() if reason.startswith("BudgetWarning")] == [
        "BudgetWarning10",
        "BudgetWarning20",
    ]
    assert world.condition("WithinBudget").reason == "Spent20Percent"


async def test_silent_node_puts_the_budget_at_risk_until_it_answers() -> None:
    settings = Settings(trainer_image="t", node_lost_seconds=10_000)
    world = World(settings=settings)
    await world.to_training()
    await world.after(100)
    assert world.condition("BudgetAtRisk").status == "False"
    silence(world, "node-2")
    await world.after(50)
    risk = world.condition("BudgetAtRisk")
    assert (risk.status, risk.reason) == ("True", "NodeUnreachable")
    assert "node-2" in risk.message
    assert world.status.usage.disputed_gpu_seconds == 50
    assert world.reasons().count("BudgetAtRisk") == 1

    def ready(obj: dict[str, Any]) -> None:
        obj["status"]["conditions"][0].update(status="True", lastTransitionTime=rfc3339(world.now))

    world.kube.patch("Node", "", "node-2", ready)
    await world.after(60)
    assert world.condition("BudgetAtRisk").status == "False"
    assert world.status.usage.disputed_gpu_seconds == 0


async def test_dispute_begins_with_the_last_renewal_of_the_nodes_lease() -> None:
    world = World(settings=Settings(trainer_image="t", node_lost_seconds=10_000))
    await world.to_training()
    await world.after(100)
    renewed = rfc3339(world.now - 40).replace("Z", ".123456Z")
    meta = {"name": "node-2", "namespace": "kube-node-lease"}
    world.kube.put(
        {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": {"renewTime": renewed}}
    )
    silence(world, "node-2")
    await world.after(50)
    assert world.status.usage.disputed_gpu_seconds == 90


async def test_charge_ends_when_the_api_server_says_that_the_node_is_gone() -> None:
    world = World()
    await world.to_training()
    await world.after(100)
    silence(world, "node-2")
    await world.after(50)
    world.kube.remove("Node", "", "node-2")
    await world.after(5)
    bases = {entry.node: entry.end_basis for entry in world.status.ledger.uncounted}
    assert bases["node-2"] == "nodeGone"
    held = world.status.usage.gpu_seconds
    world.set_status(world.pods(Stage.TRAIN)[0], phase="Failed", exit_code=75)
    await world.after(600)
    assert world.status.usage.estimated_gpu_seconds == 156
    assert world.status.usage.gpu_seconds >= held


async def test_overshoot_is_shown_and_never_hidden_when_a_lost_node_cannot_be_stopped() -> None:
    world = World(budget={"limitUSD": "1.20"}, evaluation=None)
    await world.to_training()
    silence(world, "node-1")
    silence(world, "node-2")
    await world.after(2_000)
    over = world.status.cost.spent_micro_usd - 1_200_000
    assert over > 0
    assert world.status.cost.overshoot_usd == f"{over / 1_000_000:.6f}"
    assert world.condition("BudgetAtRisk").status == "True"


# -- waste --------------------------------------------------------------------------------------------------------


async def test_pull_gang_wait_and_lost_work_are_told_apart() -> None:
    world = World()
    await world.to_prepared()
    world.create_pods(Stage.TRAIN)
    first, second = world.pods(Stage.TRAIN)
    for index, pod in enumerate((first, second)):
        world.bind(pod, f"node-{index + 1}")
    world.now += 30
    world.set_status(first, phase="Running", running=True)
    world.now += 20
    world.set_status(second, phase="Running", running=True)
    await world.after(100)
    assert waste(world) == {"pull": 30 + 50, "gangWait": 20}
    world.report(step=20, checkpoint=20)
    await world.after(40)
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await world.after(1)
    await world.after(1)
    saved = epoch(world.status.attempts[-1].last_checkpoint_time or world.status.attempts[1].last_checkpoint_time)
    failed = epoch(world.status.attempts[1].end_time) - 1
    assert waste(world)["lostWork"] == 2 * (failed - saved) > 0
    total = sum(waste(world).values())
    assert total < world.status.usage.gpu_seconds
    assert {each.spent_usd for each in world.status.usage.waste if each.reason == "gangWait"} == {"0.020000"}


async def test_time_of_a_drain_is_waste_and_what_it_saved_is_not_lost() -> None:
    world = World()
    await world.to_training()
    await world.after(100)
    world.edit(suspend=True)
    await world.settle()
    world.now += 25
    world.drain(Stage.TRAIN)
    await world.after(1)
    await world.after(1)
    assert waste(world) == {"terminating": 2 * 25}


# -- what is known before the first report ------------------------------------------------------------------------


def published(*, product: str = "NVIDIA-H100-80GB-HBM3", **spec: Any) -> World:
    """Return a world in which model, data and GPU of a run are known."""
    changes: dict[str, Any] = {
        "model": {"uri": "hf://Qwen/Qwen2.5-7B-Instruct"},
        "dataset": {"uri": "hf://NovaSky-AI/Sky-T1_data_17k", "format": "sky-t1", "maxSamples": None},
        "training": {"globalBatchSize": 96, "microBatchSize": 1},
        "resources": {"nodes": 1, "gpusPerNode": 8},
        "budget": {"limitUSD": 1_000, "usdPerGpuHour": "2.95"},
    } | spec
    world = World(nodes=1, **changes)

    def equip(obj: dict[str, Any]) -> None:
        obj["metadata"]["labels"]["nvidia.com/gpu.product"] = product

    world.kube.patch("Node", "", "node-1", equip)
    return world


async def test_estimate_is_the_forecast_until_the_trainer_reports() -> None:
    world = published()
    await world.settle()
    assert world.condition("Accepted").status == "True"
    forecast = float(world.status.cost.forecast_usd)
    assert 20 < forecast < 400
    assert world.condition("WithinBudget").reason == "WithinLimit"
    await world.after(600)
    assert float(world.status.cost.forecast_usd) == forecast


async def test_run_starts_and_its_user_is_warned_when_the_estimate_is_above_the_limit() -> None:
    world = published(budget={"limitUSD": 15, "usdPerGpuHour": "2.95"})
    await world.settle()
    assert world.condition("Accepted").status == "True"
    assert world.condition("WithinBudget").reason == "ForecastOverLimit"
    assert world.reasons().count("ForecastOverLimit") == 1


async def test_run_whose_model_cannot_fit_is_refused_with_what_would_help() -> None:
    world = published(model={"uri": "hf://Qwen/Qwen2.5-32B-Instruct"}, product="NVIDIA-L4")
    await world.settle()
    accepted = world.condition("Accepted")
    assert (accepted.status, accepted.reason) == ("False", "OutOfMemory")
    assert "on each of 8 GPUs" in accepted.message
    assert "training.deepspeed.offload" in accepted.message
    assert not world.kube.find("Job")


async def test_run_whose_evaluation_cannot_load_the_model_is_refused_before_the_training() -> None:
    training = {"globalBatchSize": 96, "microBatchSize": 1, "deepspeed": {"zeroStage": 3, "offload": "all"}}
    large: dict[str, Any] = {"model": {"uri": "hf://Qwen/Qwen2.5-32B-Instruct"}, "training": training}
    evaluation = {"preset": "s1", "benchmarks": [{"name": "math500"}]}
    world = published(**large, evaluation=evaluation)
    await world.settle()
    accepted = world.condition("Accepted")
    assert (accepted.status, accepted.reason) == ("False", "OutOfMemory")
    assert "need 123 GiB in fp32 (preset s1), and the evaluation's 1 x NVIDIA-H100-80GB-HBM3" in accepted.message
    assert "evaluation.engine: vllm and evaluation.gpus: 2 or more, or take another preset" in accepted.message
    for change in ({"preset": "skythought"}, {"engine": "vllm", "gpus": 2}):
        other = published(**large, evaluation=evaluation | change)
        await other.settle()
        assert other.condition("Accepted").status == "True", change


async def test_nothing_is_expected_of_a_gpu_that_nobody_knows() -> None:
    world = published(product="Tesla-K80")
    await world.settle()
    assert world.condition("Accepted").status == "True"
    assert world.status.cost.forecast_usd is None


# -- what people read ---------------------------------------------------------------------------------------------


async def test_event_of_the_end_says_what_is_on_the_bill_and_not_what_was_shown_last() -> None:
    world = World(evaluation=None)
    await world.to_training()
    world.now += 50
    world.complete(Stage.TRAIN)
    await world.settle()
    note = next(words for _, reason, words in world.kube.events if reason == "Complete")
    assert note.startswith(f"Complete. Spent {world.status.cost.display} so far")


async def test_thresholds_on_record_are_those_that_are_asked_for_however_often_they_are_edited() -> None:
    """The API server takes 16 of them, and refuses a status with more as a whole."""
    world = World()
    await world.to_training()
    await world.after(600)
    world.report(step=1, eta_seconds=36_000)
    for first in (1, 4, 7, 2):
        asked = [first, first + 1, first + 2]
        world.edit(budget={"warnAtPercent": asked})
        await world.settle()
        assert world.status.cost.warned_at_percent == asked
        assert world.status.cost.forecast_warned_at_percent == [*asked, 100]
    assert world.reasons().count("ForecastOverLimit") == 1


async def to_evaluation(**spec: Any) -> World:
    world = World(**spec)
    await world.to_training()
    await world.to_evaluation(seconds=10)
    return world


async def report_of_evaluation(world: World, *, eta_seconds: int) -> None:
    report = Report(
        stage=Stage.EVALUATE, attempt=1, received_at=world.now, percent=1, eta_seconds=eta_seconds, metrics=()
    )
    world.cache.put_report(world.key, report)
    await world.after(1)


async def test_forecast_is_not_beyond_the_bound_of_the_evaluation() -> None:
    world = await to_evaluation()
    await report_of_evaluation(world, eta_seconds=36_000)
    spent_before = world.status.cost.spent_micro_usd - 11 * 1_000
    assert world.status.cost.forecast_usd == f"{(spent_before + 600 * 1_000) / 1_000_000:.6f}"
    assert world.condition("WithinBudget").reason == "WithinLimit"
    assert "ForecastOverLimit" not in world.reasons()


async def test_forecast_over_the_limit_names_the_evaluation_when_the_model_is_trained() -> None:
    world = await to_evaluation(
        budget={"limitUSD": "1.50", "evaluationReserveUSD": "0.20"}, evaluation={"maxSeconds": 6_000}
    )
    await report_of_evaluation(world, eta_seconds=5_000)
    within = world.condition("WithinBudget")
    assert within.reason == "ForecastOverLimit"
    note = next(words for _, reason, words in world.kube.events if reason == "ForecastOverLimit")
    for words in (within.message, note):
        assert "the evaluation will be stopped" in words
        assert "training" not in words


async def test_event_of_the_end_says_what_the_evaluation_left_of_its_reserve() -> None:
    world = await to_evaluation()
    world.complete(Stage.EVALUATE)
    await world.settle()
    note = next(words for _, reason, words in world.kube.events if reason == "Complete")
    # 600 + 60 s of one GPU were kept, 10 s were used.
    assert "Of $0.66 kept for the evaluation $0.65 were not used." in note
