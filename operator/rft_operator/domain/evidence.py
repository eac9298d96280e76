"""All that the ledger is computed from, beside the one on record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rft_operator.api.ledger import LedgerEntry
from rft_operator.domain.facts import PodFacts
from rft_operator.domain.price_steps import Steps
from rft_operator.domain.rates import Rate
from rft_operator.domain.waste import AttemptLife


def locked(_node: str, _since: int) -> Steps:
    """Return no prices: whatever is on record holds."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that the ledger is computed from, beside the one on record."""

    pods: Sequence[PodFacts]
    now: int
    rate_of: Callable[[PodFacts], Rate | None]
    """The price of a pod's node when it was bound (M10)."""
    fallback: Rate
    """The pool's dearest rate, taken for a node that is already gone."""
    kind_of: Callable[[str], tuple[str | None, str | None]] = lambda _: (None, None)
    """GPU product and capacity type of a node."""
    prices_of: Callable[[str, int], Steps] = locked
    """The catalogue's prices of a node from an instant on; none where they are locked or not known."""
    notice_seconds: Callable[[LedgerEntry], int] = lambda _: 0
    """How long the pod of an open entry may take to stop: a rise that nobody announced holds after that (M10)."""
    lives: Mapping[tuple[str, int], AttemptLife] = field(default_factory=dict)
    silent: Mapping[str, int] = field(default_factory=dict)
    """Nodes that do not answer, with the instant of their last sign of life (M8)."""
    answering: frozenset[str] = frozenset()
    """Nodes whose kubelet is heard of: what was disputed of their pods is settled."""
    gone_nodes: frozenset[str] = frozenset()
    """Nodes that the API server says do not exist."""
    hold_after: int | None = None
    """What ended later is not folded yet: a team budget must see first which of its windows it belongs to (E8)."""

    def may_fold(self, end: int) -> bool:
        """Return whether what was charged until ``end`` may go into the totals."""
        return self.hold_after is None or end <= self.hold_after

    def silent_since(self, node: str | None) -> int | None:
        """Return the last sign of life of a node that does not answer; None of one that does."""
        return self.silent.get(node or "")
