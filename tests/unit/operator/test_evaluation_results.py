"""What an evaluation says reaches the status as it is: whole, in part and marked so, or not at all with a reason."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.api.status import Status
from rft_operator.cli.report import report
from rft_trainer.contract import Outcome, Stage
from rft_trainer.packed_answers import packed
from rft_trainer.results import termination_message
from rft_trainer.stage_results import BaseAnswers, EvaluateSummary, Scaling, Score, StageResult
from support.builders import NAME, NAMESPACE
from support.stage import World

SCORE = Score(
    benchmark="sums", metric="accuracy", value=0.9, stderr=0.03, questions=100, samples=1, no_answer=2, capped=3,
    thinking_tokens=41.52, interval=(0.826, 0.945), baseline=0.5, baseline_stderr=0.05, comparison="paired",
    wins=45, losses=5, p_value=0.0001, verdict="Improved",
)  # fmt: skip
PART = Score(
    benchmark="sums", metric="accuracy", value=0.75, stderr=0.2, questions=4, samples=1, of_answers=100,
    interval=(0.3, 0.95),
)  # fmt: skip
BASE = BaseAnswers(key="ab" * 20, questions=100, samples=1, rights="AAAA")


def completed(**summary: Any) -> StageResult:
    it = EvaluateSummary(**{"scores": (SCORE,), "protocol": "f" * 64, **summary})
    return StageResult(stage=Stage.EVALUATE, outcome=Outcome.COMPLETED, evaluate=it)


def partial(stopped: str, *scores: Score) -> StageResult:
    summary = EvaluateSummary.model_validate({"scores": scores or (PART,), "stopped": stopped, "protocol": "f" * 64})
    error = "evaluation.maxSeconds is used up: 0 of 1 scores are complete"
    return StageResult(stage=Stage.EVALUATE, outcome=Outcome.DRAINED, error=error, evaluate=summary)


async def evaluating(**spec: Any) -> World:
    world = World(**spec)
    await world.to_training()
    await world.to_evaluation()
    return world


async def ended(world: World, result: StageResult, *, reason: str = "", attempt: int = 1) -> Status:
    """The evaluation's pod ends as the kubelet writes it; its message went through the termination log."""
    code = 0 if result.outcome is Outcome.COMPLETED else 76
    world.finish_pods(Stage.EVALUATE, attempt, exit_code=code, result=result)
    if reason:
        [pod] = world.pods(Stage.EVALUATE, attempt)
        world.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], lambda obj: obj["status"].update(reason=reason))
    await world.settle()
    status: Status = world.status
    return status


async def test_score_is_posted_with_interval_verdict_and_protocol() -> None:
    world = await evaluating()
    curve = Scaling(benchmark="sums", control=1.0, slope=12.345, performance=0.9)
    status = await ended(world, completed(scaling=(curve,)))
    assert status.evaluation is not None
    [row] = status.evaluation.results
    assert (row.value, row.interval_low, row.interval_high) == ("0.9000", "0.8260", "0.9450")
    assert (row.baseline, row.delta, row.comparison, row.verdict) == ("0.5000", "0.4000", "paired", "Improved")
    assert (row.no_answer, row.capped, row.thinking_tokens, row.partial_of) == (2, 3, "41.5", None)
    assert status.evaluation.protocol_hash == "sha256:" + "f" * 64
    assert status.evaluation.display == "0.500 -> 0.900 [0.826-0.945] Improved"
    assert status.evaluation.scaling[0].slope == "12.35"
    assert world.condition("Evaluated").message == "sums 0.900 ± 0.030 (base model 0.500: Improved)"
    assert world.condition("Complete").status == "True"


async def test_report_tells_what_a_score_is_worth() -> None:
    world = await evaluating()
    await ended(world, completed())
    text = report(world.run)
    assert "Score  sums accuracy: 0.50 before, 0.90 ± 0.03 after training (100 questions)" in text
    assert "Improved; 45 better, 5 worse; p 0.0001; 95 % interval 0.826 to 0.945" in text
    assert "2 of 100 without an answer; 3 capped; 41.5 thinking tokens" in text
    assert f"Protocol sha256:{'f' * 12}" in text


async def test_published_score_is_marked_as_such() -> None:
    world = await evaluating()
    score = SCORE.model_copy(update={"comparison": "published", "wins": None, "losses": None})
    await ended(world, completed(scores=(score,)))
    assert world.condition("Evaluated").message == "sums 0.900 ± 0.030 (published 0.500: Improved)"
    assert world.status.evaluation.display == "0.500 published -> 0.900 [0.826-0.945] Improved"
    assert "0.50 published, 0.90" in report(world.run)


