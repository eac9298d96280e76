"""Programs among the answers, under a running operator: a pod of its own, unpaid, cut off from everything."""

from __future__ import annotations

from rft_operator.api.status import ConditionType
from rft_operator.domain.draft import condition_of, is_true
from rft_operator.domain.facts import FINALIZER
from rft_trainer.contract import ExitCode, Stage
from support.kubelet import Kubelet
from support.live_run import LiveRun
from support.operator_thread import OperatorThread, idle
from support.pod_history import PodHistory
from support.stage import SCORED_IN_PART, answered_in_part


async def test_programs_run_cut_off_and_unpaid_and_their_scores_complete_the_run(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun, history: PodHistory
) -> None:
    await run.apply()
    await kubelet.work(Stage.PREPARE)
    await kubelet.work(Stage.TRAIN, seconds=1)
    await kubelet.answer()
    (pod,) = await kubelet.start(Stage.SCORE)
    status = await run.until(lambda status: status.stage == "Scoring", what="the stage Score")
    assert FINALIZER not in pod["metadata"].get("finalizers", ())
    assert pod["spec"]["activeDeadlineSeconds"] == 3_600
    assert not any("projected" in each for each in pod["spec"]["volumes"]), "no token"
    (policy,) = await run.kube.list(kind="NetworkPolicy", namespace=run.namespace)
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["metadata"]["ownerReferences"][0]["uid"] == (await run.raw())["metadata"]["uid"]

    spent = status.cost.spent_micro_usd
    await kubelet.hold([pod], seconds=2)
    await kubelet.complete(Stage.SCORE)
    await run.until_condition(ConditionType.COMPLETE)
    status = await run.until(lambda status: not status.ledger.uncounted, what="the last bill")
    assert status.cost.spent_micro_usd == spent
    assert [each.stage for each in history.gpu_time(run.namespace)] == ["train", "train", "evaluate"]
    assert [each.stage for each in status.attempts] == ["prepare", "train", "evaluate", "score"]
    reasons = [event.reason for event in await run.events_until("Complete")]
    assert [each for each in reasons if each in ("Trained", "Answered", "Evaluated", "Complete")] == [
        "Trained", "Answered", "Evaluated", "Complete"
    ]  # fmt: skip
    await run.controllers_rest()
    await idle(operator, run)


async def test_scoring_is_taken_up_again_when_its_pod_was_ended_by_a_suspension(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun
) -> None:
    await run.apply()
    await kubelet.work(Stage.PREPARE, Stage.TRAIN)
    await kubelet.answer()
    await kubelet.start(Stage.SCORE)
    await run.edit(suspend=True)
    await run.until_condition(ConditionType.SUSPENDED)
    await run.edit(suspend=False)
    await kubelet.start(Stage.SCORE, 2)
    await kubelet.complete(Stage.SCORE, 2)
    await run.until_condition(ConditionType.COMPLETE)
    status = await run.status()
    assert [(each.stage, each.outcome) for each in status.attempts][-2:] == [
        ("score", "Drained"),
        ("score", "Succeeded"),
    ]
    assert status.restarts.toward_limit == 0


async def test_programs_of_an_evaluation_that_its_time_ended_are_run_before_it_closes_as_partial(
    operator: OperatorThread, kubelet: Kubelet, run: LiveRun
) -> None:
    await run.apply()
    await kubelet.work(Stage.PREPARE, Stage.TRAIN)
    (pod,) = await kubelet.start(Stage.EVALUATE)
    words = answered_in_part("deadline").model_dump_json(exclude_none=True)
    await kubelet.end(pod, exit_code=ExitCode.DRAINED_WITHOUT_CHECKPOINT, message=words)
    (pod,) = await kubelet.start(Stage.SCORE)
    status = await run.until(lambda status: status.stage == "Scoring", what="the stage Score")
    assert not is_true(status, ConditionType.FAILED)
    await kubelet.end(pod, exit_code=0, message=SCORED_IN_PART.model_dump_json(exclude_none=True))
    await run.until_condition(ConditionType.FAILED)
    status = await run.status()
    evaluated, failed = (condition_of(status, each) for each in (ConditionType.EVALUATED, ConditionType.FAILED))
    assert evaluated is not None
    assert failed is not None
    assert (evaluated.reason, failed.reason) == ("Partial", "EvaluationTimeExhausted")
    assert status.evaluation is not None
    assert [each.partial_of for each in status.evaluation.results] == [100]
    assert [(each.stage, each.outcome) for each in status.attempts][-2:] == [
        ("evaluate", "Drained"),
        ("score", "Succeeded"),
    ]
    await run.controllers_rest()
    await idle(operator, run)
