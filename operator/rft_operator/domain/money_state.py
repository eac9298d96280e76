"""The run's money at this instant: price, bill, reserve, and where a stage stands against its stop line.

Invariant: the ledger is the only source of what was spent; a price that is not known lets nothing start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rft_operator.api.choices import PricePolicy
from rft_operator.api.ledger import Ledger, LedgerEntry
from rft_operator.api.status import Attempt
from rft_operator.domain.bill import Bill, Share, bill
from rft_operator.domain.budget import (
    BudgetState,
    Terms,
    assess,
    evaluation_reserve,
    grace_seconds,
    stage_gpus,
    stop_bound_seconds,
)
from rft_operator.domain.draft import Draft
from rft_operator.domain.evidence import Evidence
from rft_operator.domain.facts import PodFacts
from rft_operator.domain.ledger import next_ledger, open_waste, step_is_due
from rft_operator.domain.money import micro_of_text
from rft_operator.domain.price_steps import Steps, rate_of_entry, steps_of_entry
from rft_operator.domain.prices import LABELS, PriceCatalogue
from rft_operator.domain.rates import Rate, pool, prices_from, rate_of_node, rate_of_pool
from rft_operator.domain.schedule import Schedule, amount_of
from rft_operator.domain.startup import expected_startup_seconds
from rft_operator.domain.team_money import effective_limit, hold_after
from rft_operator.domain.waste import lives_of
from rft_trainer.contract import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Everything a decision about money needs."""

    rate: Rate | None
    """Price of a GPU-hour of the pool; None: unknown, nothing may start."""
    pool: Schedule
    """Micro-dollars per GPU-hour of the pool from now on, as far as the catalogue announces it."""
    bill: Bill
    limit_micro_usd: int
    reserve_micro_usd: int
    waste: Mapping[str, Share] = field(default_factory=dict)
    """By reason."""


def _pool_rate(draft: Draft, catalogue: PriceCatalogue, *, at: int) -> Rate | None:
    """Return the dearest rate at which the next pod may be bound; None if any node of the pool has no price."""
    view, spec = draft.view, draft.spec
    return rate_of_pool(
        view.nodes,
        node_selector=spec.scheduling.node_selector,
        gpu_resource=spec.resources.gpu_resource,
        spec_price=spec.budget.usd_per_gpu_hour,
        catalogue=catalogue,
        at=at,
    )


def _pool_is_empty(draft: Draft) -> bool:
    scheduling, resources = draft.spec.scheduling, draft.spec.resources
    return not pool(draft.view.nodes, node_selector=scheduling.node_selector, gpu_resource=resources.gpu_resource)


def _announced(draft: Draft) -> tuple[int, ...]:
    """Return the instants at which the catalogue announces other prices."""
    if draft.spec.budget.usd_per_gpu_hour is not None:
        return ()
    return tuple(each.starts_at for each in draft.view.catalogue.entries if each.starts_at > draft.now)


def _pool_schedule(draft: Draft, rate: Rate) -> Schedule:
    """A price that grows too old on the way is still what is known of what its machines will cost."""
    known = draft.view.catalogue.of_any_age()
    return Schedule.of(
        draft.now, _announced(draft), lambda at: (_pool_rate(draft, known, at=at) or rate).micro_usd_per_gpu_hour
    )


def _recorded_rate(draft: Draft) -> Rate | None:
    cost = draft.recorded.cost
    if cost.usd_per_gpu_hour is None or draft.recorded.start_time is None:
        return None
    return Rate(micro_usd_per_gpu_hour=micro_of_text(cost.usd_per_gpu_hour), source=cost.price_source or "recorded")


def _dearer(rate: Rate, other: Rate | None) -> Rate:
    return max(rate, other or rate, key=lambda each: each.micro_usd_per_gpu_hour)


def _evidence(draft: Draft, fallback: Rate) -> Evidence:
    view, spec = draft.view, draft.spec
    nodes = {node.name: node for node in view.nodes}
    resource, given = spec.resources.gpu_resource, spec.budget.usd_per_gpu_hour
    known = view.catalogue.of_any_age()

    def rate_of(pod: PodFacts) -> Rate | None:
        node = nodes.get(pod.node or "")
        if node is None:
            return None
        at = pod.scheduled_at or draft.now
        return rate_of_node(node, gpu_resource=resource, spec_price=given, catalogue=known, at=at)

    def kind_of(name: str) -> tuple[str | None, str | None]:
        labels = nodes[name].labels if name in nodes else {}
        return labels.get(LABELS["gpu_product"]), labels.get(LABELS["capacity_type"])

    def prices_of(name: str, since: int) -> Steps:
        if name not in nodes or given is not None or spec.budget.price_policy is PricePolicy.LOCKED:
            return ()
        return prices_from(nodes[name], gpu_resource=resource, catalogue=view.catalogue, since=since)

    silent = {node.name: node.silent_since for node in view.nodes if node.silent_since is not None}
    return Evidence(
        pods=view.children.pods,
        now=draft.now,
        rate_of=rate_of,
        fallback=fallback,
        kind_of=kind_of,
        prices_of=prices_of,
        notice_seconds=lambda entry: stop_bound_seconds(_grace_of(draft, entry)),
        lives=lives_of(draft.status.attempts),
        silent={name: view.last_seen.get(name, since) for name, since in silent.items()},
        answering=frozenset(node.name for node in view.nodes if node.silent_since is None),
        gone_nodes=view.gone_nodes,
        hold_after=hold_after(draft),
    )


