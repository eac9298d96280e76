"""What people see of a run beside its money: conditions, counts, the word for its stage.

Invariant: no decision reads what is written here, but for the time since when all ranks run, or do not.
"""

from __future__ import annotations

from rft_operator.api.status import Attempt, Condition, ConditionStatus, ConditionType, DisplayStage
from rft_operator.domain.draft import Draft, condition_of, is_over, is_true
from rft_operator.domain.facts import JobFacts
from rft_operator.domain.failure import Trouble, classify_pod
from rft_operator.domain.gang import Gang
from rft_operator.domain.pauses import ledger_is_full, next_start
from rft_operator.domain.stops import DRAINING_STOPS
from rft_operator.domain.timestamps import rfc3339
from rft_operator.errors import InvalidResource
from rft_trainer.contract import Stage

SCHEDULING_PATIENCE_SECONDS = 10
"""An unschedulable pod is announced after so long."""


def first_sight(draft: Draft) -> None:
    """Write every condition type once, so that `kubectl wait` and people find them."""
    for type_ in ConditionType:
        if draft.condition(type_) is None:
            status = ConditionStatus.UNKNOWN
            draft.set_condition(type_, status, "NotYet")


def show_progressing(draft: Draft, attempt: Attempt | None) -> None:
    """Write the condition Progressing."""
    progress = draft.status.progress
    if attempt is None:
        reason, message = _why_no_attempt(draft)
        draft.set_condition(ConditionType.PROGRESSING, False, reason, message)
    elif attempt.stop_reason is not None:
        draft.set_condition(ConditionType.PROGRESSING, False, attempt.stop_reason, attempt.message or "")
    elif progress is not None and (progress.stage, progress.attempt) == (attempt.stage, attempt.number):
        draft.set_condition(ConditionType.PROGRESSING, True, "Advancing")
    else:
        draft.set_condition(ConditionType.PROGRESSING, ConditionStatus.UNKNOWN, "NoReports", "No report yet.")


def show_unread_snapshot(draft: Draft, error: InvalidResource) -> None:
    """Say that the run's values cannot be read: what runs goes on, and nothing follows it."""
    message = (
        f"{error} What runs is looked after to its end, and nothing new is started. Install the operator that wrote "
        "the ConfigMap, or restore it; the run then goes on by itself."
    )
    known = condition_of(draft.recorded, ConditionType.PROGRESSING)
    if known is None or known.reason != error.reason:
        draft.emit("Warning", error.reason, message)
    status = ConditionStatus.FALSE if draft.open_attempt() is None else ConditionStatus.UNKNOWN
    draft.set_condition(ConditionType.PROGRESSING, status, error.reason, message)


def _why_no_attempt(draft: Draft) -> tuple[str, str]:
    """Return reason and message: the next attempt may be waiting for its time."""
    last = draft.status.attempts[-1] if draft.status.attempts else None
    going_on = not is_over(draft.status) and not draft.holds(ConditionType.SUSPENDED)
    if last is not None and going_on:
        due = next_start(draft, draft.attempts_of(Stage(last.stage)))
        if due is not None and draft.now < due:
            ended = f"Attempt {last.number} of stage {last.stage} ended ({last.reason})"
            return "BackOff", f"{ended}; the next one starts at {rfc3339(due)}."
    if going_on and ledger_is_full(draft, Stage.EVALUATE if draft.holds(ConditionType.TRAINED) else Stage.TRAIN):
        held = len(draft.status.ledger.open)
        return "LedgerFull", (
            f"{held} pods of former attempts hold GPUs on nodes that do not answer, and the bill has no room for more: "
            "delete the Node objects of those that are surely off (BudgetAtRisk names them)."
        )
    return "NoAttempt", "No attempt is running."


def stage_word(draft: Draft, attempt: Attempt | None, gang: Gang | None) -> DisplayStage:
    """Return where the run stands, in a word."""
    if is_true(draft.status, ConditionType.COMPLETE):
        return DisplayStage.COMPLETE
    if is_true(draft.status, ConditionType.FAILED):
        return DisplayStage.FAILED
    if attempt is None:
        if is_true(draft.status, ConditionType.SUSPENDED):
            return DisplayStage.SUSPENDED
        last = draft.status.attempts[-1] if draft.status.attempts else None
        failed = last is not None and last.outcome is not None and last.outcome.value == "Failed"
        return DisplayStage.RESTARTING if failed else DisplayStage.PENDING
    return _attempt_word(draft, attempt, gang)


