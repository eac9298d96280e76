"""Why a gang must be taken down before its work is done: lost nodes, hangs, waits without end.

Invariant: a clock counts against a gang only while this operator could have seen it move.
"""

from __future__ import annotations

from dataclasses import dataclass

from rft_operator.api.status import Attempt, ConditionStatus, ConditionType, Progress
from rft_operator.domain.draft import Draft
from rft_operator.domain.facts import PodFacts, PodPhase
from rft_operator.domain.failure import classify_pod, suspended_by_queue
from rft_operator.domain.gang import Gang
from rft_operator.domain.timestamps import epoch
from rft_trainer.contract import Stage
from rft_trainer.progress_report import LONG_PHASE_FACTOR, LONG_PHASES, MetricName


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """A reason to end the open attempt now."""

    reason: str
    message: str


COUNTED_STOPS = frozenset({"PendingTimeout", "PrepareTimeout", "StartupTimeout", "Stalled", "RankFailed"})
"""Stops that use up one of retries.maxRestarts; suspension, budget and node loss do not."""
PRICE_UNKNOWN = "PriceUnknown"
"""Reason of Accepted and WithinBudget: nothing starts, for nobody knows what it would cost."""
UNREADABLE = "Unreadable"
"""The run does not fit this operator's models: nobody knows what it should do."""
PUBLISH_CHANGED = "PublishChanged"
"""What is being published, or where to, is no longer what is asked for."""
DRAINING_STOPS = frozenset({"Suspended", "BudgetExhausted", UNREADABLE, PUBLISH_CHANGED})
"""Stops that are asked for, or no fault of the run's; the attempt then ended as Drained, not as Failed."""


RESOURCE_CLAIMS = "ResourceClaims"
FATAL_STOPS = frozenset({RESOURCE_CLAIMS})
"""Stops that another attempt would meet again."""


def trouble_stop(draft: Draft, attempt: Attempt, gang: Gang) -> Stop | None:
    """Return why the gang must be taken down, if it hangs, waits too long or lost a node."""
    claiming = next((pod for pod in gang.pods if pod.resource_claims), None)
    if claiming is not None:
        return Stop(reason=RESOURCE_CLAIMS, message=_claims_words(claiming))
    lost = [pod for pod in gang.pods if pod.uid in gang.lost]
    if lost:
        names = ", ".join(f"{pod.name} on node {pod.node}" for pod in lost)
        return Stop(reason="NodeLost", message=f"The node does not answer: {names}.")
    if gang.job is not None and gang.evicted:
        trouble = suspended_by_queue(gang.job)
        return Stop(reason=trouble.reason, message=trouble.message)
    if gang.waits_for_admission:
        return None
    return (
        _pending_stop(draft, attempt, gang)
        or _prepare_stop(draft, gang)
        or _silence_stop(draft, attempt, gang)
        or _half_dead_stop(draft, gang)
    )


def _claims_words(pod: PodFacts) -> str:
    """A device behind a claim may be a GPU that nobody has priced, so that the bill would be too low."""
    return (
        f"{pod.name} has the resource claims {', '.join(pod.resource_claims[:4])}, given by a webhook or a policy: "
        "devices of dynamic resource allocation have no price, so the run spends nothing on them. Keep the "
        "policy off pods labelled app.kubernetes.io/managed-by=rft-operator, or offer the GPUs as an extended resource "
        "(a DeviceClass with extendedResourceName) and name it in resources.gpuResource."
    )


def _pending_stop(draft: Draft, attempt: Attempt, gang: Gang) -> Stop | None:
    waiting = [pod for pod in gang.pods if pod.phase is PodPhase.PENDING]
    missing = gang.desired - len(gang.pods)
    if not waiting and missing <= 0:
        return None
    due = _incomplete_since(draft, attempt, gang) + draft.spec.timeouts.pending_seconds
    if draft.now < due:
        draft.wake(due)
        return None
    troubles = [trouble.message for pod in waiting if (trouble := classify_pod(pod)) is not None]
    within = draft.condition(ConditionType.WITHIN_BUDGET)
    if within is not None and within.reason == PRICE_UNKNOWN:  # the operator itself lets nothing start
        troubles = [within.message]
    why = troubles[0] if troubles else f"{len(waiting) + max(0, missing)} of {gang.desired} pods do not run."
    seconds = draft.spec.timeouts.pending_seconds
    return Stop(reason="PendingTimeout", message=f"Not started within {seconds} s: {why}")