def _grace_of(draft: Draft, entry: LedgerEntry) -> int:
    """Return how many seconds an entry's pod gets to stop: as its attempt was begun."""
    key = entry.stage, entry.attempt
    attempt = next((each for each in draft.status.attempts if (each.stage, each.number) == key), None)
    return _grace(draft, Stage(entry.stage), attempt)


def _grace(draft: Draft, stage: Stage, attempt: Attempt | None) -> int:
    if attempt is not None and attempt.grace_seconds is not None:
        return attempt.grace_seconds
    checkpoint = draft.status.checkpoint
    saved = checkpoint.save_seconds if checkpoint is not None else None
    return grace_seconds(draft.spec, stage, save_seconds=saved)


def meter(draft: Draft) -> Money:
    """Bring the ledger up to date and return the run's money.

    A pool that is empty now keeps the price on record; one with a node that nobody prices has none (M11), and what
    runs there already goes on being charged at the price on record.
    """
    recorded = _recorded_rate(draft)
    rate = _pool_rate(draft, draft.view.catalogue, at=draft.now) or (recorded if _pool_is_empty(draft) else None)
    charged = rate or recorded
    ledger: Ledger = draft.status.ledger
    waste: Mapping[str, Share] = {}
    if charged is not None:
        evidence = _evidence(draft, _dearer(charged, recorded))
        ledger = next_ledger(ledger, evidence)
        waste = open_waste(ledger, evidence)
        draft.update(ledger=ledger)
        if step_is_due(ledger, evidence):
            draft.wake(draft.now)
    bill_now, limit = bill(ledger, now=draft.now), effective_limit(draft)
    schedule = _pool_schedule(draft, charged) if charged is not None else Schedule.flat(draft.now, 0)
    return Money(
        rate=rate,
        pool=schedule,
        bill=bill_now,
        limit_micro_usd=limit,
        reserve_micro_usd=_reserve(draft, schedule, left=amount_of(limit) - bill_now.amount) if charged else 0,
        waste=waste,
    )


def _reserve(draft: Draft, schedule: Schedule, *, left: int) -> int:
    """Return the reserve at the dearest price that is announced for the time in which the evaluation may come."""
    gpus = max(1, stage_gpus(draft.spec, Stage.TRAIN))
    lasts = left // max(1, gpus * schedule.at(draft.now))
    dearest = schedule.dearest(draft.now + max(0, lasts) + draft.spec.timeouts.pending_seconds)
    return evaluation_reserve(draft.spec, rate=Rate(micro_usd_per_gpu_hour=dearest, source="pool"))


def terms_of(draft: Draft, money: Money, *, rate: Rate, stage: Stage, attempt: Attempt | None = None) -> Terms:
    """Return what a stage may spend: as an attempt was begun, or as the next one will be.

    Its pods are bound at the latest after ``timeouts.pendingSeconds``, and no cheaper than is announced until then.
    """
    from_then = money.pool.never_cheaper().delayed(draft.spec.timeouts.pending_seconds)
    locked = draft.spec.budget.price_policy is PricePolicy.LOCKED
    return Terms(
        spec=draft.spec,
        stage=stage,
        rate=rate,
        schedule=Schedule.flat(draft.now, from_then.at(draft.now)) if locked else from_then,
        limit_micro_usd=money.limit_micro_usd,
        reserve_micro_usd=money.reserve_micro_usd,
        grace=_grace(draft, stage, attempt),
        startup=expected_startup_seconds(draft, stage),
    )


def budget_state(draft: Draft, money: Money, *, stage: Stage, attempt: Attempt) -> BudgetState:
    """Return where the stop line is for an attempt; the evaluation spends the reserve, so it keeps none."""
    terms = terms_of(draft, money, rate=money.rate or UNKNOWN, stage=stage, attempt=attempt)
    held = sum(e.gpus for e in draft.status.ledger.open if (e.stage, e.attempt) == (stage.value, attempt.number))
    locked = draft.spec.budget.price_policy is PricePolicy.LOCKED
    # What is not bound yet pays what it was let in for: else one that may start would be stopped at once, for ever.
    unbound = terms.schedule if locked and terms.schedule is not None else money.pool
    schedule = unbound.times(max(0, terms.gpus - held))
    return assess(
        money.bill,
        limit_micro_usd=money.limit_micro_usd,
        reserve_micro_usd=terms.kept_micro_usd,
        schedule=schedule.plus(held_schedule(draft)),
        bound_seconds=stop_bound_seconds(terms.grace),
    )


def held_schedule(draft: Draft) -> Schedule:
    """Return what all that holds GPUs now costs per hour from now on, as far as it is on record."""
    schedule = Schedule.flat(draft.now, 0)
    for entry in draft.status.ledger.open:
        schedule = schedule.plus(_entry_schedule(draft, entry))
    return schedule


def _entry_schedule(draft: Draft, entry: LedgerEntry) -> Schedule:
    """Return what a pod costs per hour from now on: its price, and the changes of it that are on record."""
    later = [(at, rate) for at, rate in steps_of_entry(entry)[1:] if at > draft.now]
    steps = [(draft.now, rate_of_entry(entry)), *later]
    return Schedule(tuple((at, rate.micro_usd_per_gpu_hour * entry.gpus) for at, rate in steps))


UNKNOWN = Rate(micro_usd_per_gpu_hour=0, source="unknown")
"""Of a pool whose price is not known: nothing starts there."""
