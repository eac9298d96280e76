"""A run's story as text: stages, GPU-hours, dollars, scores.

Invariant: every figure is read from the resource's status; nothing is computed that the operator did not record.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Attempt, ConditionStatus, ScoreResult
from rft_operator.domain.timestamps import epoch


def summary_line(run: ReasoningFinetune) -> str:
    """Return the run's state in one line, for watching."""
    status = run.status
    parts = [status.stage.value if status.stage is not None else "New"]
    if status.progress is not None and status.stage is not None and status.stage.value not in ("Complete", "Failed"):
        progress = status.progress
        steps = f" step {progress.step}/{progress.total_steps}" if progress.step is not None else ""
        loss = next((f" loss {each.value}" for each in progress.metrics if each.name == "loss"), "")
        parts.append(f"{progress.display}{steps}{loss}")
    if status.pods is not None and status.pods.desired:
        parts.append(f"{status.pods.display} pods ready")
    parts.append(f"{status.usage.gpu_hours} GPU-h")
    parts.append(f"{status.cost.display} of ${run.spec.budget.limit_usd}")
    if status.evaluation is not None and status.evaluation.display:
        parts.append(f"score {status.evaluation.display}")
    return ", ".join(parts)


def report(run: ReasoningFinetune) -> str:
    """Return the whole story."""
    return "\n".join(_lines(run)) + "\n"


def _lines(run: ReasoningFinetune) -> Iterator[str]:
    status, meta = run.status, run.metadata
    stage = status.stage.value if status.stage is not None else "New"
    yield f"{meta.namespace}/{meta.name}: {stage}{_took(status.start_time, status.completion_time)}"
    for condition in status.conditions:
        if condition.type.value in ("Accepted", "Failed") and _worth_saying(
            condition.type.value, condition.status, condition.message
        ):
            yield f"  {condition.reason}: {condition.message}"
    if status.attempts:
        yield ""
        yield from table([("STAGE", "ATTEMPT", "TOOK", "STEPS", "RESULT"), *(_attempt_row(a) for a in status.attempts)])
    yield ""
    yield from _money(run)
    yield from _scores(run)


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
    price = f" at ${_short(cost.usd_per_gpu_hour)} ({cost.price_source})" if cost.usd_per_gpu_hour else ""
    yield f"Cost   {cost.display} of ${run.spec.budget.limit_usd}: {usage.gpu_hours} GPU-hours{price}"
    shares = ", ".join(f"{each.stage} {each.gpu_seconds} s" for each in usage.by_stage)
    if shares:
        yield f"       GPU-seconds: {shares}"


def _scores(run: ReasoningFinetune) -> Iterator[str]:
    evaluation = run.status.evaluation
    for result in evaluation.results if evaluation is not None else ():
        before = f"{_short(result.baseline)} before, " if result.baseline is not None else ""
        error = f" ± {_short(result.stderr)}" if result.stderr is not None else ""
        yield (
            f"Score  {result.benchmark} {result.metric}: {before}{_short(result.value)}{error} after training "
            f"({result.questions} questions)"
        )
        yield from _certainty(result)


def _certainty(result: ScoreResult) -> Iterator[str]:
    parts = []
    if result.verdict is not None:
        parts.append(result.verdict.value)
    if result.wins is not None and result.losses is not None:
        parts.append(f"{result.wins} better, {result.losses} worse")
    if result.p_value is not None:
        parts.append("p < 0.0001" if result.p_value == "0.0000" else f"p {_short(result.p_value)}")
    if result.interval_low is not None:
        parts.append(f"95 % interval {_short(result.interval_low)} to {_short(result.interval_high)}")
    if result.no_answer:
        parts.append(f"{result.no_answer} of {result.questions * result.samples} answers missing")
    if parts:
        yield f"       {'; '.join(parts)}"


def _short(number: str | None) -> str:
    """Drop trailing zeros but keep two decimals: 2.950000 becomes 2.95."""
    whole, _, fraction = (number or "0").partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"


def _took(start: str | None, end: str | None) -> str:
    return f" after {_duration(start, end)}" if start is not None and end is not None else ""


def _duration(start: str, end: str | None) -> str:
    if end is None:
        return ""
    seconds = epoch(end) - epoch(start)
    if seconds < 120:
        return f"{seconds} s"
    return (
        f"{seconds // 60} min {seconds % 60} s"
        if seconds < 7_200
        else f"{seconds // 3_600} h {seconds % 3_600 // 60} min"
    )


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
