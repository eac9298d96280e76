"""Series of the team budgets, read from their status when Prometheus asks; they vanish with the budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rft_operator.api.team import FinetuneBudget
from rft_operator.domain.money import MICRO, micro_usd
from rft_operator.domain.timestamps import epoch
from rft_operator.domain.windows import next_window
from rft_operator.runtime.budget_cache import BudgetCache

PREFIX = "reasoning_finetune_team_"
LABELS = ("namespace", "budget")
GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "budget_usd": ("Limit of the budget.", LABELS),
    "reserved_usd": ("Dollars promised to runs and not spent yet.", LABELS),
    "spent_usd": ("Dollars spent in this window, by runs that are gone too.", LABELS),
    "reservation_usd": ("What a run may still spend of the budget in this window.", (*LABELS, "finetune")),
    "window_start_timestamp_seconds": ("Only what was spent since then counts.", LABELS),
    "window_end_timestamp_seconds": ("When the budget begins anew; absent if never by itself.", LABELS),
}


class TeamCollector(Collector):
    """Limit, promised and spent dollars of each budget's present window."""

    def __init__(
        self, budgets: BudgetCache, *, now: Callable[[], int], shown: Callable[[], bool] = lambda: True
    ) -> None:
        """``shown`` tells whether this replica speaks for the budgets: a standby would count them twice."""
        self._budgets = budgets
        self._now = now
        self._shown = shown

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registration must not compute the series."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the families of all budgets."""
        found = {
            name: GaugeMetricFamily(PREFIX + name, words, labels=labels) for name, (words, labels) in GAUGES.items()
        }
        now = self._now()
        for namespace in self._budgets.namespaces() if self._shown() else ():
            for budget in self._budgets.of(namespace):
                names = [namespace, budget.metadata.name]
                found["budget_usd"].add_metric(names, micro_usd(budget.spec.limit_usd) / MICRO)
                found["reserved_usd"].add_metric(names, float(Decimal(budget.status.reserved_usd)))
                found["spent_usd"].add_metric(names, float(Decimal(budget.status.spent_usd)))
                for each in budget.status.reservations:
                    left = max(0, each.reserved_micro_usd - each.spent_micro_usd)
                    found["reservation_usd"].add_metric([*names, each.name], left / MICRO)
                for name, at in _window(budget, now=now):
                    found[name].add_metric(names, at)
        yield from found.values()


def _window(budget: FinetuneBudget, *, now: int) -> Iterator[tuple[str, int]]:
    """Yield when the window that is on record began, and when the next one begins."""
    if budget.status.window_start is not None:
        yield "window_start_timestamp_seconds", epoch(budget.status.window_start)
    end = next_window(budget.spec.window, now)
    if end is not None:
        yield "window_end_timestamp_seconds", end
