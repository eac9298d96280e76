"""How an attempt ends, and with it perhaps the run: its result is read, its failure named, the next step left open.

Invariant: an attempt is closed once, with an outcome and a reason; the run ends only when nothing of it is running.
"""

from __future__ import annotations

from rft_operator.api.choices import OnStall
from rft_operator.api.status import (
    Attempt,
    AttemptOutcome,
    ConditionType,
    Failure,
)
from rft_operator.domain.attempts import COMMITMENT_MARGIN_SECONDS, stopped
from rft_operator.domain.bill import Bill, Share, bill
from rft_operator.domain.draft import Draft
from rft_operator.domain.facts import child_name
from rft_operator.domain.failure import Trouble, classify_end, parse_result
from rft_operator.domain.gang import Gang
from rft_operator.domain.money import micro_of_text, usd_display, usd_text
from rft_operator.domain.publishing import publish_stop, tell_not_published
from rft_operator.domain.resolve import data_directory
from rft_operator.domain.results import is_complete, take_answers, take_over
from rft_operator.domain.scores import (
    GIVEN_UP,
    MONEY_BOUND,
    TIME_IS_UP,
    Bound,
    bound_of,
    take_scores,
    unreadable,
)
from rft_operator.domain.stops import COUNTED_STOPS, DRAINING_STOPS, FATAL_STOPS, PUBLISH_CHANGED
from rft_operator.domain.team_money import effective_limit
from rft_operator.domain.timestamps import epoch
from rft_trainer.contract import DATA_DIRECTORY, Stage
from rft_trainer.stage_results import EvaluateSummary, StageResult

DRAINED = frozenset({"Drained", "DrainedWithoutCheckpoint", TIME_IS_UP, MONEY_BOUND.reason})
"""Ends that are no fault of the run's, unless they count as a failure."""
WANT_OF_MONEY = frozenset({"BudgetExhausted", "EvaluationReserveExhausted"})
"""Reasons of Failed that a raised limit undoes."""
EVALUATING = frozenset({Stage.EVALUATE, Stage.SCORE})
WANT_OF_TIME = "EvaluationTimeExhausted"
"""Reason of Failed that nothing undoes: ``evaluation`` cannot change once the run has started."""


def conclude(draft: Draft, attempt: Attempt, gang: Gang) -> None:
    """Close the attempt: take over its result, or classify why it has none."""
    outdated = publish_stop(draft, gang)
    if outdated is not None and attempt.stop_reason is None:
        attempt = stopped(draft, attempt, outdated)
    # What came of a try that was to be ended is not what is asked for now.
    result = None if attempt.stop_reason == PUBLISH_CHANGED else _result_of(gang)
    if result is not None:
        take_over(draft, result)
        if result.train is not None:
            attempt = attempt.model_copy(update={"end_step": result.train.step})
    if result is not None and is_complete(result):
        _close(draft, attempt, outcome=AttemptOutcome.SUCCEEDED, reason="Succeeded", message="", counted=False)
        if result.stage is Stage.SCORE and result.evaluate is not None and result.evaluate.stopped is not None:
            _end_partial(draft, draft.attempts_of(Stage.EVALUATE)[-1])
        return
    if gang.stage is Stage.PUBLISH:
        _conclude_publishing(draft, attempt, gang)
        return
    bound = (
        None
        if result is None
        else bound_of(attempt, result, gang.pods, money_ended_first=_money_ended_first(draft, attempt))
    )
    if result is not None and result.evaluate is not None and bound is not None:
        _close_partial(draft, attempt, result.evaluate, bound=bound)
        return
    if attempt.stop_reason is not None:
        drained = attempt.stop_reason in DRAINING_STOPS
        counted = attempt.stop_reason in COUNTED_STOPS
        outcome = AttemptOutcome.DRAINED if drained else AttemptOutcome.FAILED
        message = attempt.message or ""
        _close(draft, attempt, outcome=outcome, reason=attempt.stop_reason, message=message, counted=counted)
        if not drained:
            fatal = attempt.stop_reason in FATAL_STOPS
            trouble = Trouble(reason=attempt.stop_reason, message=message, counted=counted, fatal=fatal)
            _record_failure(draft, gang.stage, trouble)
        return
    trouble = _classify(draft, attempt, gang)
    unread = unreadable(gang.pods) if gang.stage is Stage.EVALUATE else None
    if unread is not None:
        draft.set_condition(ConditionType.EVALUATED, False, *unread)
    drained = trouble.reason in DRAINED and not trouble.counted
    outcome = AttemptOutcome.DRAINED if drained else AttemptOutcome.FAILED
    _close(
        draft,
        attempt,
        outcome=outcome,
        reason=trouble.reason,
        message=trouble.message,
        counted=trouble.counted,
    )
    if drained:
        draft.emit("Normal", trouble.reason, trouble.message)
    else:
        _record_failure(draft, gang.stage, trouble)