def _incomplete_since(draft: Draft, attempt: Attempt, gang: Gang) -> int:
    """Return since when not all ranks run; a gang that ran and lost a pod waits anew, time in a queue is no wait."""
    running = draft.condition(ConditionType.RUNNING)
    if running is None or running.status is not ConditionStatus.FALSE:
        return draft.now
    admitted = gang.job.started_at if gang.job is not None else None
    return max(epoch(attempt.start_time), epoch(running.last_transition_time), admitted or 0)


def _prepare_stop(draft: Draft, gang: Gang) -> Stop | None:
    """A download, or a volume that no longer answers, may hang without an end; it costs nothing, and nobody is told."""
    if gang.stage is not Stage.PREPARE or not gang.all_running:
        return None
    seconds = draft.spec.timeouts.prepare_seconds
    due = _running_since(draft) + seconds
    if draft.now < due:
        draft.wake(due)
        return None
    return Stop(reason="PrepareTimeout", message=f"Not prepared within {seconds} s (timeouts.prepareSeconds).")


def _silence_stop(draft: Draft, attempt: Attempt, gang: Gang) -> Stop | None:
    if gang.stage is not Stage.TRAIN or draft.view.settings.progress_url is None or not gang.all_running:
        return None
    timeouts, progress, heard_since = draft.spec.timeouts, draft.status.progress, draft.view.listening_since
    reported = progress is not None and progress.stage == attempt.stage and progress.attempt == attempt.number
    phase = _long_phase(progress) if reported and progress is not None else None
    factor, during = (LONG_PHASE_FACTOR, f", times {LONG_PHASE_FACTOR} in the phase {phase}") if phase else (1, "")
    if reported and progress is not None and progress.step:
        seconds = factor * timeouts.stall_seconds
        due = max(epoch(progress.last_advance_time), heard_since) + seconds
        message = f"No step after step {progress.step} for {seconds} s (timeouts.stallSeconds{during})."
        stop = Stop(reason="Stalled", message=message)
    else:
        seconds = factor * timeouts.startup_seconds
        due = max(_running_since(draft), heard_since) + seconds
        message = f"No step within {seconds} s after all ranks ran (timeouts.startupSeconds{during})."
        stop = Stop(reason="StartupTimeout", message=message)
    if draft.now < due:
        draft.wake(due)
        return None
    return stop


def _long_phase(progress: Progress) -> str | None:
    """Return what the training does instead of steps: a large model's save may take longer than any step."""
    phases = (metric.value for metric in progress.metrics if metric.name == MetricName.PHASE)
    return next((phase for phase in phases if phase in LONG_PHASES), None)


def _running_since(draft: Draft) -> int:
    """Return since when all ranks' containers run, by the clock that is looked at here and not by those of nodes."""
    running = draft.condition(ConditionType.RUNNING)
    if running is None or running.status is not ConditionStatus.TRUE:
        return draft.now
    return epoch(running.last_transition_time)


def _half_dead_stop(draft: Draft, gang: Gang) -> Stop | None:
    """The Job controller takes the gang down when a rank fails; if it has not for long, the operator does."""
    failed = [pod for pod in gang.pods if pod.phase is PodPhase.FAILED]
    if not failed or not gang.live:
        return None
    first = min(pod.phase_written_at or pod.finished_at or draft.now for pod in failed)
    due = first + draft.spec.checkpoint.grace_seconds + 60
    if draft.now < due:
        draft.wake(due)
        return None
    return Stop(reason="RankFailed", message=f"{failed[0].name} failed and its peers did not end.")