async def test_published_score_stays_marked_when_the_message_is_shortened() -> None:
    world = await evaluating()
    marks = {"comparison": "published", "wins": None, "losses": None, "benchmark": "gpqa-diamond"}
    settings = [f"mean@4@wait={wait},think={tokens}" for wait in (0, 1, 2, 4) for tokens in (4000, 8000, 16000, 28000)]
    scores = tuple(SCORE.model_copy(update={**marks, "metric": metric}) for metric in settings)
    curve = Scaling(benchmark="gpqa-diamond", control=1.0, slope=12.345, performance=0.9)
    status = await ended(world, completed(scores=scores, scaling=(curve,) * 2, artifacts="x" * 60))
    assert status.evaluation is not None
    assert {(row.comparison, row.verdict) for row in status.evaluation.results} == {("published", "Improved")}
    assert "base model" not in world.condition("Evaluated").message


async def test_baseline_is_not_called_the_base_models_when_it_is_not_known_whose_it_is() -> None:
    world = await evaluating()
    await ended(world, completed(scores=(SCORE.model_copy(update={"comparison": None, "verdict": None}),)))
    assert world.condition("Evaluated").message == "sums 0.900 ± 0.030 (baseline 0.500)"
    assert "0.50 baseline, 0.90" in report(world.run)


@pytest.mark.parametrize(("stopped", "reason"), [("deadline", ""), ("asked", "DeadlineExceeded")])
async def test_part_is_posted_as_a_part_and_the_run_is_not_complete_when_the_bound_is_reached(
    stopped: str, reason: str
) -> None:
    world = await evaluating()
    status = await ended(world, partial(stopped), reason=reason)
    assert status.evaluation is not None
    assert status.evaluation.partial
    assert status.evaluation.results[0].partial_of == 100
    assert status.evaluation.display == "0.750 [0.300-0.950] (partial)"
    evaluated = world.condition("Evaluated")
    assert (evaluated.status, evaluated.reason) == ("False", "Partial")
    assert "partial: 4 of 100 answers" in evaluated.message
    assert (world.condition("Complete").status, world.condition("Failed").reason) == (
        "False",
        "EvaluationTimeExhausted",
    )
    assert "limitUSD" not in world.condition("Failed").message, "it was not the money"
    assert "PARTIAL: 4 of 100 answers" in report(world.run)


async def test_part_is_posted_when_the_money_is_used_up() -> None:
    world = await poor_evaluation()
    await world.after(1_500)
    assert world.job_gone(Stage.EVALUATE), "the stop line is reached"
    status = await ended(world, partial("asked"))
    assert status.attempts[-1].reason == "BudgetExhausted"
    assert status.evaluation is not None
    assert status.evaluation.partial
    assert world.condition("Evaluated").reason == "Partial"
    assert world.condition("Failed").reason == "EvaluationReserveExhausted"


@pytest.mark.parametrize("edit", [{"ttlSecondsAfterFinished": 86_400}, {"budget": {"limitUSD": 11}}])
async def test_evaluation_that_its_own_time_ended_stays_ended_whatever_is_edited(edit: dict[str, Any]) -> None:
    world = await evaluating()
    await ended(world, partial("deadline"))
    world.edit(**edit)
    await world.settle()
    assert world.condition("Failed").status == "True"
    assert [each.stage for each in world.status.attempts].count("evaluate") == 1


async def poor_evaluation() -> World:
    """An evaluation that might take 6,000 s, and whose pods' deadline is what $1.50 allow."""
    return await evaluating(
        budget={"limitUSD": "1.50", "evaluationReserveUSD": "0.20"}, evaluation={"maxSeconds": 6_000}
    )


async def test_evaluation_goes_on_when_the_limit_is_raised_after_the_deadline_that_its_money_allowed() -> None:
    world = await poor_evaluation()
    world.now += 1_480
    status = await ended(world, partial("asked"), reason="DeadlineExceeded")
    assert (status.attempts[-1].reason, status.cost.ended_at_limit_usd) == ("BudgetExhausted", "1.500000")
    assert world.condition("Failed").reason == "EvaluationReserveExhausted"
    world.edit(ttlSecondsAfterFinished=86_400)
    await world.settle()
    assert world.condition("Failed").status == "True", "nobody gave it more money"
    world.edit(budget={"limitUSD": 11})
    await world.settle()
    world.run_pods(Stage.EVALUATE, 2)
    await world.after(5)
    status = await ended(world, completed(), attempt=2)
    assert status.evaluation is not None
    assert not status.evaluation.partial
    assert world.condition("Complete").status == "True"


