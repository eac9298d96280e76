"""How a run's money went over time, and the lines that it must not cross.

Invariant: the last point is the ledger's own sum, and each stage's share is the ledger's; only where within a stage the
money went is spread over its attempts by the GPU time that they held, for a folded ledger no longer knows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Attempt
from rft_operator.domain.bill import SECONDS_PER_HOUR, bill
from rft_operator.domain.budget import grace_seconds, stage_gpus, stop_bound_seconds
from rft_operator.domain.money import micro_of_text, micro_usd
from rft_operator.domain.show_money import LONGEST_ETA_SECONDS
from rft_operator.domain.timestamps import epoch
from rft_trainer.contract import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class SpendPoint:
    """What was spent at an instant."""

    at: int
    micro_usd: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Levels that the spending is held against, in micro-dollars."""

    limit: int
    reserve: int
    stop: int | None
    """Training stops here, so that its stop and the evaluation fit under the limit; None while no price is known."""
    forecast: int | None
    forecast_at: int | None
    """When the stage ends, as its trainer estimated it last."""


def spend_points(run: ReasoningFinetune, *, now: int) -> tuple[SpendPoint, ...]:
    """Return the spending over time, corner by corner; nothing before the first GPU was held."""
    found = bill(run.status.ledger, now=now)
    held = [each for each in run.status.attempts if each.gpus]
    parts: list[tuple[int, int, int]] = []
    for stage, share in found.by_stage.items():
        own = [each for each in held if each.stage == stage]
        parts += _spread(own, share.amount, now=now)
    parts.sort()
    if not parts:
        return ()
    points = [SpendPoint(at=parts[0][0], micro_usd=0)]
    amount = 0
    for start, end, part in parts:
        points.append(SpendPoint(at=max(start, points[-1].at), micro_usd=_micro(amount)))
        amount += part
        points.append(SpendPoint(at=max(end, points[-1].at), micro_usd=_micro(amount)))
    last = SpendPoint(at=points[-1].at, micro_usd=found.spent_micro_usd)
    return (*points[:-1], last)


def _spread(attempts: Sequence[Attempt], amount: int, *, now: int) -> list[tuple[int, int, int]]:
    """Return (start, end, amount) of each attempt of a stage; the last takes what the division leaves."""
    spans = [(epoch(each.start_time), epoch(each.end_time) if each.end_time else now) for each in attempts]
    weights = [(each.gpus or 0) * max(1, end - start) for each, (start, end) in zip(attempts, spans, strict=True)]
    total, left, parts = sum(weights), amount, []
    for (start, end), weight in zip(spans, weights, strict=True):
        part = amount * weight // total
        left -= part
        parts.append([start, end, part])
    if parts:
        parts[-1][2] += left
    return [(start, end, part) for start, end, part in parts]


def _micro(amount: int) -> int:
    return -(-amount // SECONDS_PER_HOUR)


def lines_of(run: ReasoningFinetune) -> Lines:
    """Return the limit, the reserve, the stop line of training, and the forecast."""
    cost, spec, saved = run.status.cost, run.spec, run.status.checkpoint
    limit = micro_usd(spec.budget.limit_usd)
    reserve = micro_of_text(cost.reserve_usd) if cost.reserve_usd is not None else 0
    stop = None
    if cost.usd_per_gpu_hour is not None:
        grace = grace_seconds(spec, Stage.TRAIN, save_seconds=saved.save_seconds if saved is not None else None)
        hourly = stage_gpus(spec, Stage.TRAIN) * micro_of_text(cost.usd_per_gpu_hour)
        stop = max(0, limit - reserve - _micro(hourly * stop_bound_seconds(grace)))
    forecast = micro_of_text(cost.forecast_usd) if cost.forecast_usd is not None else None
    progress = run.status.progress
    ends = None
    if forecast is not None and progress is not None and progress.eta_seconds is not None:
        ends = epoch(progress.last_report_time) + min(progress.eta_seconds, LONGEST_ETA_SECONDS)
    return Lines(limit=limit, reserve=reserve, stop=stop, forecast=forecast, forecast_at=ends)
