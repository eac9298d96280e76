"""Series of the team budgets, read from their status when Prometheus asks; they vanish with the budget."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rft_operator.domain.money import MICRO, micro_usd
from rft_operator.runtime.budget_cache import BudgetCache

LABELS = ("namespace", "budget")


class TeamCollector(Collector):
    """Limit, promised and spent dollars of each budget's present window."""

    def __init__(self, budgets: BudgetCache, *, shown: Callable[[], bool] = lambda: True) -> None:
        """``shown`` tells whether this replica speaks for the budgets: a standby would count them twice."""
        self._budgets = budgets
        self._shown = shown

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registration must not compute the series."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield the three amounts of all budgets."""
        limit = GaugeMetricFamily("reasoning_finetune_team_budget_usd", "limitUSD.", labels=LABELS)
        reserved = GaugeMetricFamily(
            "reasoning_finetune_team_reserved_usd", "Promised to runs and not spent yet.", labels=LABELS
        )
        spent = GaugeMetricFamily("reasoning_finetune_team_spent_usd", "Spent in this window.", labels=LABELS)
        for namespace in self._budgets.namespaces() if self._shown() else ():
            for budget in self._budgets.of(namespace):
                names = [namespace, budget.metadata.name]
                limit.add_metric(names, micro_usd(budget.spec.limit_usd) / MICRO)
                reserved.add_metric(names, float(Decimal(budget.status.reserved_usd)))
                spent.add_metric(names, float(Decimal(budget.status.spent_usd)))
        yield from (limit, reserved, spent)