async def test_part_is_not_posted_when_the_run_is_suspended_and_goes_on_later() -> None:
    world = await evaluating()
    world.edit(suspend=True)
    await world.settle()
    status = await ended(world, partial("asked"))
    assert status.evaluation is None
    assert world.condition("Failed").status != "True"
    world.edit(suspend=False)
    await world.settle()
    assert not world.job_gone(Stage.EVALUATE, 2)


async def test_part_is_not_posted_when_the_pod_was_preempted() -> None:
    world = await evaluating()
    [pod] = world.pods(Stage.EVALUATE)

    def preempt(obj: dict[str, Any]) -> None:
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"}
        obj["status"]["conditions"] = [*obj["status"]["conditions"], condition]

    world.kube.patch("Pod", NAMESPACE, pod["metadata"]["name"], preempt)
    status = await ended(world, partial("asked"))
    assert status.evaluation is None
    assert not world.job_gone(Stage.EVALUATE, 2)


async def test_nothing_is_posted_as_a_score_when_there_was_no_time_for_any() -> None:
    world = await evaluating()
    summary = EvaluateSummary(scores=(), stopped="deadline")
    result = StageResult(stage=Stage.EVALUATE, outcome=Outcome.DRAINED, evaluate=summary)
    status = await ended(world, result)
    assert status.evaluation is not None
    assert (status.evaluation.results, status.evaluation.display) == ([], "")
    assert world.condition("Evaluated").reason == "Partial"


WHOLE = termination_message(completed()).decode()


@pytest.mark.parametrize(
    ("message", "reason"),
    [("", "ResultsUnavailable"), (WHOLE[:100], "ResultsTruncated"), (WHOLE.replace("0.9,", "9.9,"), "ResultsInvalid")],
    ids=["none", "cut", "wrong"],
)
async def test_result_that_cannot_be_read_is_a_reason_and_no_score(message: str, reason: str) -> None:
    world = await evaluating()
    [pod] = world.pods(Stage.EVALUATE)
    world.set_status(pod, phase="Succeeded", exit_code=0, message=message, reason="Completed")
    await world.settle()
    evaluated = world.condition("Evaluated")
    assert (evaluated.status, evaluated.reason) == ("False", reason)
    assert world.status.evaluation is None


# -- what is paid for once ------------------------------------------------------------------------------------------


def config_maps(world: World) -> dict[str, Any]:
    return {
        each["metadata"]["name"]: each for each in world.kube.find("ConfigMap") if "rft.dev/cache" in labels_of(each)
    }


def labels_of(obj: Any) -> dict[str, str]:
    labels: dict[str, str] = obj["metadata"].get("labels") or {}
    return labels


async def test_base_answers_are_kept_beside_the_run_and_outlive_it() -> None:
    world = await evaluating()
    await ended(world, completed(base_answers=(BASE,)))
    [(name, kept)] = config_maps(world).items()
    assert name.startswith("rft-baseline-")
    assert list(kept["data"]) == [BASE.key]
    assert "ownerReferences" not in kept["metadata"]
    assert "rft.dev/finetune" not in labels_of(kept)
    mounted = world.job(Stage.EVALUATE)["spec"]["template"]["spec"]["volumes"]
    assert [v["configMap"]["name"] for v in mounted if v["name"] == "rft-baselines"] == [name]


async def test_base_answers_of_a_message_with_little_room_are_kept_too() -> None:
    others = [BASE.model_copy(update={"key": f"{number:040x}"}) for number in range(12)]
    world = await evaluating()
    status = await ended(world, completed(packed_base_answers=packed(others)))
    [(_, kept)] = config_maps(world).items()
    assert sorted(kept["data"]) == [each.key for each in others]
    assert status.evaluation is not None
    assert status.evaluation.artifacts == f"/rft/data/{NAME}-{world.run.metadata.uid[:8]}/evaluation"


async def test_entries_of_other_runs_stay_when_one_is_added() -> None:
    world = await evaluating()
    await ended(world, completed(base_answers=(BASE,)))
    before = config_maps(world)
    other = await evaluating()
    for each in before.values():
        other.kube.put(each)
    await ended(other, completed(base_answers=(BASE.model_copy(update={"key": "cd" * 20}),)))
    [kept] = config_maps(other).values()
    assert sorted(kept["data"]) == [BASE.key, "cd" * 20]


async def test_config_map_of_somebody_else_is_left_alone() -> None:
    world = await evaluating()
    await ended(world, completed(base_answers=(BASE,)))
    [name] = config_maps(world)
    other = await evaluating()
    theirs = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": NAMESPACE}}
    other.kube.put({**theirs, "data": {"mine": "1"}})
    await ended(other, completed(base_answers=(BASE,)))
    assert other.kube.objects["ConfigMap", NAMESPACE, name]["data"] == {"mine": "1"}
    assert other.condition("Complete").status == "True"
