"""Programs among the answers are run by a pod that has no GPU and nothing to lose; it costs nothing."""

from __future__ import annotations

import contextlib
import json
from typing import Any, Literal

import pytest

from rft_operator.api.status import Attempt
from rft_operator.cli.report import report
from rft_operator.domain.evaluation import evaluation_config
from rft_operator.domain.facts import FINALIZER, Settings
from rft_operator.domain.manifests import score_network_policy, stage_job
from rft_operator.domain.resolve import resolve
from rft_operator.errors import InvalidResource, Rejected
from rft_trainer.contract import ExitCode, Outcome, Stage
from rft_trainer.stage_results import EvaluateSummary, StageResult
from support.builders import NAME, NAMESPACE, resource
from support.stage import ANSWERED, SCORED_IN_PART, World, answered_in_part


async def to_answers(world: World) -> None:
    """Bring a run to where all questions are answered by programs."""
    await world.to_training()
    await world.to_evaluation(seconds=100)
    world.finish_pods(Stage.EVALUATE, result=ANSWERED)
    await world.settle()


async def to_scoring(world: World) -> None:
    await to_answers(world)
    world.run_pods(Stage.SCORE)
    await world.after(10)


async def test_run_is_complete_when_its_programs_were_run_without_a_gpu() -> None:
    world = World()
    await to_answers(world)
    assert world.condition("Evaluated").status == "False"
    assert world.condition("Evaluated").reason == "ScoringPending"
    assert "60 answers are programs" in world.condition("Evaluated").message
    assert world.condition("Complete").status != "True"
    spent = world.status.cost.spent_usd
    world.run_pods(Stage.SCORE)
    await world.after(500)
    assert world.status.stage == "Scoring"
    world.complete(Stage.SCORE)
    await world.settle()
    status = world.status
    assert status.stage == "Complete"
    assert status.evaluation.display.startswith("0.000 -> 0.900")
    assert [(each.stage, each.outcome) for each in status.attempts][2:] == [
        ("evaluate", "Succeeded"),
        ("score", "Succeeded"),
    ]
    assert status.cost.spent_usd == spent
    assert {each.stage for each in status.usage.by_stage} == {"train", "evaluate"}


async def test_pod_is_not_charged_and_nothing_is_written_when_programs_run_for_long() -> None:
    world = World()
    await to_scoring(world)
    world.now += 1_000
    assert await world.settle() == 0
    assert not world.status.ledger.open
    assert all(FINALIZER not in pod["metadata"].get("finalizers", ()) for pod in world.pods(Stage.SCORE))


async def test_scoring_is_tried_again_and_fails_for_good_when_programs_cannot_be_run_safely() -> None:
    world = World(retries={"maxRestarts": 1})
    await to_answers(world)
    words = "sandbox: a process cannot be sealed"
    failed = StageResult(stage=Stage.SCORE, outcome=Outcome.FAILED, error=words)
    for attempt in (1, 2):
        world.run_pods(Stage.SCORE, attempt)
        await world.after(5)
        world.finish_pods(Stage.SCORE, attempt, exit_code=1, result=failed)
        await world.settle()
        await world.after(400)
    assert world.condition("Failed").reason == "BackoffLimitExceeded"
    assert words in world.condition("Failed").message
    assert world.condition("Evaluated").status == "False"
    assert world.status.evaluation is None, "no score is posted that nobody earned"


async def test_scoring_goes_on_when_the_run_is_suspended_and_taken_up_again() -> None:
    world = World()
    await to_scoring(world)
    world.edit(suspend=True)
    await world.settle()
    world.finish_pods(Stage.SCORE, exit_code=143)
    await world.after(60)
    assert world.job_gone(Stage.SCORE)
    assert world.condition("Suspended").status == "True"
    world.edit(suspend=False)
    await world.settle()
    world.run_pods(Stage.SCORE, 2)
    await world.after(5)
    world.complete(Stage.SCORE, 2)
    await world.settle()
    assert world.status.stage == "Complete"
    assert world.status.restarts.toward_limit == 0