def _classify(draft: Draft, attempt: Attempt, gang: Gang) -> Trouble:
    """Name what ended the pods; an evaluation whose deadline was the money's did not fail, and more money undoes it."""
    trouble = classify_end(gang.pods, gang.job)
    overdue = gang.stage is Stage.EVALUATE and trouble.reason == TIME_IS_UP
    if overdue and _money_ended_first(draft, attempt):
        return Trouble(reason=MONEY_BOUND.reason, message=f"{MONEY_BOUND.message}.", pod=trouble.pod)
    return trouble


def _conclude_publishing(draft: Draft, attempt: Attempt, gang: Gang) -> None:
    """Close a try that published nothing; it never counts against the run, whose model is there."""
    if attempt.stop_reason is not None:
        reason, message, counted = attempt.stop_reason, attempt.message or "", attempt.stop_reason in COUNTED_STOPS
    else:
        trouble = classify_end(gang.pods, gang.job)
        reason, message, counted = trouble.reason, trouble.message, trouble.counted
    outcome = AttemptOutcome.FAILED if counted else AttemptOutcome.DRAINED
    _close(draft, attempt, outcome=outcome, reason=reason, message=message, counted=False)
    if counted:
        tell_not_published(draft, reason, message)


def _money_ended_first(draft: Draft, attempt: Attempt) -> bool:
    """Return whether the deadline of an evaluation's pod was what the budget allowed, and not the evaluation's bound.

    A deadline made while other pods go on spending is a margin shorter than either.
    """
    evaluation, deadline = draft.spec.evaluation, attempt.deadline_seconds
    if evaluation is None or deadline is None:
        return False
    return deadline < evaluation.max_seconds - COMMITMENT_MARGIN_SECONDS


def _close_partial(draft: Draft, attempt: Attempt, summary: EvaluateSummary, *, bound: Bound) -> None:
    """Post what an evaluation came to within its bound, or have its programs run first, which costs nothing."""
    drained = AttemptOutcome.DRAINED
    _close(draft, attempt, outcome=drained, reason=bound.reason, message=bound.message, counted=False)
    if summary.pending:
        take_answers(draft, summary, given=bound.message)
        return
    take_scores(draft, summary)
    _end_partial(draft, draft.attempts_of(Stage.EVALUATE)[-1])


def _end_partial(draft: Draft, evaluation: Attempt) -> None:
    """End a run whose evaluation its time has ended; where it was the money, that is looked at again (``plan``).

    So is a run that its money had ended before: its training can go on, whatever became of its checkpoint's evaluation.
    """
    if evaluation.reason == TIME_IS_UP and draft.holds(ConditionType.TRAINED):
        advice = (
            "evaluation cannot change once the run has started: measure the model with rft evaluate, "
            "or give a run of another name more evaluation.maxSeconds."
        )
        fail(draft, WANT_OF_TIME, f"{evaluation.message}: the scores are partial. {advice}")


def _is_final_stall(draft: Draft, reason: str) -> bool:
    return reason == "Stalled" and draft.spec.timeouts.on_stall is OnStall.FAIL


def _result_of(gang: Gang) -> StageResult | None:
    for pod in gang.pods:
        result = parse_result(pod)
        if result is not None and result.stage is gang.stage:
            return result
    return None


def _close(
    draft: Draft, attempt: Attempt, *, outcome: AttemptOutcome, reason: str, message: str, counted: bool
) -> None:
    progress = draft.status.progress
    mine = progress is not None and (progress.stage, progress.attempt) == (attempt.stage, attempt.number)
    end_step = attempt.end_step
    if end_step is None and mine and progress is not None:
        end_step = progress.step
    checkpoint = draft.status.checkpoint
    saved = checkpoint is not None and epoch(checkpoint.time) >= epoch(attempt.start_time)
    draft.replace_attempt(
        attempt.model_copy(
            update={
                "end_time": draft.now_text,
                "outcome": outcome,
                "reason": reason,
                "message": message[:2_048] or None,
                "counted": counted,
                "end_step": end_step,
                "last_checkpoint_time": checkpoint.time if saved and checkpoint is not None else None,
            }
        )
    )
    if counted:
        restarts = draft.status.restarts
        draft.update(restarts=restarts.model_copy(update={"toward_limit": restarts.toward_limit + 1}))
    draft.wake(draft.now)


