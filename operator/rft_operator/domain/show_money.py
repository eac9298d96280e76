"""How the run's money is shown: sums, forecast, warnings, and the word when the limit cannot be held.

Invariant: the shown sums are refreshed together with other changes, or once per ``Settings.progress_write_seconds``
while pods hold GPUs, so that they cost no extra writes; each warning is an Event once.
"""

from __future__ import annotations

from rft_operator.api.ledger import WasteReason
from rft_operator.api.status import Attempt, ConditionStatus, ConditionType, Cost, StageUsage, Usage, WasteUsage
from rft_operator.domain.bill import hours_text
from rft_operator.domain.budget import CPU_STAGES, RAISE, forecast_micro_usd, thresholds_crossed
from rft_operator.domain.draft import Draft, is_over, is_true
from rft_operator.domain.gang import Gang
from rft_operator.domain.money import micro_of_text, usd_display, usd_text
from rft_operator.domain.money_state import Money, held_schedule
from rft_operator.domain.stops import PRICE_UNKNOWN
from rft_operator.domain.team_money import in_a_team
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_trainer.contract import Stage

LIMIT_PERCENT = 100
PRICE_RETRY_SECONDS = 30
LONGEST_ETA_SECONDS = 10 * 365 * 86_400
"""A trainer's estimate is its word, not to be trusted: a forecast beyond ten years says nothing more."""


def announce_money(draft: Draft, money: Money) -> None:
    """Emit an Event for each threshold that was passed and for a forecast above the limit, once; set conditions."""
    spent, limit = usd_display(money.bill.spent_micro_usd), usd_display(money.limit_micro_usd)
    cost = draft.status.cost
    spent_micro, limit_micro = money.bill.spent_micro_usd, money.limit_micro_usd
    # A raised limit takes back what is no longer true, an edit of the list what is no longer asked for.
    asked = draft.spec.budget.warn_at_percent
    already = [each for each in cost.warned_at_percent if each in asked and spent_micro * 100 >= limit_micro * each]
    for percent in thresholds_crossed(
        draft.spec,
        limit_micro_usd=limit_micro,
        spent_micro_usd=spent_micro,
        already=already,
    ):
        already.append(percent)
        draft.emit("Warning", f"BudgetWarning{percent}", f"{percent} % of the budget is spent: {spent} of {limit}.")
    forecast = forecast_of(draft, money)
    over = forecast is not None and forecast > money.limit_micro_usd
    expected = _announce_forecast(draft, forecast, limit_micro_usd=limit_micro, spent_percent=max(already, default=0))
    if (already, expected) != (cost.warned_at_percent, cost.forecast_warned_at_percent):
        update = {"warned_at_percent": already, "forecast_warned_at_percent": expected}
        draft.update(cost=cost.model_copy(update=update))
    if draft.holds(ConditionType.WITHIN_BUDGET):
        if over:
            message = f"status.cost.forecastUSD is above the limit: {_what_is_stopped(draft)}."
            draft.set_condition(ConditionType.WITHIN_BUDGET, True, "ForecastOverLimit", message)
        elif already:
            draft.set_condition(ConditionType.WITHIN_BUDGET, True, f"Spent{max(already)}Percent")
        else:
            draft.set_condition(ConditionType.WITHIN_BUDGET, True, "WithinLimit")