async def test_scoring_counts_as_failed_when_it_reaches_its_deadline() -> None:
    world = World(retries={"maxRestarts": 0})
    await to_scoring(world)
    world.finish_pods(Stage.SCORE, exit_code=137, reason="Error")
    for pod in world.pods(Stage.SCORE):
        world.kube.patch(
            "Pod", NAMESPACE, pod["metadata"]["name"], lambda obj: obj["status"].update(reason="DeadlineExceeded")
        )
    await world.settle()
    assert world.condition("Failed").status == "True"
    assert world.status.last_failure.reason == "DeadlineExceeded"


async def test_scoring_starts_without_money_left() -> None:
    """The limit lets the evaluation start and no more."""
    world = World(budget={"limitUSD": "3", "evaluationReserveUSD": "0.2"})
    await to_answers(world)
    world.edit(budget={"limitUSD": world.status.cost.spent_usd})
    await world.settle()
    world.run_pods(Stage.SCORE)
    await world.after(5)
    world.complete(Stage.SCORE)
    await world.settle()
    assert world.status.stage == "Complete"


async def to_checkpoints_evaluation(world: World, *, limit_usd: str) -> None:
    """Bring the run to where its money has ended in training, and its checkpoint is evaluated."""
    await world.to_training()
    world.report(step=20, checkpoint=20)
    await world.after(10)
    world.edit(budget={"limitUSD": limit_usd})
    await world.settle()
    world.drain(Stage.TRAIN)
    await world.after(5)
    world.run_pods(Stage.EVALUATE)


async def test_answers_are_given_anew_when_the_model_is_trained_further() -> None:
    world = World(budget={"limitUSD": "3", "evaluationReserveUSD": "0.2"})
    await to_checkpoints_evaluation(world, limit_usd="0.3")
    await world.after(5)
    world.edit(budget={"limitUSD": "9"})
    world.finish_pods(Stage.EVALUATE, result=ANSWERED)
    await world.settle()
    assert world.condition("Evaluated").reason == "TrainingGoesOn"
    world.run_pods(Stage.TRAIN, 2)
    await world.after(5)
    world.complete(Stage.TRAIN, 2)
    await world.after(1)
    assert world.status.attempts[-1].stage == "evaluate"


# -- an evaluation that its bound has ended ---------------------------------------------------------------------------

POOR: dict[str, Any] = {
    "budget": {"limitUSD": "1.50", "evaluationReserveUSD": "0.20"},
    "evaluation": {"maxSeconds": 6_000},
}
"""The money ends before the evaluation's time."""


async def to_part(world: World, *, seconds: int = 10, stopped: Literal["deadline", "asked"] = "deadline") -> None:
    """Bring a run to where its evaluation is ended by its bound, with programs among the answers."""
    await world.to_training()
    await world.to_evaluation(seconds=seconds)
    world.finish_pods(Stage.EVALUATE, exit_code=ExitCode.DRAINED_WITHOUT_CHECKPOINT, result=answered_in_part(stopped))
    await world.settle()


async def score_part(world: World) -> None:
    world.run_pods(Stage.SCORE)
    await world.after(30)
    assert world.status.stage == "Scoring"
    world.finish_pods(Stage.SCORE, result=SCORED_IN_PART)
    await world.settle()


async def test_programs_answered_in_time_are_scored_before_the_evaluation_closes_as_partial() -> None:
    world = World()
    await to_part(world)
    evaluated = world.condition("Evaluated")
    assert (evaluated.status, evaluated.reason) == ("False", "ScoringPending")
    assert "time is used up" in evaluated.message
    assert "8 answers are programs" in evaluated.message
    assert world.condition("Failed").status != "True", "the run is not at its end before its programs are run"
    assert world.status.evaluation is None
    spent = world.status.cost.spent_usd
    await score_part(world)
    status = world.status
    assert (status.evaluation.partial, status.evaluation.results[0].partial_of) == (True, 100)
    assert world.condition("Evaluated").reason == "Partial"
    assert "partial: 8 of 100 answers" in world.condition("Evaluated").message
    assert world.condition("Failed").reason == "EvaluationTimeExhausted"
    assert "time is used up" in world.condition("Failed").message
    assert world.condition("Complete").status == "False"
    assert [(each.stage, each.outcome) for each in status.attempts][-2:] == [
        ("evaluate", "Drained"),
        ("score", "Succeeded"),
    ]
    assert status.cost.spent_usd == spent
    assert status.restarts.toward_limit == 0
    assert "PARTIAL: 8 of 100 answers" in report(world.run)


