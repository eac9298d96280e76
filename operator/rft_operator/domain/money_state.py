"""The run's money at this instant: price, bill, reserve, stop line; and how it is shown.

Invariant: the ledger is the only source of what was spent. The shown sums are refreshed together with other
changes, or once per ``Settings.progress_write_seconds`` while pods hold GPUs, so that they cost no extra writes.
"""

from __future__ import annotations

from dataclasses import dataclass

from rft_operator.api.status import Cost, Ledger, StageUsage, Usage
from rft_operator.domain.budget import (
    BudgetState,
    assess,
    evaluation_reserve,
    stage_gpus,
    stop_bound_seconds,
    thresholds_crossed,
)
from rft_operator.domain.draft import Draft
from rft_operator.domain.facts import PodFacts
from rft_operator.domain.ledger import Bill, bill, next_ledger
from rft_operator.domain.money import micro_usd, usd_display, usd_text
from rft_operator.domain.prices import Rate, rate_of_node, rate_of_pool
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_trainer.contract import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Everything a decision about money needs."""

    rate: Rate | None
    """Price of a GPU-hour of the pool; None: unknown, nothing may start."""
    bill: Bill
    limit_micro_usd: int
    reserve_micro_usd: int


def pool_rate(draft: Draft) -> Rate | None:
    """Return the dearest rate the next pod may be bound at; the rate on record if the pool is empty now."""
    view, spec = draft.view, draft.spec
    rate = rate_of_pool(
        view.nodes,
        node_selector=spec.scheduling.node_selector,
        gpu_resource=spec.resources.gpu_resource,
        spec_price=spec.budget.usd_per_gpu_hour,
        catalogue=view.catalogue,
        at=draft.now,
    )
    return rate if rate is not None else _recorded_rate(draft)


def _recorded_rate(draft: Draft) -> Rate | None:
    cost = draft.recorded.cost
    if cost.usd_per_gpu_hour is None or draft.recorded.start_time is None:
        return None
    return Rate(micro_usd_per_gpu_hour=micro_usd(cost.usd_per_gpu_hour), source=cost.price_source or "recorded")


def _dearer(rate: Rate, other: Rate | None) -> Rate:
    return max(rate, other or rate, key=lambda each: each.micro_usd_per_gpu_hour)


def meter(draft: Draft) -> Money:
    """Bring the ledger up to date with the pods and return the run's money."""
    view, spec = draft.view, draft.spec
    rate = pool_rate(draft)
    nodes = {node.name: node for node in view.nodes}

    def rate_of(pod: PodFacts) -> Rate | None:
        node = nodes.get(pod.node or "")
        if node is None:
            return None
        return rate_of_node(
            node,
            gpu_resource=spec.resources.gpu_resource,
            spec_price=spec.budget.usd_per_gpu_hour,
            catalogue=view.catalogue,
            at=pod.scheduled_at or draft.now,
        )

    ledger: Ledger = draft.status.ledger
    if rate is not None:
        fallback = _dearer(rate, _recorded_rate(draft))
        ledger = next_ledger(ledger, pods=view.children.pods, rate_of=rate_of, fallback=fallback, now=draft.now)
        draft.update(ledger=ledger)
    return Money(
        rate=rate,
        bill=bill(ledger, now=draft.now),
        limit_micro_usd=micro_usd(spec.budget.limit_usd),
        reserve_micro_usd=evaluation_reserve(spec, rate=rate) if rate is not None else 0,
    )


def budget_state(draft: Draft, money: Money, *, stage: Stage, attempt: int) -> BudgetState:
    """Return where the stop line is for an attempt; the evaluation spends the reserve, so it keeps none."""
    held = sum(e.gpus for e in draft.status.ledger.open if (e.stage, e.attempt) == (stage.value, attempt))
    unbound = max(0, stage_gpus(draft.spec, stage) - held)
    return assess(
        money.bill,
        limit_micro_usd=money.limit_micro_usd,
        reserve_micro_usd=0 if stage is Stage.EVALUATE else money.reserve_micro_usd,
        unbound_rate=unbound * (money.rate.micro_usd_per_gpu_hour if money.rate else 0),
        bound_seconds=stop_bound_seconds(draft.spec, stage),
        now=draft.now,
    )


def announce_thresholds(draft: Draft, money: Money) -> None:
    """Emit an Event for each percentage of the limit that was passed, once."""
    spent = money.bill.spent_micro_usd
    already = draft.status.cost.warned_at_percent
    for percent in thresholds_crossed(draft.spec, spent_micro_usd=spent, already=already):
        already = [*already, percent]
        draft.emit(
            "Warning",
            f"BudgetWarning{percent}",
            f"{percent} % of the budget is spent: {usd_display(spent)} of {usd_display(money.limit_micro_usd)}.",
        )
    if already != draft.status.cost.warned_at_percent:
        draft.update(cost=draft.status.cost.model_copy(update={"warned_at_percent": already}))


def show_money(draft: Draft, money: Money, *, stop_at: int | None) -> None:
    """Write usage and cost if anything else changed, money was booked, or a minute has passed."""
    interval = draft.view.settings.progress_write_seconds
    holding = bool(draft.status.ledger.open)
    usage, cost = _usage(draft, money), _cost(draft, money, stop_at=stop_at)
    if holding:
        if draft.status == draft.recorded and draft.recorded.usage.metered_until is not None:
            due = _metered_at(draft.recorded.usage) + interval
            if draft.now < due:
                draft.wake(due)
                return
        draft.wake(draft.now + interval)
    draft.update(usage=usage, cost=cost)


def _metered_at(usage: Usage) -> int:
    return epoch(usage.metered_until) if usage.metered_until else 0


def _usage(draft: Draft, money: Money) -> Usage:
    seconds = money.bill.gpu_seconds
    old = draft.status.usage
    moved = seconds != old.gpu_seconds or draft.status.ledger != draft.recorded.ledger
    return Usage(
        gpu_seconds=seconds,
        gpu_hours=money.bill.gpu_hours_text,
        by_stage=[StageUsage(stage=stage, gpu_seconds=value) for stage, value in sorted(money.bill.by_stage.items())],
        metered_until=draft.now_text if moved else old.metered_until,
    )


def _cost(draft: Draft, money: Money, *, stop_at: int | None) -> Cost:
    spent = money.bill.spent_micro_usd
    old = draft.status.cost
    rate = money.rate
    return Cost(
        spent_usd=usd_text(spent),
        spent_micro_usd=spent,
        display=usd_display(spent),
        rate_usd_per_hour=usd_text(money.bill.rate),
        usd_per_gpu_hour=usd_text(rate.micro_usd_per_gpu_hour) if rate else old.usd_per_gpu_hour,
        price_source=rate.source if rate else old.price_source,
        reserve_usd=usd_text(money.reserve_micro_usd) if rate else old.reserve_usd,
        remaining_usd=usd_text(max(0, money.limit_micro_usd - spent)),
        stop_time=rfc3339(stop_at) if stop_at is not None else None,
        warned_at_percent=old.warned_at_percent,
    )