def _announce_forecast(draft: Draft, forecast: int | None, *, limit_micro_usd: int, spent_percent: int) -> list[int]:
    """Emit an Event for the highest threshold that the forecast reached anew (E6); return all it has reached.

    A threshold that the money spent has passed already says nothing new.
    """
    told = draft.status.cost.forecast_warned_at_percent
    if forecast is None:
        return list(told)
    limit = usd_display(limit_micro_usd)
    reached = thresholds_crossed(draft.spec, limit_micro_usd=limit_micro_usd, spent_micro_usd=forecast, already=())
    if forecast > limit_micro_usd:
        reached = (*reached, LIMIT_PERCENT)
    news = [percent for percent in reached if percent not in told and percent > spent_percent]
    if LIMIT_PERCENT in news:
        words = f"The run is going to cost {usd_display(forecast)}, the limit is {limit}: {_what_is_stopped(draft)}. "
        draft.emit("Warning", "ForecastOverLimit", in_a_team(draft, words + RAISE))
    elif news:
        words = f"The run is going to cost {usd_display(forecast)}, more than {news[-1]} % of its limit of {limit}."
        draft.emit("Normal", f"Forecast{news[-1]}Percent", words)
    # One that the forecast has left only just is kept, so that no wavering is announced twice.
    asked = (*draft.spec.budget.warn_at_percent, LIMIT_PERCENT)
    kept = [percent for percent in told if percent in asked and forecast * 1_000 >= limit_micro_usd * percent * 9]
    return sorted({*reached, *kept})


def show_risk(draft: Draft, money: Money) -> None:
    """Write the condition BudgetAtRisk (E10): GPUs that cannot be taken back are never hidden."""
    over = money.bill.spent_micro_usd - money.limit_micro_usd
    disputed = [entry for entry in draft.status.ledger.open if entry.disputed_since is not None]
    if disputed:
        nodes = sorted({entry.node for entry in disputed})
        hourly = sum(entry.gpus * entry.micro_usd_per_gpu_hour for entry in disputed)
        message = (
            f"{', '.join(nodes[:4])} does not answer and holds {sum(entry.gpus for entry in disputed)} GPUs, which go "
            f"on being charged, {usd_display(hourly)} per hour, until the node answers or its Node object is deleted."
        )
        risk, reason = True, "NodeUnreachable"
    elif over > 0:
        risk, reason, message = True, "LimitExceeded", f"{usd_display(over)} were spent beyond the limit."
    else:
        risk, reason, message = False, "UnderControl", ""
    old = draft.condition(ConditionType.BUDGET_AT_RISK)
    if risk and (old is None or old.reason != reason):
        draft.emit("Warning", "BudgetAtRisk", message)
    draft.set_condition(ConditionType.BUDGET_AT_RISK, risk, reason, message)


def show_no_price(draft: Draft) -> None:
    """Say that nothing starts for want of a price (M11)."""
    message = (
        "The pool has no known price: add an entry that fits its nodes to the catalogue, or renew one that is too old "
        "(Helm value prices). The run goes on by itself."
    )
    draft.set_condition(ConditionType.WITHIN_BUDGET, ConditionStatus.UNKNOWN, PRICE_UNKNOWN, message)
    draft.wake(draft.now + PRICE_RETRY_SECONDS)


def show_price(draft: Draft, gang: Gang, money: Money) -> None:
    """Say so too of an attempt whose price was lost before its pods could be made, or let out of their gates."""
    within = draft.condition(ConditionType.WITHIN_BUDGET)
    waits = (gang.job is None and not gang.pods) or any(pod.gated for pod in gang.pods)
    if money.rate is None and waits and gang.stage not in CPU_STAGES:
        show_no_price(draft)
    elif money.rate is not None and within is not None and within.status is ConditionStatus.UNKNOWN:
        draft.set_condition(ConditionType.WITHIN_BUDGET, True, "WithinLimit")


def forecast_of(draft: Draft, money: Money) -> int | None:
    """Return micro-dollars at the end of the run if it goes on as now; the last forecast while nothing is reported.

    Attempts that end before they report spend all the same: it never says less than is spent.
    """
    if is_over(draft.status):
        return None
    attempt, progress = draft.open_attempt(), draft.status.progress
    former = draft.status.cost.forecast_usd
    last = max(micro_of_text(former), money.bill.spent_micro_usd) if former is not None else None
    if attempt is None or progress is None or (progress.stage, progress.attempt) != (attempt.stage, attempt.number):
        return last
    if progress.eta_seconds is None or not money.bill.rate:
        return last
    elapsed = draft.now - epoch(progress.last_report_time)
    eta_seconds = max(0, progress.eta_seconds - max(0, elapsed))
    reserve = 0 if attempt.stage in (Stage.EVALUATE, Stage.SCORE, Stage.PUBLISH) else money.reserve_micro_usd
    return forecast_micro_usd(
        money.bill,
        ahead=held_schedule(draft),
        eta_seconds=min(eta_seconds, _longest_seconds(draft, attempt)),
        reserve_micro_usd=reserve,
    )


