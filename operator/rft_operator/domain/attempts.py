"""The life of an attempt: begun on record, given its objects, stopped for a reason on record (its end: conclusions).

Invariant: at most one attempt is open; it is on record before its Job exists and its stop is on record before
its Job is deleted, so a crash between any two steps repeats the same step and never starts a twin.
"""

from __future__ import annotations

from collections.abc import Sequence

from rft_operator.api.choices import Resume
from rft_operator.api.status import (
    MAX_ATTEMPTS_KEPT,
    Attempt,
    ConditionStatus,
    ConditionType,
)
from rft_operator.domain.actions import Apply, Create, OpenGate, SetDeadline
from rft_operator.domain.budget import CPU_STAGES, admit, pod_deadline_seconds, worst_case_micro_usd
from rft_operator.domain.draft import Draft
from rft_operator.domain.facts import LABEL_QUEUE, ChildKind, PodFacts, child_name
from rft_operator.domain.gang import Gang, others_alive
from rft_operator.domain.manifests import attempt_config_map, score_network_policy, service, stage_job
from rft_operator.domain.money import usd_display, usd_text
from rft_operator.domain.money_state import Money, budget_state, terms_of
from rft_operator.domain.pauses import FULL_RETRY_SECONDS, ledger_is_full, next_start
from rft_operator.domain.publishing import PUBLISH_SECONDS
from rft_operator.domain.release import deletion_of
from rft_operator.domain.resolve import RunSnapshot
from rft_operator.domain.results import answers_wait
from rft_operator.domain.scores import evaluation_is_over
from rft_operator.domain.stops import DRAINING_STOPS, Stop
from rft_trainer.contract import Stage

DEADLINE_TOLERANCE_SECONDS = 5
"""A deadline is not lowered by less: a kubelet takes a second or two to acknowledge a pod; the slack has that."""
COMMITMENT_MARGIN_SECONDS = 10
"""How much shorter a deadline is made while other pods go on spending, so that it is not outdated at once."""


def begin(draft: Draft, stage: Stage, money: Money) -> None:
    """Put the next attempt of a stage on record with what it may cost, unless its back-off is still running (M7)."""
    former = draft.attempts_of(stage)
    last = former[-1] if former else None
    due = next_start(draft, former)
    if due is not None and draft.now < due:
        draft.wake(due)
        return
    if ledger_is_full(draft, stage):
        draft.wake(draft.now + FULL_RETRY_SECONDS)
        return
    number = last.number + 1 if last else 1
    step = _resume_step(draft) if stage is Stage.TRAIN else None
    attempt = Attempt(stage=stage.value, number=number, start_time=draft.now_text, start_step=step)
    attempt = committed(draft, attempt, money)
    draft.update(attempts=_kept([*draft.status.attempts, attempt]))
    if stage is Stage.TRAIN and (
        draft.holds(ConditionType.EVALUATED) or answers_wait(draft) or evaluation_is_over(draft)
    ):
        message = "The model is trained further; scores, where there are any, are those of an earlier checkpoint."
        draft.set_condition(ConditionType.EVALUATED, ConditionStatus.UNKNOWN, "TrainingGoesOn", message)
    progress = draft.status.progress
    if progress is not None and progress.stage != stage.value:
        draft.update(progress=None)
    restarts = draft.status.restarts
    if number > 1 and stage is Stage.TRAIN:
        restarts = restarts.model_copy(update={"total": restarts.total + 1})
    if step:
        restarts = restarts.model_copy(update={"resumes": restarts.resumes + 1})
    draft.update(restarts=restarts)
    where = f", resuming from step {step}" if step else ""
    draft.emit("Normal", "AttemptStarted", f"Attempt {number} of stage {stage.value}{where}.")
    draft.wake(draft.now)


def _kept(attempts: list[Attempt]) -> list[Attempt]:
    """Return as many attempts as status may hold; the last one of each stage always, for its number."""
    last = {attempt.stage: attempt for attempt in attempts}
    while len(attempts) > MAX_ATTEMPTS_KEPT:
        attempts = [*attempts]
        attempts.remove(next(each for each in attempts if each is not last[each.stage]))
    return attempts


def _resume_step(draft: Draft) -> int | None:
    checkpoint = draft.status.checkpoint
    if checkpoint is None or draft.spec.checkpoint.resume is Resume.NEVER:
        return None
    return checkpoint.step


