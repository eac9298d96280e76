"""The run's money at this instant: price, bill, reserve, and where a stage stands against its stop line.

Invariant: the ledger is the only source of what was spent; a price that is not known lets nothing start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rft_operator.api.ledger import Ledger, LedgerEntry
from rft_operator.api.spec import PricePolicy
from rft_operator.api.status import Attempt
from rft_operator.domain.bill import Bill, Share, bill, priced_from
from rft_operator.domain.budget import (
    BudgetState,
    Terms,
    assess,
    evaluation_reserve,
    grace_seconds,
    stop_bound_seconds,
)
from rft_operator.domain.draft import Draft
from rft_operator.domain.facts import PodFacts
from rft_operator.domain.ledger import Evidence, next_ledger, open_waste
from rft_operator.domain.money import micro_usd
from rft_operator.domain.prices import Rate, price_steps, rate_of_node, rate_of_pool
from rft_operator.domain.team_money import effective_limit, hold_after
from rft_operator.domain.waste import lives_of
from rft_trainer.contract import Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Everything a decision about money needs."""

    rate: Rate | None
    """Price of a GPU-hour of the pool; None: unknown, nothing may start."""
    bill: Bill
    limit_micro_usd: int
    reserve_micro_usd: int
    waste: Mapping[str, Share] = field(default_factory=dict)
    """By reason."""


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


def _evidence(draft: Draft, fallback: Rate) -> Evidence:
    view, spec = draft.view, draft.spec
    nodes = {node.name: node for node in view.nodes}
    resource, given = spec.resources.gpu_resource, spec.budget.usd_per_gpu_hour

    def rate_of(pod: PodFacts) -> Rate | None:
        node = nodes.get(pod.node or "")
        if node is None:
            return None
        at = pod.scheduled_at or draft.now
        return rate_of_node(node, gpu_resource=resource, spec_price=given, catalogue=view.catalogue, at=at)

    def steps(entry: LedgerEntry) -> Sequence[tuple[int, Rate]]:
        node = nodes.get(entry.node)
        if node is None or given is not None or spec.budget.price_policy is PricePolicy.LOCKED:
            return ()
        held = Rate(micro_usd_per_gpu_hour=entry.micro_usd_per_gpu_hour, source=entry.price_source)
        return price_steps(
            node,
            gpu_resource=resource,
            catalogue=view.catalogue,
            since=priced_from(entry),
            until=draft.now,
            held=held,
        )

    silent = {node.name: node.silent_since for node in view.nodes if node.silent_since is not None}
    return Evidence(
        pods=view.children.pods,
        now=draft.now,
        rate_of=rate_of,
        fallback=fallback,
        price_steps=steps,
        lives=lives_of(draft.status.attempts),
        silent={name: view.last_seen.get(name, since) for name, since in silent.items()},
        answering=frozenset(node.name for node in view.nodes if node.silent_since is None),
        gone_nodes=view.gone_nodes,
        hold_after=hold_after(draft),
    )


def meter(draft: Draft) -> Money:
    """Bring the ledger up to date and return the run's money."""
    spec = draft.spec
    rate = pool_rate(draft)
    ledger: Ledger = draft.status.ledger
    waste: Mapping[str, Share] = {}
    if rate is not None:
        evidence = _evidence(draft, _dearer(rate, _recorded_rate(draft)))
        ledger = next_ledger(ledger, evidence)
        waste = open_waste(ledger, evidence)
        draft.update(ledger=ledger)
    return Money(
        rate=rate,
        bill=bill(ledger, now=draft.now),
        limit_micro_usd=effective_limit(draft),
        reserve_micro_usd=evaluation_reserve(spec, rate=rate) if rate is not None else 0,
        waste=waste,
    )


def terms_of(draft: Draft, money: Money, *, rate: Rate, stage: Stage, attempt: Attempt | None = None) -> Terms:
    """Return what a stage may spend: as an attempt was begun, or as the next one will be."""
    checkpoint = draft.status.checkpoint
    begun = attempt.grace_seconds if attempt is not None else None
    saved = checkpoint.save_seconds if checkpoint is not None else None
    return Terms(
        spec=draft.spec,
        stage=stage,
        rate=rate,
        limit_micro_usd=money.limit_micro_usd,
        reserve_micro_usd=money.reserve_micro_usd,
        grace=begun if begun is not None else grace_seconds(draft.spec, stage, save_seconds=saved),
    )


def budget_state(draft: Draft, money: Money, *, stage: Stage, attempt: Attempt) -> BudgetState:
    """Return where the stop line is for an attempt; the evaluation spends the reserve, so it keeps none."""
    terms = terms_of(draft, money, rate=money.rate or FREE, stage=stage, attempt=attempt)
    held = sum(e.gpus for e in draft.status.ledger.open if (e.stage, e.attempt) == (stage.value, attempt.number))
    unbound = max(0, terms.gpus - held)
    return assess(
        money.bill,
        limit_micro_usd=money.limit_micro_usd,
        reserve_micro_usd=terms.kept_micro_usd,
        unbound_rate=unbound * terms.rate.micro_usd_per_gpu_hour,
        bound_seconds=stop_bound_seconds(terms.grace),
        now=draft.now,
    )


FREE = Rate(micro_usd_per_gpu_hour=0, source="unknown")
"""Of a stage whose price is not known: it holds no GPU yet, for without a price nothing starts."""