async def test_programs_are_scored_when_the_money_is_used_up() -> None:
    world = World(**POOR)
    await to_part(world, seconds=1_500, stopped="asked")
    assert world.status.attempts[-2].reason == "BudgetExhausted"
    assert world.status.attempts[-1].stage == "score", "no money is needed for it"
    assert world.condition("Failed").status != "True"
    await score_part(world)
    assert world.status.evaluation.partial
    assert world.condition("Evaluated").reason == "Partial"
    assert world.condition("Failed").reason == "EvaluationReserveExhausted"
    assert [each.stage for each in world.status.attempts].count("evaluate") == 1


async def test_run_waits_for_money_after_its_programs_were_scored_when_it_is_to_be_suspended_then() -> None:
    world = World(**{**POOR, "budget": {**POOR["budget"], "onExhausted": "suspend"}})
    await to_part(world, seconds=1_500, stopped="asked")
    await score_part(world)
    assert world.condition("Suspended").reason == "BudgetExhausted"
    assert world.condition("Failed").status != "True"
    assert world.status.evaluation.partial


async def test_checkpoints_programs_are_scored_when_the_money_ends_in_training_and_again_in_the_evaluation() -> None:
    world = World(budget={"limitUSD": "3", "evaluationReserveUSD": "0.2"}, evaluation={"maxSeconds": 6_000})
    await to_checkpoints_evaluation(world, limit_usd="0.5")
    await world.after(2_000)
    assert world.job_gone(Stage.EVALUATE), "the stop line is reached"
    world.finish_pods(Stage.EVALUATE, exit_code=ExitCode.DRAINED_WITHOUT_CHECKPOINT, result=answered_in_part("asked"))
    await world.settle()
    await score_part(world)
    assert world.condition("Failed").reason == "BudgetExhausted"
    assert world.condition("Evaluated").reason == "Partial"
    assert world.status.evaluation.results[0].partial_of == 100


async def test_evaluation_goes_on_after_its_part_was_scored_when_the_limit_is_raised() -> None:
    world = World(**POOR)
    await to_part(world, seconds=1_500, stopped="asked")
    await score_part(world)
    world.edit(budget={"limitUSD": 20})
    await world.settle()
    world.run_pods(Stage.EVALUATE, 2)
    await world.after(5)
    world.finish_pods(Stage.EVALUATE, 2, result=ANSWERED)
    await world.settle()
    world.run_pods(Stage.SCORE, 2)
    await world.after(5)
    world.complete(Stage.SCORE, 2)
    await world.settle()
    assert world.condition("Complete").status == "True"
    assert not world.status.evaluation.partial


async def test_part_of_programs_is_not_scored_when_the_run_is_suspended_and_goes_on_later() -> None:
    world = World()
    await world.to_training()
    await world.to_evaluation(seconds=10)
    world.edit(suspend=True)
    await world.settle()
    world.finish_pods(Stage.EVALUATE, exit_code=ExitCode.DRAINED_WITHOUT_CHECKPOINT, result=answered_in_part("asked"))
    await world.settle()
    world.edit(suspend=False)
    await world.settle()
    assert not world.job_gone(Stage.EVALUATE, 2)
    assert world.job_gone(Stage.SCORE)


async def test_part_closes_the_evaluation_when_nothing_of_it_can_be_posted() -> None:
    world = World()
    await to_part(world)
    world.run_pods(Stage.SCORE)
    await world.after(30)
    nothing = StageResult(
        stage=Stage.SCORE, outcome=Outcome.COMPLETED, evaluate=EvaluateSummary(scores=(), stopped="deadline")
    )
    world.finish_pods(Stage.SCORE, result=nothing)
    await world.settle()
    assert world.condition("Evaluated").reason == "Partial"
    assert world.condition("Failed").reason == "EvaluationTimeExhausted"
    assert world.status.evaluation.results == []