def committed(draft: Draft, attempt: Attempt, money: Money) -> Attempt:
    """Return the attempt with its commitment: GPUs, grace, the pods' deadline, and the most it can cost.

    While something else spends the run's money (pods of lost nodes), the deadline is a little shorter than it could be,
    so that it still holds when the pods are made.
    """
    stage = Stage(attempt.stage)
    if stage is Stage.SCORE and draft.spec.evaluation is not None:
        return attempt.model_copy(update={"deadline_seconds": draft.spec.evaluation.code_execution.max_seconds})
    if stage is Stage.PUBLISH:
        return attempt.model_copy(update={"deadline_seconds": PUBLISH_SECONDS})
    if stage in CPU_STAGES or money.rate is None:
        return attempt
    terms = terms_of(draft, money, rate=money.rate, stage=stage, attempt=attempt)
    margin = COMMITMENT_MARGIN_SECONDS if money.bill.rate else 0
    deadline = max(1, pod_deadline_seconds(terms, money.bill) - margin)
    worst = worst_case_micro_usd(terms, deadline_seconds=deadline)
    return attempt.model_copy(
        update={
            "gpus": terms.gpus,
            "grace_seconds": terms.grace,
            "deadline_seconds": deadline,
            "worst_case_usd": usd_text(worst),
        }
    )


def recorded_attempt(draft: Draft, attempt: Attempt) -> Attempt | None:
    """Return an attempt as it is on record, or None if it is not yet."""
    found = (each for each in draft.recorded.attempts if (each.stage, each.number) == (attempt.stage, attempt.number))
    return next(found, None)


def provide(draft: Draft, attempt: Attempt, gang: Gang, *, snapshot: RunSnapshot, money: Money) -> None:
    """Create the attempt's objects if they are not there and no pod of it exists."""
    recorded = recorded_attempt(draft, attempt)
    if recorded is None or recorded.stop_reason is not None or gang.job is not None or gang.pods:
        return
    if others_alive(draft, attempt):
        return
    resource, settings, stage = draft.view.resource, draft.view.settings, gang.stage
    if stage not in CPU_STAGES:
        if money.rate is None or not _commitment_holds(draft, recorded, money):
            return
        draft.claims_gpus = True
    if stage is Stage.SCORE:
        draft.actions.append(Apply(manifest=score_network_policy(resource)))
    existing = {(each.kind, each.name) for each in draft.view.children.objects}
    if stage is Stage.TRAIN and (ChildKind.SERVICE, child_name(resource.metadata.name, "train")) not in existing:
        draft.actions.append(Apply(manifest=service(resource)))
    config = attempt_config_map(resource, snapshot, settings, stage=stage, attempt=attempt.number)
    if config is not None and (ChildKind.CONFIG_MAP, config["metadata"]["name"]) not in existing:
        draft.actions.append(Apply(manifest=config))
    job = stage_job(resource, snapshot, settings, attempt=recorded)
    # Kueue writes to a queued Job from its first second on: an apply that is repeated would undo what it did.
    draft.actions.append(Create(manifest=job) if LABEL_QUEUE in job["metadata"]["labels"] else Apply(manifest=job))


def open_gates(draft: Draft, attempt: Attempt, gang: Gang, money: Money) -> None:
    """Let the pods of a queued Job be bound, at a deadline that is affordable now: they may have waited for hours."""
    if len(gang.pods) < gang.desired:
        return  # all at once: one that is bound alone pays for waiting, and would be counted beside the whole gang
    waiting = [pod for pod in gang.pods if pod.gated and pod.deleted_at is None]
    recorded = recorded_attempt(draft, attempt)
    if not waiting or recorded is None or recorded.stop_reason is not None or money.rate is None:
        return
    if not _commitment_holds(draft, recorded, money):
        return
    draft.claims_gpus = True
    for pod in waiting:
        allowed = recorded.deadline_seconds
        if allowed is not None and (pod.deadline_seconds is None or pod.deadline_seconds > allowed):
            draft.actions.append(
                SetDeadline(namespace=pod.namespace, name=pod.name, uid=pod.uid, deadline_seconds=allowed)
            )
        draft.actions.append(OpenGate(namespace=pod.namespace, name=pod.name, uid=pod.uid))


def _commitment_holds(draft: Draft, recorded: Attempt, money: Money) -> bool:
    """Return whether what is on record can still be afforded; else put a smaller commitment on record first."""
    now = committed(draft, recorded, money)
    if _is_affordable(recorded, now, money):
        return True
    draft.replace_attempt(now)
    draft.wake(draft.now)
    return False


def _is_affordable(recorded: Attempt, now: Attempt, money: Money) -> bool:
    on_record, affordable = recorded.deadline_seconds, now.deadline_seconds
    margin = COMMITMENT_MARGIN_SECONDS if money.bill.rate else 0
    return on_record is not None and affordable is not None and on_record <= affordable + margin


def stop_if_needed(draft: Draft, attempt: Attempt, gang: Gang, *, stop: Stop | None) -> Attempt:
    """Put a stop on record; once it is on record, delete the Job, which sends SIGTERM to its pods."""
    if attempt.stop_reason is None and stop is not None:
        attempt = stopped(draft, attempt, stop)
        draft.emit("Normal" if stop.reason in DRAINING_STOPS else "Warning", stop.reason, stop.message)
        draft.wake(draft.now)
        return attempt
    recorded = recorded_attempt(draft, attempt)
    if (
        recorded is not None
        and recorded.stop_reason is not None
        and gang.job is not None
        and gang.job.deleted_at is None
    ):
        draft.actions.append(deletion_of(gang.job))
    return attempt


