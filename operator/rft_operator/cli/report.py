"""A run's story as text: stages, GPU-hours, dollars, scores.

Invariant: every figure is read from the resource's status; nothing is computed that the operator did not record.
"""

from __future__ import annotations

from collections.abc import Iterator

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Attempt, ConditionStatus
from rft_operator.cli.output import harmless, short_number, span, table
from rft_operator.cli.report_scores import score_lines
from rft_operator.domain.timestamps import epoch
from rft_operator.report.story import Story


def report(run: ReasoningFinetune) -> str:
    """Return the whole story."""
    return harmless("\n".join(_lines(run))) + "\n"


def _lines(run: ReasoningFinetune) -> Iterator[str]:
    status, meta = run.status, run.metadata
    stage = status.stage.value if status.stage is not None else "New"
    yield f"{meta.namespace}/{meta.name}: {stage}{_took(status.start_time, status.completion_time)}"
    for condition in status.conditions:
        if condition.type.value in ("Accepted", "Complete", "Failed") and _worth_saying(
            condition.type.value, condition.status, condition.message
        ):
            yield f"  {condition.reason}: {condition.message}"
    if status.attempts:
        yield ""
        yield from table([("STAGE", "ATTEMPT", "TOOK", "STEPS", "RESULT"), *(_attempt_row(a) for a in status.attempts)])
    yield ""
    yield from _money(run)
    yield from score_lines(run.status.evaluation)


def _worth_saying(type_: str, status: ConditionStatus, message: str) -> bool:
    wanted = ConditionStatus.FALSE if type_ == "Accepted" else ConditionStatus.TRUE
    return status is wanted and bool(message)


def _attempt_row(attempt: Attempt) -> tuple[str, ...]:
    steps = ""
    if attempt.end_step is not None:
        steps = f"{attempt.start_step or 0}-{attempt.end_step}"
    outcome = attempt.outcome.value if attempt.outcome is not None else "running"
    reason = f" ({attempt.reason})" if attempt.reason not in (None, outcome) else ""
    return attempt.stage, str(attempt.number), _duration(attempt.start_time, attempt.end_time), steps, outcome + reason


def _money(run: ReasoningFinetune) -> Iterator[str]:
    cost, usage = run.status.cost, run.status.usage
    price = f" at ${short_number(cost.usd_per_gpu_hour)} ({cost.price_source})" if cost.usd_per_gpu_hour else ""
    yield f"Cost   {cost.display} of ${run.spec.budget.limit_usd}: {usage.gpu_hours} GPU-hours{price}"
    shares = ", ".join(f"{each.stage} {each.gpu_seconds} s" for each in usage.by_stage)
    if shares:
        yield f"       GPU-seconds: {shares}"


def _took(start: str | None, end: str | None) -> str:
    return f" after {_duration(start, end)}" if start is not None and end is not None else ""


def _duration(start: str, end: str | None) -> str:
    return "" if end is None else span(epoch(end) - epoch(start))


def folder_report(story: Story) -> str:
    """Return what a run's folder tells, as text."""
    return harmless("\n".join(_folder_lines(story))) + "\n"


def _folder_lines(story: Story) -> Iterator[str]:
    yield f"{story.title}: {story.state}"
    if story.facts:
        yield ""
        yield from table([*story.facts])
    yield ""
    if story.losses:
        first, last = story.losses[0], story.losses[-1]
        total = f" of {story.total_steps}" if story.total_steps else ""
        yield f"Loss   {first.loss:.4g} at step {first.step}, {last.loss:.4g} at step {last.step}{total}"
    else:
        yield f"Loss   {story.losses_note}"
    yield f"Cost   {story.money_note}"
    yield from score_lines(story.evaluation)
    if story.evaluation is None:
        yield f"Score  {story.scores_note}"
