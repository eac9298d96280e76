"""What people want to know of a run at a moment: where it is, how long it takes, what it costs now, when it must stop.

Invariant: money is the ledger's at that moment, to the second; nothing else is computed that the operator did not
record but the time that has passed since.
"""

from __future__ import annotations

from dataclasses import dataclass

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import ConditionStatus, ConditionType
from rft_operator.domain.bill import bill
from rft_operator.domain.draft import condition_of, is_over
from rft_operator.domain.money import micro_of_text, micro_usd
from rft_operator.domain.timestamps import epoch

WAITS = {
    ConditionType.SCHEDULED: ("Unschedulable", "GangIncomplete", "WaitingForQuota", "JobSuspended"),
    ConditionType.RUNNING: ("ImagePullBackOff", "ContainerConfigError", "CrashLoopBackOff"),
    ConditionType.PROGRESSING: ("BackOff", "LedgerFull"),
}
"""Reasons for which a run waits, and not only for a moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A run at a moment."""

    namespace: str
    name: str
    stage: str
    is_over: bool
    percent: int | None
    steps: str | None
    loss: str | None
    eta_seconds: int | None
    """Of the stage, as the trainer estimated it."""
    pods: str
    rate_micro_usd: int
    """Per hour, of all that holds GPUs."""
    gpu_seconds: int
    spent_micro_usd: int
    limit_micro_usd: int
    forecast_micro_usd: int | None
    stop_in_seconds: int | None
    """Until the stop line is reached."""
    restarts: int
    score: str
    age_seconds: int
    why: str
    """What it waits for, or why it ended."""


def figures(run: ReasoningFinetune, *, now: int) -> Figures:
    """Return the figures of a run at an instant of the API server's clock."""
    status, cost, meta = run.status, run.status.cost, run.metadata
    found, over = bill(status.ledger, now=now), is_over(status)
    progress = None if over else status.progress
    eta = None
    if progress is not None and progress.eta_seconds is not None:
        eta = max(0, progress.eta_seconds - max(0, now - epoch(progress.last_report_time)))
    metrics = {each.name: each.value for each in progress.metrics} if progress is not None else {}
    stepping = progress is not None and progress.step is not None
    return Figures(
        namespace=meta.namespace,
        name=meta.name,
        stage=status.stage.value if status.stage is not None else "New",
        is_over=over,
        percent=progress.percent if progress is not None else 100 if over and stage_is_complete(run) else None,
        steps=f"{progress.step}/{progress.total_steps}" if stepping and progress is not None else None,
        loss=metrics.get("loss"),
        eta_seconds=eta,
        pods=status.pods.display if status.pods is not None and status.pods.desired else "",
        rate_micro_usd=found.rate,
        gpu_seconds=found.gpu_seconds,
        spent_micro_usd=found.spent_micro_usd,
        limit_micro_usd=micro_usd(run.spec.budget.limit_usd),
        forecast_micro_usd=micro_of_text(cost.forecast_usd) if cost.forecast_usd is not None and not over else None,
        stop_in_seconds=max(0, epoch(cost.stop_time) - now) if cost.stop_time is not None and found.rate else None,
        restarts=status.restarts.total,
        score=status.evaluation.display if status.evaluation is not None else "",
        age_seconds=max(0, now - epoch(meta.creation_timestamp)) if meta.creation_timestamp else 0,
        why=why(run),
    )


def stage_is_complete(run: ReasoningFinetune) -> bool:
    """Return whether a run completed."""
    found = condition_of(run.status, ConditionType.COMPLETE)
    return found is not None and found.status is ConditionStatus.TRUE


def why(run: ReasoningFinetune) -> str:
    """Return the reason that matters most now, with its message; nothing while all goes well."""
    wanted = (
        (ConditionType.FAILED, ConditionStatus.TRUE),
        (ConditionType.BUDGET_AT_RISK, ConditionStatus.TRUE),
        (ConditionType.SUSPENDED, ConditionStatus.TRUE),
        (ConditionType.ACCEPTED, ConditionStatus.FALSE),
    )
    for type_, status in wanted:
        found = condition_of(run.status, type_)
        if found is not None and found.status is status:
            return f"{found.reason}: {found.message}" if found.message else found.reason
    for type_, reasons in WAITS.items():
        found = condition_of(run.status, type_)
        if found is not None and found.status is ConditionStatus.FALSE and found.reason in reasons:
            return f"{found.reason}: {found.message}"
    budget = condition_of(run.status, ConditionType.WITHIN_BUDGET)
    if budget is not None and not is_over(run.status) and budget.reason == "ForecastOverLimit":
        return f"{budget.reason}: {budget.message}"
    return ""
