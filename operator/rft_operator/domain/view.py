"""One look at a run: everything a decision may depend on, taken at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.team import FinetuneBudget
from rft_operator.domain.facts import Children, NodeFacts, Report, Settings
from rft_operator.domain.prices import PriceCatalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the reconciler read before it asked for a plan."""

    resource: ReasoningFinetune
    children: Children
    nodes: tuple[NodeFacts, ...]
    report: Report | None
    missing: tuple[tuple[str, str], ...]
    """(kind, name) of objects the spec refers to that do not exist."""
    unshared: tuple[str, ...] = ()
    """Claims the spec refers to that pods on several nodes may not have at once."""
    catalogue: PriceCatalogue
    settings: Settings
    last_seen: Mapping[str, int] = field(default_factory=dict)
    """Last sign of life of nodes that do not answer and hold GPUs of this run: their Lease's renewal."""
    gone_nodes: frozenset[str] = frozenset()
    """Nodes that held GPUs of this run and do not exist any more."""
    budgets: tuple[FinetuneBudget, ...] = ()
    """Team budgets of the namespace."""
    unreadable_budgets: tuple[str, ...] = ()
    """Names of those that do not fit this operator's schema: nothing is let in or raised beside them."""
    unbooked: tuple[str, ...] = ()
    """Names of those of them that have a record of this run: they cannot book its bill."""
    listening_since: int
    """Since when this operator takes progress reports: nobody's silence before counts."""
