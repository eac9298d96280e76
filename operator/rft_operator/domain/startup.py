"""How long a gang is paid for before it does any work: measured on each attempt, expected of the next (E2).

Invariant: an instant goes on record once, with a write that is made anyway: when the pods are bound, run, or report.
"""

from __future__ import annotations

from rft_operator.api.status import Attempt
from rft_operator.domain.draft import Draft
from rft_operator.domain.gang import gang_of
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_trainer.contract import Stage


def remember_start(draft: Draft) -> None:
    """Put on record when the open attempt's first pod was bound, and when its last rank's container started."""
    attempt = draft.open_attempt()
    if attempt is None:
        return
    gang = gang_of(draft, attempt)
    bound = [pod.scheduled_at for pod in gang.pods if pod.scheduled_at is not None]
    found: dict[str, str] = {}
    if attempt.bound_time is None and attempt.gpus and bound:
        found["bound_time"] = rfc3339(min(bound))
    if attempt.running_time is None and gang.started_at is not None:
        # It is on a node's clock: one that is ahead would make the next start-up look too long to be paid for.
        found["running_time"] = rfc3339(min(gang.started_at, draft.now))
    if found:
        draft.replace_attempt(attempt.model_copy(update=found))


def remember_first_step(draft: Draft, attempt: Attempt) -> Attempt:
    """Put on record when the open attempt first reported a step; return it."""
    progress = draft.status.progress
    if attempt.first_step_time is not None or progress is None:
        return attempt
    mine = (progress.stage, progress.attempt) == (attempt.stage, attempt.number)
    if not mine or attempt.stage != Stage.TRAIN or (progress.step or 0) <= (attempt.start_step or 0):
        return attempt
    attempt = attempt.model_copy(update={"first_step_time": progress.last_advance_time})
    draft.replace_attempt(attempt)
    return attempt


def startup_seconds(attempt: Attempt) -> int | None:
    """Return how long an attempt was paid for before its first step, or at least before all of its ranks ran."""
    ready = attempt.first_step_time or attempt.running_time
    if attempt.bound_time is None or ready is None:
        return None
    return max(0, epoch(ready) - epoch(attempt.bound_time))


def expected_startup_seconds(draft: Draft, stage: Stage) -> int:
    """Return the start-up of the next attempt of a stage: as the last one took, else as the operator is told.

    An evaluation's bound (evaluation.maxSeconds) has its start-up in it.
    """
    if stage is not Stage.TRAIN:
        return 0
    measured = [seconds for each in draft.attempts_of(stage) if (seconds := startup_seconds(each)) is not None]
    expected = measured[-1] if measured else draft.view.settings.expected_startup_seconds
    return min(expected, draft.spec.timeouts.startup_seconds)