def stopped(draft: Draft, attempt: Attempt, stop: Stop) -> Attempt:
    """Put a stop on record; return the attempt with it."""
    attempt = attempt.model_copy(update={"stop_reason": stop.reason, "message": stop.message[:2_048]})
    draft.replace_attempt(attempt)
    return attempt


def budget_stop(draft: Draft, attempt: Attempt, gang: Gang, money: Money) -> tuple[Stop | None, int | None]:
    """Return a stop when the stop line is reached, else when it will be reached."""
    if gang.waits_in_queue and money.rate is not None:
        admission = admit(terms_of(draft, money, rate=money.rate, stage=gang.stage, attempt=attempt), money.bill)
        if not admission.ok:  # nothing useful could be done any more, so it leaves the queue
            return Stop(reason="BudgetExhausted", message=admission.message), None
    if gang.stage in CPU_STAGES:
        return None, None
    state = budget_state(draft, money, stage=gang.stage, attempt=attempt)
    if state.past_stop_line:
        limit = usd_display(money.limit_micro_usd)
        message = f"The budget's stop line is reached: the limit is {limit}, the rest pays for the stop"
        message += " and the evaluation." if gang.stage is Stage.TRAIN else "."
        return Stop(reason="BudgetExhausted", message=message), None
    if state.stop_at is not None:
        draft.wake(state.stop_at)
        lower_deadlines(draft, attempt, gang, stop_at=state.stop_at)
    else:
        lower_commitment(draft, attempt, gang, money)
    renew_job(draft, attempt, gang, money)
    return None, state.stop_at


def renew_job(draft: Draft, attempt: Attempt, gang: Gang, money: Money) -> None:
    """Make a Job anew whose pods a quota or a slow controller holds up, and would be made with a deadline too long.

    There is no pod yet whose deadline could be lowered, and nobody may be there to do it when there is. Pods of a queue
    wait for our gate, which is opened at the deadline that holds then.
    """
    job, recorded = gang.job, recorded_attempt(draft, attempt)
    if job is None or job.deleted_at is not None or job.queue is not None or gang.pods or recorded is None:
        return
    if not _is_affordable(recorded, committed(draft, recorded, money), money):
        draft.claims_gpus = True  # its pods may only be out of view
        draft.actions.append(deletion_of(job))


def lower_deadlines(draft: Draft, attempt: Attempt, gang: Gang, *, stop_at: int) -> None:
    """Lower the deadline of pods that would outlast the stop line, so that it holds without the operator too.

    A limit that was lowered, a price that rose and a lost node bring the line closer (E7, E11). A deadline can only be
    set or lowered (Kubernetes issue 20170), so a raised limit leaves the pods' deadlines as they are.
    """
    allowed = [(pod, stop_at - _counted_from(pod, now=draft.now)) for pod in _with_deadline(gang)]
    _lower(draft, attempt, allowed, recorded=attempt)


def lower_commitment(draft: Draft, attempt: Attempt, gang: Gang, money: Money) -> None:
    """The same while no pod of the gang is bound: each may still be, and run for all the time that can be paid now."""
    waiting = _with_deadline(gang)
    affordable = committed(draft, attempt, money) if waiting else attempt
    if affordable.deadline_seconds is not None:
        allowed = [(pod, affordable.deadline_seconds) for pod in waiting]
        _lower(draft, affordable, allowed, recorded=attempt)


def _with_deadline(gang: Gang) -> list[PodFacts]:
    """Return the pods that run or may run; gated ones get their deadline with the gate's opening."""
    alive = [pod for pod in gang.pods if pod.holds_node or (pod.bindable and not pod.gated)]
    return [pod for pod in alive if pod.deadline_seconds is not None]


def _counted_from(pod: PodFacts, *, now: int) -> int:
    """Return when a pod's deadline began to count, by the API server's clock.

    The kubelet counts from status.startTime, which is by its own clock: one that is behind must not lengthen the time.
    A pod that no kubelet has taken over may be at any moment.
    """
    if pod.scheduled_at is None or pod.acknowledged_at is None:
        return now
    return max(pod.scheduled_at, pod.acknowledged_at)


def _lower(draft: Draft, attempt: Attempt, allowed: Sequence[tuple[PodFacts, int]], *, recorded: Attempt) -> None:
    """Set what is allowed where it is less than what a pod has, and put the least on record."""
    known = least = recorded.deadline_seconds
    for pod, most in allowed:
        seconds = max(1, most)
        if pod.deadline_seconds is None or pod.deadline_seconds <= seconds + DEADLINE_TOLERANCE_SECONDS:
            continue
        draft.actions.append(SetDeadline(namespace=pod.namespace, name=pod.name, uid=pod.uid, deadline_seconds=seconds))
        least = seconds if least is None else min(least, seconds)
    if least != known:
        draft.replace_attempt(attempt.model_copy(update={"deadline_seconds": least}))