async def test_nothing_is_left_when_a_run_is_deleted_while_programs_run() -> None:
    world = World()
    await to_scoring(world)
    world.kube.patch("ReasoningFinetune", NAMESPACE, NAME, lambda obj: None)
    await world.kube.delete(kind="ReasoningFinetune", namespace=NAMESPACE, name=NAME)
    await world.settle_deleted()
    assert world.job_gone(Stage.SCORE)


async def test_no_job_is_made_when_the_network_cannot_be_denied() -> None:
    world = World()
    await world.to_training()
    await world.to_evaluation()
    world.finish_pods(Stage.EVALUATE, result=ANSWERED)
    apply = world.kube.apply

    async def refuse(manifest: Any) -> Any:
        if manifest["kind"] == "NetworkPolicy":
            raise Rejected("networkpolicies is forbidden", status=403)
        return await apply(manifest)

    world.kube.apply = refuse  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="does not come to rest"):
        await world.settle()
    assert world.job_gone(Stage.SCORE)
    world.kube.apply = apply  # type: ignore[method-assign]
    await world.settle()
    assert not world.job_gone(Stage.SCORE)
    assert ("NetworkPolicy", NAMESPACE, f"{NAME}-score") in world.kube.objects


def score_job(**change: Any) -> dict[str, Any]:
    finetune = World(**change).run
    settings = Settings(trainer_image="trainer:1", progress_url="https://rft:8443", progress_ca="PEM")
    attempt = Attempt(stage="score", number=1, start_time="2026-01-01T00:00:00Z", deadline_seconds=3_600)
    return stage_job(finetune, resolve(finetune, settings), settings, attempt=attempt)


def test_the_pod_has_nothing_to_lose() -> None:
    job = score_job(
        model={"uri": "hf://org/private", "secretRef": {"name": "hub"}},
        podTemplate={
            "env": [{"name": "WANDB_API_KEY", "value": "secret-1"}],
            "volumes": [{"name": "keys", "mountPath": "/keys", "secret": {"secretName": "secret-2"}}],
            "labels": {"team": "a"},
        },
    )
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    text = json.dumps(job)
    assert not any(word in text for word in ("secret", "HF_TOKEN", "serviceAccountToken", 'nvidia.com/gpu":'))
    assert pod["automountServiceAccountToken"] is False
    assert pod["activeDeadlineSeconds"] == 3_600
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    bounds = {"cpu": "2", "memory": "3584Mi", "ephemeral-storage": "1Gi"}
    assert container["resources"] == {"requests": bounds, "limits": bounds}
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["template"]["metadata"]["labels"]["team"] == "a"


def test_the_pod_can_write_to_its_own_folders_and_that_of_the_answers_alone() -> None:
    pod = score_job()["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    writable = {
        each["mountPath"]: each.get("subPath") for each in container["volumeMounts"] if not each.get("readOnly")
    }
    answers = writable.pop(next(path for path in writable if path.endswith("/evaluation")))
    assert writable == {"/rft/run": None, "/tmp": None}
    assert answers is not None
    assert answers.startswith(f"{NAME}-")
    assert answers.endswith("/evaluation")
    assert all("sizeLimit" in each["emptyDir"] for each in pod["volumes"] if "emptyDir" in each)


def test_the_pod_reads_questions_where_they_are_and_nothing_else_of_the_users() -> None:
    rows = [{"name": "a", "uri": "pvc://questions/a.jsonl"}, {"name": "b", "uri": "configmap://own/b.jsonl"}]
    dataset = {"uri": "pvc://training/rows.jsonl", "format": "s1", "maxSamples": None}
    evaluation = {**resource()["spec"]["evaluation"], "benchmarks": [*rows, {"name": "humaneval"}]}
    pod = score_job(dataset=dataset, evaluation=evaluation)["spec"]["template"]["spec"]
    mounts = {each["mountPath"]: each for each in pod["containers"][0]["volumeMounts"]}
    assert mounts["/rft/claims/questions"]["readOnly"] is True
    assert mounts["/rft/configmaps/own"]["readOnly"] is True
    assert mounts["/rft/baselines"]["readOnly"] is True
    assert "/rft/claims/training" not in mounts
    assert {each["name"] for each in mounts.values()} == {each["name"] for each in pod["volumes"]}