def _record_failure(draft: Draft, stage: Stage, trouble: Trouble) -> None:
    """Say what went wrong, and end the run if another attempt cannot help or none is left.

    What counts for nothing ends no run, also where ``retries.maxRestarts`` was lowered below what is used up.
    """
    reason, message, pod = trouble.reason, trouble.message, trouble.pod
    fatal = trouble.fatal or _is_final_stall(draft, reason)
    draft.update(
        last_failure=Failure(
            reason=reason,
            message=message[:2_048],
            time=draft.now_text,
            pod=pod.name if pod else None,
            node=pod.node if pod else None,
            exit_code=pod.exit_code if pod and pod.exit_code is not None and 0 <= pod.exit_code <= 255 else None,
        )
    )
    draft.emit("Warning", reason, message)
    used, allowed = draft.status.restarts.toward_limit, draft.spec.retries.max_restarts
    spent = trouble.counted and used > allowed
    if stage in EVALUATING and not draft.holds(ConditionType.TRAINED):
        if fatal or spent:  # the run ends for want of money, and its training goes on with more (``plan``)
            draft.set_condition(ConditionType.EVALUATED, False, GIVEN_UP, f"{reason}: {message}")
    elif fatal:
        fail(draft, reason, message)
    elif spent:
        fail(
            draft,
            "BackoffLimitExceeded",
            f"{used} failures, retries.maxRestarts allows {allowed}. The last one: {message}",
        )


def fail(draft: Draft, reason: str, message: str) -> None:
    """End the run as Failed; of one that ends for want of money, what it might spend goes on record."""
    if reason in WANT_OF_MONEY:
        ended_at = usd_text(effective_limit(draft))
        draft.update(cost=draft.status.cost.model_copy(update={"ended_at_limit_usd": ended_at}))
    draft.set_condition(ConditionType.FAILED, True, reason, message)
    draft.set_condition(ConditionType.COMPLETE, False, reason, message)
    _finish(draft)
    draft.emit("Warning", "Failed", f"{reason}: {message}")


def complete(draft: Draft) -> None:
    """End the run as Complete."""
    draft.set_condition(ConditionType.COMPLETE, True, "Succeeded", _done_words(draft))
    draft.set_condition(ConditionType.FAILED, False, "Succeeded")
    _finish(draft)
    found = bill(draft.status.ledger, now=draft.now)
    words = f"Complete. Spent {usd_display(found.spent_micro_usd)} so far; see status.cost."
    draft.emit("Normal", "Complete", f"{words}{_unused_reserve(draft, found)} {_where_model_is(draft)}")


def _unused_reserve(draft: Draft, found: Bill) -> str:
    """Return what the evaluation left of its reserve, in words (E5)."""
    reserve = draft.status.cost.reserve_usd
    if draft.spec.evaluation is None or reserve is None:
        return ""
    kept, used = micro_of_text(reserve), found.by_stage.get(Stage.EVALUATE.value, Share()).micro_usd
    return f" Of {usd_display(kept)} kept for the evaluation {usd_display(max(0, kept - used))} were not used."


def _done_words(draft: Draft) -> str:
    done = "Trained as asked." if draft.spec.evaluation is None else "Trained and evaluated as asked."
    unpublished = draft.spec.publish is not None and not draft.holds(ConditionType.PUBLISHED)
    note = " It is not published: see the condition Published." if unpublished else ""
    return f"{done} {_where_model_is(draft)}{note}"


def _where_model_is(draft: Draft) -> str:
    """Return the model's address, in words: another run takes it as ``model.uri``."""
    resource = draft.view.resource
    claim = draft.spec.storage.claim_name or child_name(resource.metadata.name, "data")
    folder = data_directory(resource).removeprefix(f"{DATA_DIRECTORY}/")
    return f"The model is at pvc://{claim}/{folder}/export."


def _finish(draft: Draft) -> None:
    draft.set_condition(ConditionType.SUSPENDED, False, "Finished")
    draft.update(completion_time=draft.now_text)
    draft.wake(draft.now)
