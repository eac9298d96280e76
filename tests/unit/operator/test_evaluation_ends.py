"""How an evaluation ends a run, or does not: a model whose training the money stopped can always be trained further."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.api.ledger import WasteReason
from rft_trainer.contract import Outcome, Stage
from rft_trainer.stage_results import EvaluateSummary, StageResult
from support.builders import NAMESPACE
from support.stage import PART, SCORED_IN_PART, World, answered_in_part

SMALL = {"limitUSD": "1.50", "usdPerGpuHour": "3.60"}
"""Of $1.50 the evaluation keeps $0.66: training may spend $0.84, its stop costs $0.18."""
IN_PART = EvaluateSummary(scores=(PART,), stopped="deadline")
POOR: dict[str, Any] = {
    "budget": {"limitUSD": "1.50", "evaluationReserveUSD": "0.20"},
    "evaluation": {"maxSeconds": 6_000},
}
"""The money ends before the evaluation's time."""


async def unfinished(**spec: Any) -> World:
    """Bring a run to where the checkpoint that its money allowed is evaluated."""
    world = World(**{"budget": SMALL, **spec})
    await world.to_training()
    await world.after(400)
    world.drain(Stage.TRAIN, step=20)
    await world.after(1)
    world.run_pods(Stage.EVALUATE)
    await world.after(10)
    return world


async def end(world: World, result: StageResult | None, *, reason: str = "", exit_code: int = 76) -> None:
    """The evaluation's pod ends."""
    number = world.status.attempts[-1].number
    world.finish_pods(Stage.EVALUATE, number, exit_code=exit_code, result=result)
    if reason:
        [pod] = world.pods(Stage.EVALUATE, number)
        world.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], lambda obj: obj["status"].update(reason=reason))
    await world.settle()


async def goes_on_with_more_money(world: World) -> None:
    """Raise the limit; the run is trained to its end, evaluated anew, and complete."""
    assert (world.condition("Failed").status, world.condition("Failed").reason) == ("True", "BudgetExhausted")
    world.edit(budget={"limitUSD": 20})
    await world.settle()
    last = world.status.attempts[-1]
    assert (world.condition("Failed").status, last.stage, last.start_step) == ("False", "train", 20)
    world.run_pods(Stage.TRAIN, last.number)
    await world.after(5)
    world.complete(Stage.TRAIN, last.number)
    await world.after(60)  # an evaluation that failed is tried again after a pause
    last = world.status.attempts[-1]
    assert last.stage == "evaluate", "scores of a part of the training are no scores of the model"
    world.run_pods(Stage.EVALUATE, last.number)
    await world.after(5)
    world.complete(Stage.EVALUATE, last.number)
    await world.after(1)
    assert world.condition("Complete").status == "True"


async def test_unfinished_model_is_trained_further_when_its_evaluation_took_all_of_its_time() -> None:
    world = await unfinished()
    await end(world, StageResult(stage=Stage.EVALUATE, outcome=Outcome.DRAINED, evaluate=IN_PART))
    assert world.condition("Evaluated").reason == "Partial"
    assert [each.stage for each in world.status.attempts].count("evaluate") == 1, "its time is over"
    await goes_on_with_more_money(world)


async def test_unfinished_model_is_trained_further_when_the_programs_of_a_part_were_run() -> None:
    world = await unfinished()
    await end(world, answered_in_part("deadline"))
    world.run_pods(Stage.SCORE)
    await world.after(5)
    world.finish_pods(Stage.SCORE, result=SCORED_IN_PART)
    await world.settle()
    await goes_on_with_more_money(world)


@pytest.mark.parametrize("exit_code", [1, 78])
async def test_unfinished_model_is_trained_further_when_its_evaluation_failed(exit_code: int) -> None:
    world = await unfinished(retries={"maxRestarts": 0})
    await end(world, None, exit_code=exit_code)
    evaluated = world.condition("Evaluated")
    assert (evaluated.status, evaluated.reason) == ("False", "EvaluationFailed")
    assert world.status.last_failure.reason in evaluated.message
    await goes_on_with_more_money(world)


async def test_unfinished_model_is_trained_further_when_money_came_while_its_evaluation_failed() -> None:
    world = await unfinished(retries={"maxRestarts": 0})
    world.edit(budget={"limitUSD": 20})
    await end(world, None, exit_code=78)
    assert world.condition("Failed").status != "True"
    assert world.condition("Evaluated").reason == "TrainingGoesOn"
    assert world.status.attempts[-1].stage == "train"


async def test_unfinished_model_is_evaluated_again_when_the_money_ends_a_second_time() -> None:
    world = await unfinished()
    await end(world, StageResult(stage=Stage.EVALUATE, outcome=Outcome.DRAINED, evaluate=IN_PART))
    world.edit(budget={"limitUSD": "2.80"})
    await world.settle()
    world.run_pods(Stage.TRAIN, 2)
    await world.after(700)
    world.drain(Stage.TRAIN, 2, step=30)
    await world.settle()
    assert [each.reason for each in world.status.attempts if each.stage == "train"] == ["BudgetExhausted"] * 2
    assert (world.status.attempts[-1].stage, world.status.attempts[-1].number) == ("evaluate", 2)


async def test_evaluation_that_the_moneys_deadline_killed_is_no_failure_and_goes_on_with_more() -> None:
    """The operator was away, and the pod could not say a word in its grace."""
    world = World(**POOR, retries={"maxRestarts": 0})
    await world.to_training()
    await world.to_evaluation()
    world.now += world.status.attempts[-1].deadline_seconds + 30
    await end(world, None, reason="DeadlineExceeded", exit_code=137)
    assert world.status.attempts[-1].reason == "BudgetExhausted"
    assert world.status.restarts.toward_limit == 0
    assert world.condition("Failed").reason == "EvaluationReserveExhausted"
    world.edit(budget={"limitUSD": 20})
    await world.settle()
    assert (world.status.attempts[-1].stage, world.status.attempts[-1].number) == ("evaluate", 2)


@pytest.mark.parametrize(("ended", "lost"), [("suspended", False), ("partial", False), ("crashed", True)])
async def test_time_of_an_evaluation_is_lost_only_when_it_failed_by_itself(ended: str, lost: bool) -> None:
    """Each answer is on the volume once it is given."""
    world = await unfinished()
    await world.after(90)
    if ended == "suspended":
        world.edit(suspend=True)
        await world.settle()
    asked = EvaluateSummary(scores=(PART,), stopped="asked")
    parts = {"suspended": asked, "partial": IN_PART}
    part = StageResult(stage=Stage.EVALUATE, outcome=Outcome.DRAINED, evaluate=parts[ended]) if not lost else None
    await end(world, part, exit_code=1 if lost else 76)
    wasted = {each.reason for each in world.status.usage.waste}
    assert (WasteReason.LOST_WORK in wasted) is lost
