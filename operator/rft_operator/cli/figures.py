"""The figures of a run as people read them: a line for logs, a row for tables.

Invariant: nothing is computed here; every figure is one of :mod:`rft_operator.domain.figures`.
"""

from __future__ import annotations

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.cli.output import age, one_line, span
from rft_operator.domain.bill import hours_text
from rft_operator.domain.figures import Figures, figures
from rft_operator.domain.money import usd_display

NONE = "-"


def summary_line(run: ReasoningFinetune, *, now: int) -> str:
    """Return the run's state in one line, for logs and terminals that cannot draw."""
    it = figures(run, now=now)
    parts = [it.stage]
    if it.percent is not None and not it.is_over:
        steps = f" step {it.steps}" if it.steps is not None else ""
        loss = f" loss {it.loss}" if it.loss is not None else ""
        parts.append(f"{it.percent}%{steps}{loss}")
    if it.eta_seconds is not None:
        parts.append(f"ETA {span(it.eta_seconds)}")
    if it.pods:
        parts.append(f"{it.pods} pods ready")
    parts.append(f"{hours_text(it.gpu_seconds)} GPU-h")
    parts.append(f"{usd_display(it.spent_micro_usd)} of {usd_display(it.limit_micro_usd)}")
    if it.rate_micro_usd:
        parts.append(f"{usd_display(it.rate_micro_usd)}/h")
    if it.stop_in_seconds is not None:
        parts.append(f"stop line in {span(it.stop_in_seconds)}")
    if it.score:
        parts.append(f"score {it.score}")
    if it.why and not it.is_over:
        parts.append(it.why)
    return one_line(", ".join(parts))


HEAD = ("STAGE", "PROGRESS", "SPENT", "LIMIT", "GPU-H", "NODES", "RESTARTS", "SCORE", "AGE")
WIDE_HEAD = ("ETA", "$/H", "FORECAST", "STOP-LINE", "WHY")


def cells(it: Figures, *, wide: bool) -> tuple[str, ...]:
    """Return a row of ``rft get``, in the order of its heads."""
    row = (
        it.stage,
        f"{it.percent}%" if it.percent is not None else NONE,
        usd_display(it.spent_micro_usd),
        usd_display(it.limit_micro_usd),
        hours_text(it.gpu_seconds),
        it.pods or NONE,
        str(it.restarts),
        it.score or NONE,
        age(it.age_seconds),
    )
    if not wide:
        return row
    return (
        *row,
        age(it.eta_seconds) if it.eta_seconds is not None else NONE,
        usd_display(it.rate_micro_usd) if it.rate_micro_usd else NONE,
        usd_display(it.forecast_micro_usd) if it.forecast_micro_usd is not None else NONE,
        age(it.stop_in_seconds) if it.stop_in_seconds is not None else NONE,
        it.why or NONE,
    )