def _longest_seconds(draft: Draft, attempt: Attempt) -> int:
    """Return how long an attempt can still take; an evaluation ends with its own bound, whatever it would need."""
    evaluation = draft.spec.evaluation
    if attempt.stage != Stage.EVALUATE or evaluation is None or attempt.bound_time is None:
        return LONGEST_ETA_SECONDS
    return max(0, epoch(attempt.bound_time) + evaluation.max_seconds - draft.now)


def _what_is_stopped(draft: Draft) -> str:
    attempt = draft.open_attempt()
    if draft.holds(ConditionType.TRAINED) or (attempt is not None and attempt.stage == Stage.EVALUATE):
        return "the evaluation will be stopped before its last answer"
    return "training will be stopped with a checkpoint before it is done"


def show_money(draft: Draft, money: Money, *, stop_at: int | None) -> None:
    """Write usage and cost if anything else changed, money was booked, or a minute has passed."""
    interval = draft.view.settings.progress_write_seconds
    holding = bool(draft.status.ledger.open)
    usage, cost = _usage(draft, money), _cost(draft, money, stop_at=stop_at)
    if holding:
        if draft.status == draft.recorded and draft.recorded.usage.metered_until is not None:
            due = epoch(draft.recorded.usage.metered_until) + interval
            if draft.now < due:
                draft.wake(due)
                return
        draft.wake(draft.now + interval)
    draft.update(usage=usage, cost=cost)


def _usage(draft: Draft, money: Money) -> Usage:
    bill, old = money.bill, draft.status.usage
    moved = bill.gpu_seconds != old.gpu_seconds or draft.status.ledger != draft.recorded.ledger
    return Usage(
        gpu_seconds=bill.gpu_seconds,
        gpu_hours=hours_text(bill.gpu_seconds),
        by_stage=[
            StageUsage(stage=stage, gpu_seconds=share.gpu_seconds, spent_usd=usd_text(share.micro_usd))
            for stage, share in sorted(bill.by_stage.items())
        ],
        waste=[
            WasteUsage(reason=WasteReason(reason), gpu_seconds=share.gpu_seconds, spent_usd=usd_text(share.micro_usd))
            for reason, share in sorted(money.waste.items())
        ],
        estimated_gpu_seconds=bill.estimated_gpu_seconds,
        disputed_gpu_seconds=bill.disputed_gpu_seconds,
        metered_until=draft.now_text if moved else old.metered_until,
    )


def _cost(draft: Draft, money: Money, *, stop_at: int | None) -> Cost:
    spent = money.bill.spent_micro_usd
    old, forecast = draft.status.cost, forecast_of(draft, money)
    # Of a run that is complete it says what it was told, and no edit of the prices writes to it any more.
    rate = money.rate if not is_true(draft.recorded, ConditionType.COMPLETE) else None
    return Cost(
        spent_usd=usd_text(spent),
        spent_micro_usd=spent,
        display=usd_display(spent),
        rate_usd_per_hour=usd_text(money.bill.rate),
        usd_per_gpu_hour=usd_text(rate.micro_usd_per_gpu_hour) if rate else old.usd_per_gpu_hour,
        price_source=rate.source if rate else old.price_source,
        reserve_usd=usd_text(money.reserve_micro_usd) if rate else old.reserve_usd,
        remaining_usd=usd_text(max(0, money.limit_micro_usd - spent)),
        forecast_usd=usd_text(forecast) if forecast is not None else None,
        ended_at_limit_usd=old.ended_at_limit_usd,
        overshoot_usd=usd_text(max(0, spent - money.limit_micro_usd)),
        stop_time=rfc3339(stop_at) if stop_at is not None else None,
        warned_at_percent=old.warned_at_percent,
        forecast_warned_at_percent=old.forecast_warned_at_percent,
    )