def test_the_pod_runs_on_another_kernel_when_the_spec_says_so() -> None:
    evaluation = {**resource()["spec"]["evaluation"], "codeExecution": {"runtimeClassName": "gvisor", "cpu": "8"}}
    pod = score_job(evaluation=evaluation)["spec"]["template"]["spec"]
    assert pod["runtimeClassName"] == "gvisor"
    assert pod["containers"][0]["resources"]["limits"]["cpu"] == "8"


@pytest.mark.parametrize(
    ("benchmarks", "execution", "memory"),
    [
        (["humaneval"], {}, "3584Mi"),
        (["livecodebench"], {}, "9728Mi"),
        (["humaneval", "livecodebench", "math500"], {"cpu": "4"}, "18432Mi"),
        (["livecodebench"], {"cpu": "500m"}, "5376Mi"),
        (["livecodebench"], {"memory": "32Gi"}, "32Gi"),
    ],
)
def test_the_pod_has_room_for_what_the_programs_at_once_may_take_and_their_judge(
    benchmarks: list[str], execution: dict[str, str], memory: str
) -> None:
    evaluation = {"benchmarks": [{"name": name} for name in benchmarks], "codeExecution": execution}
    pod = score_job(evaluation={**resource()["spec"]["evaluation"], **evaluation})["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["memory"] == memory


@pytest.mark.parametrize(
    ("benchmark", "memory", "words"),
    [
        ({"name": "livecodebench"}, "5375Mi", "memory is 5375Mi, and a program of livecodebench may take 4096 MiB"),
        ({"name": "livecodebench"}, "5375Mi", "give at least 5376Mi"),
        ({"name": "own", "uri": "pvc://own/rows.jsonl", "scorer": "code"}, "2Gi", "give at least 2304Mi"),
        ({"name": "livecodebench"}, "5376Mi", None),
        ({"name": "math500"}, "64Mi", None),
    ],
)
def test_run_is_refused_when_its_pod_has_no_room_for_a_program(
    benchmark: dict[str, str], memory: str, words: str | None
) -> None:
    spec = {**resource()["spec"]["evaluation"], "benchmarks": [benchmark], "codeExecution": {"memory": memory}}
    finetune = World(evaluation=spec).run
    assert finetune.spec.evaluation is not None
    with contextlib.nullcontext() if words is None else pytest.raises(InvalidResource, match=words):
        config = evaluation_config(finetune.spec.evaluation, model_uri="hf://org/model")
        assert config.program_memory_mib == int(memory.removesuffix("Mi"))


def test_the_pod_never_waits_in_a_queue_for_gpus() -> None:
    job = score_job(scheduling={"queueName": "team-queue"})
    assert "suspend" not in job["spec"]
    assert "schedulingGates" not in job["spec"]["template"]["spec"]


def test_the_policy_denies_all_traffic_of_exactly_these_pods() -> None:
    finetune = World().run
    policy = score_network_policy(finetune)
    selector = policy["spec"]["podSelector"]["matchLabels"]
    assert selector.items() <= score_job()["spec"]["template"]["metadata"]["labels"].items()
    assert selector["rft.dev/stage"] == "score"
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & policy["spec"].keys()
    assert policy["metadata"]["ownerReferences"][0]["uid"] == finetune.metadata.uid


async def test_bad_input_of_the_scoring_ends_the_run_at_once() -> None:
    world = World()
    await to_scoring(world)
    result = StageResult(stage=Stage.SCORE, outcome=Outcome.FAILED, error="benchmark humaneval: tests are absent")
    world.finish_pods(Stage.SCORE, exit_code=ExitCode.BAD_INPUT, result=result)
    await world.settle()
    assert world.condition("Failed").reason == "BadInput"