def _attempt_word(draft: Draft, attempt: Attempt, gang: Gang | None) -> DisplayStage:
    if attempt.stop_reason is not None:
        stopping = attempt.stop_reason in DRAINING_STOPS
        return DisplayStage.STOPPING if stopping else DisplayStage.RESTARTING
    if gang is not None and gang.waits_for_admission:
        return DisplayStage.QUEUED
    if attempt.stage == Stage.PREPARE:
        return DisplayStage.PREPARING
    if attempt.stage == Stage.EVALUATE:
        return DisplayStage.EVALUATING
    if attempt.stage == Stage.SCORE:
        return DisplayStage.SCORING
    if attempt.stage == Stage.PUBLISH:
        return DisplayStage.PUBLISHING
    progress = draft.status.progress
    reported = progress is not None and (progress.stage, progress.attempt) == (attempt.stage, attempt.number)
    return DisplayStage.TRAINING if reported and gang is not None else DisplayStage.STARTING


def show_gang(draft: Draft, gang: Gang | None) -> None:
    """Write status.pods and the conditions Scheduled and Running."""
    if gang is not None and gang.job is not None and gang.waits_for_admission:
        _show_queued(draft, gang, gang.job)
        return
    if gang is None or not gang.pods:
        word = "NoPods" if gang is None else "Creating"
        for type_ in (ConditionType.SCHEDULED, ConditionType.RUNNING):
            draft.set_condition(type_, False, word, "No pod exists now.")
        draft.update(pods=gang.counts if gang else None)
        return
    draft.update(pods=gang.counts)
    unbound = [pod for pod in gang.pods if pod.scheduled_at is None and not pod.terminal]
    if unbound:
        message = unbound[0].unschedulable_message or "Waiting for the scheduler."
        reason = "Unschedulable" if unbound[0].unschedulable_message else "Waiting"
        partly = len(unbound) < gang.desired
        draft.set_condition(
            ConditionType.SCHEDULED,
            False,
            "GangIncomplete" if partly else reason,
            f"{unbound[0].name}: {message}",
        )
    else:
        draft.set_condition(ConditionType.SCHEDULED, True, "AllPodsScheduled", _where(gang))
    if gang.all_running:
        draft.set_condition(ConditionType.RUNNING, True, "AllRanksRunning", f"{gang.desired} of {gang.desired} run.")
        return
    trouble = next((found for pod in gang.pods if (found := classify_pod(pod)) is not None), None)
    if trouble is not None and _is_news(draft, trouble):
        _announce(draft, trouble.reason, trouble.message)
        draft.set_condition(ConditionType.RUNNING, False, trouble.reason, trouble.message)
    else:
        draft.set_condition(ConditionType.RUNNING, False, "Starting", f"{gang.counts.running} of {gang.desired} run.")


def _show_queued(draft: Draft, gang: Gang, job: JobFacts) -> None:
    if job.queue is None:
        reason, message = "JobSuspended", f"Somebody set spec.suspend of Job {job.name}; it starts once that is undone."
    else:
        reason = "WaitingForQuota"
        message = f"Kueue has not admitted Job {job.name} from queue {job.queue} yet; no GPU is held or paid for. "
        message += f"`kubectl get workloads -n {job.namespace} -o wide` and the Events of the Job say why."
    for type_ in (ConditionType.SCHEDULED, ConditionType.RUNNING):
        draft.set_condition(type_, False, reason, message)
    draft.update(pods=gang.counts)


def _is_news(draft: Draft, trouble: Trouble) -> bool:
    """A pod that is unschedulable for a few seconds only waits, for example for its new volume to be bound."""
    if trouble.reason != "Unschedulable" or trouble.pod is None:
        return True
    due = trouble.pod.created_at + SCHEDULING_PATIENCE_SECONDS
    if draft.now < due:
        draft.wake(due)
        return False
    return True


def _announce(draft: Draft, reason: str, message: str) -> None:
    old: Condition | None = draft.condition(ConditionType.RUNNING)
    if old is None or old.reason != reason or old.status is not ConditionStatus.FALSE:
        draft.emit("Warning", reason, message)


def _where(gang: Gang) -> str:
    nodes = sorted({pod.node for pod in gang.pods if pod.node})
    return f"On {', '.join(nodes[:8])}{' and others' if len(nodes) > 8 else ''}."
