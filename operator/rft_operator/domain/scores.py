"""What an evaluation says of itself, taken over into status.

Invariant: scores are posted as they are or not at all. A part is marked as a part and never ends a run as Complete;
what is missing or cannot be read is a reason of the condition Evaluated, never a score of 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rft_operator.api.scores import Comparison, EvaluationStatus, ScalingResult, ScoreResult, Verdict
from rft_operator.api.status import Attempt, ConditionStatus, ConditionType
from rft_operator.domain.baselines import keep_baselines
from rft_operator.domain.draft import Draft
from rft_operator.domain.facts import PodFacts
from rft_operator.domain.resolve import data_directory
from rft_trainer.contract import EVALUATION_FOLDER, Stage
from rft_trainer.packed_answers import unpacked
from rft_trainer.stage_results import EvaluateSummary, Score, StageResult

MONEY_IS_UP = "BudgetExhausted"
TIME_IS_UP = "DeadlineExceeded"
"""Reasons of an attempt that its money or its own time has ended."""
PARTIAL = "Partial"
"""Reason of Evaluated=False for an evaluation that its bound has ended."""
GIVEN_UP = "EvaluationFailed"
"""Reason of Evaluated=False for an unfinished model whose evaluation is not tried again."""
_SOURCES = {"paired": "base model", "published": "published", None: "baseline"}
"""What a baseline is called; of a message that was shortened it may not be known which of the two it is."""


def take_scores(draft: Draft, summary: EvaluateSummary) -> None:
    """Write scores, the condition Evaluated, and what later runs of the same base model need not pay for again."""
    partial = summary.stopped is not None
    draft.update(
        evaluation=EvaluationStatus(
            results=[result_of(score) for score in summary.scores],
            partial=partial,
            protocol_hash=f"sha256:{summary.protocol}" if summary.protocol is not None else None,
            scaling=[
                ScalingResult(
                    benchmark=each.benchmark,
                    control=_fixed(each.control),
                    slope=f"{each.slope:.2f}",
                    performance=_fixed(each.performance),
                )
                for each in summary.scaling
            ],
            artifacts=summary.artifacts or f"{data_directory(draft.view.resource)}/{EVALUATION_FOLDER}",
            display=_display(summary.scores[0], partial=partial) if summary.scores else "",
        )
    )
    keep_baselines(draft, summary.base_answers or unpacked(summary.packed_base_answers))
    message = "; ".join(_words(score) for score in summary.scores) or "Nothing was measured"
    if partial:
        draft.set_condition(ConditionType.EVALUATED, False, PARTIAL, f"Ended by its bound. {message}.")
        draft.emit("Warning", "EvaluationPartial", message)
        return
    draft.set_condition(ConditionType.EVALUATED, True, "Posted", message)
    draft.emit("Normal", "Evaluated", message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """What has ended an evaluation before its last answer."""

    reason: str
    message: str


MONEY_BOUND = Bound(reason=MONEY_IS_UP, message="The evaluation's money is used up")
TIME_BOUND = Bound(reason=TIME_IS_UP, message="The evaluation's time is used up (evaluation.maxSeconds)")


def bound_of(
    attempt: Attempt, result: StageResult, pods: Sequence[PodFacts], *, money_ended_first: bool
) -> Bound | None:
    """Return why an evaluation's part is all that its bound allows; None where the next attempt goes on.

    A stop for another reason (suspension, preemption, a drain) is no bound: the answers are kept and gone on with.
    ``money_ended_first``: the pods' deadline was the budget's and not the evaluation's.
    """
    if result.stage is not Stage.EVALUATE or result.evaluate is None or result.evaluate.stopped is None:
        return None
    if attempt.stop_reason is not None:
        return MONEY_BOUND if attempt.stop_reason == MONEY_IS_UP else None
    if result.evaluate.stopped == "deadline":  # the trainer's own clock
        return TIME_BOUND
    if any(pod.pod_reason == "DeadlineExceeded" for pod in pods):
        return MONEY_BOUND if money_ended_first else TIME_BOUND
    return None


def evaluation_is_over(draft: Draft) -> bool:
    """Return whether an unfinished model was evaluated as far as it will be: its reserve pays for one evaluation."""
    found = draft.condition(ConditionType.EVALUATED)
    return found is not None and found.status is ConditionStatus.FALSE and found.reason in (PARTIAL, GIVEN_UP)


def unreadable(pods: Sequence[PodFacts]) -> tuple[str, str] | None:
    """Return reason and message where an evaluation ended well but its result is missing or cannot be read."""
    ended = [pod for pod in pods if pod.exit_code == 0]
    if not ended:
        return None
    said = (ended[0].termination_message or "").strip()
    if not said:
        return "ResultsUnavailable", f"{ended[0].name} ended without a result; its answers are on the volume."
    if not said.endswith("}"):
        return "ResultsTruncated", f"The result of {ended[0].name} was cut; its answers are on the volume."
    return "ResultsInvalid", f"The result of {ended[0].name} does not fit the contract; its answers are on the volume."


def _words(score: Score) -> str:
    words = f"{score.benchmark} {_setting(score)}{score.value:.3f} ± {score.stderr:.3f}"
    if score.baseline is not None:
        words += f" ({_SOURCES[score.comparison]} {score.baseline:.3f}{_judged(score)})"
    if score.of_answers is not None:
        words += f", partial: {score.questions * score.samples} of {score.of_answers} answers"
    return words


def _setting(score: Score) -> str:
    _, _, setting = score.metric.rpartition("@") if "=" in score.metric else ("", "", "")
    return f"{setting} " if setting else ""


def _judged(score: Score) -> str:
    return f": {score.verdict}" if score.verdict is not None else ""


def _display(score: Score, *, partial: bool) -> str:
    published = " published" if score.comparison == "published" else ""
    before = f"{score.baseline:.3f}{published} -> " if score.baseline is not None else ""
    interval = f" [{score.interval[0]:.3f}-{score.interval[1]:.3f}]" if score.interval is not None else ""
    verdict = f" {score.verdict}" if score.verdict is not None else ""
    return f"{before}{score.value:.3f}{interval}{verdict}{' (partial)' if partial else ''}"


def _fixed(value: float) -> str:
    return f"{value:.4f}"


def _optional(value: float | None) -> str | None:
    return None if value is None else _fixed(value)


def result_of(score: Score) -> ScoreResult:
    """Return a score as it is posted."""
    compared = score.baseline is not None
    return ScoreResult(
        benchmark=score.benchmark,
        metric=score.metric,
        value=_fixed(score.value),
        stderr=_fixed(score.stderr),
        interval_low=_optional(score.interval[0] if score.interval is not None else None),
        interval_high=_optional(score.interval[1] if score.interval is not None else None),
        questions=score.questions,
        samples=score.samples,
        partial_of=score.of_answers,
        no_answer=score.no_answer,
        capped=score.capped,
        thinking_tokens=f"{score.thinking_tokens:.1f}" if score.thinking_tokens is not None else None,
        baseline=_optional(score.baseline),
        baseline_stderr=_optional(score.baseline_stderr),
        comparison=Comparison(score.comparison) if score.comparison is not None else None,
        delta=_fixed(score.value - score.baseline) if compared and score.baseline is not None else None,
        wins=score.wins,
        losses=score.losses,
        p_value=_optional(score.p_value),
        verdict=Verdict(score.verdict) if score.verdict is not None else None,
    )
