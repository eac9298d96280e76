"""The ledger's side of an operator in property tests: it looks, writes, releases, and forgets all but what it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from rft_operator.api.ledger import Ledger
from rft_operator.domain.bill import Bill, bill
from rft_operator.domain.evidence import Evidence, locked
from rft_operator.domain.facts import PodFacts
from rft_operator.domain.ledger import next_ledger, releasable
from rft_operator.domain.price_steps import Steps
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.rates import Rate, prices_from, rate_of_node
from support.pod_lives import T0, PodLife, PriceTable, facts_of

GPU = "nvidia.com/gpu"
FALLBACK_PRICE = 1
"""Micro-dollars per GPU-hour of a pod whose node was gone before anybody saw it."""


@lru_cache(maxsize=128)
def _read(text: str) -> PriceCatalogue:
    # An operator reads its prices when they change, not at each look; and YAML is slow.
    catalogue, problems = PriceCatalogue.parse(text)
    assert not problems
    return catalogue


@dataclass(slots=True)
class Operator:
    """Looks, writes, releases; forgets all but what it wrote."""

    lives: Sequence[PodLife]
    prices: PriceTable
    """As the catalogue has them now; an admin may edit them between two looks."""
    floating: bool
    ledger: Ledger = field(default_factory=Ledger)
    released: set[str] = field(default_factory=set)
    noticed: dict[str, int] = field(default_factory=dict)
    now: int = T0
    notice_seconds: int = 0
    missing: frozenset[str] = frozenset()
    """Nodes whose objects are gone."""
    hold_after: int | None = None

    def evidence(self) -> Evidence:
        catalogue = _read(self.prices.catalogue())
        pods = [pod for life in self.lives if (pod := life.view(self.now, self.released)) is not None]

        def rate_of(pod: PodFacts) -> Rate | None:
            at = pod.scheduled_at or 0
            if pod.node in self.missing:
                return None
            return rate_of_node(facts_of(pod.node or ""), gpu_resource=GPU, spec_price=None, catalogue=catalogue, at=at)

        def prices_of(name: str, since: int) -> Steps:
            if name in self.missing:
                return ()
            return prices_from(facts_of(name), gpu_resource=GPU, catalogue=catalogue, since=since)

        return Evidence(
            pods=pods,
            now=self.now,
            rate_of=rate_of,
            fallback=Rate(micro_usd_per_gpu_hour=FALLBACK_PRICE, source="fallback"),
            notice_seconds=lambda _: self.notice_seconds,
            hold_after=self.hold_after,
            prices_of=prices_of if self.floating else locked,
        )

    def look(self, after: int, *, write_is_lost: bool = False) -> Bill:
        self.now += after
        evidence = self.evidence()
        ledger = next_ledger(self.ledger, evidence)
        if not write_is_lost:
            self._notice(ledger)
            self.released |= {pod.uid for pod in releasable(self.ledger, evidence.pods)}
            self.ledger = ledger
        return bill(ledger, now=self.now)

    def _notice(self, ledger: Ledger) -> None:
        """A pod that vanishes ends when that is on record for the first time."""
        for entry in ledger.uncounted:
            if entry.end_basis == "vanished":
                self.noticed.setdefault(entry.uid, self.now)

    def settle(self) -> Bill:
        """Look until nothing is left to do."""
        for _ in range(4):
            last = self.look(5_000)
        return last
