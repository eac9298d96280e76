"""What Prometheus sees: the machinery's counters, and the runs' money read from the ledger at scrape time.

Invariant: domain series come from the cache when they are asked for, so a restart neither resets nor loses money, and
the series of a deleted run vanish with it. Labels never carry a pod or a uid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.ledger import SECONDS_PER_HOUR, seconds_of
from rft_operator.domain.money import MICRO, micro_usd

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The machinery's series in a registry of its own, so that several operators fit into one test process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.reconciles = Counter("rft_reconciles", "Reconciles by result.", ["result"], registry=registry)
        self.reconcile_seconds = Histogram(
            "rft_reconcile_duration_seconds", "Duration of a reconcile.", buckets=BUCKETS, registry=registry
        )
        self.queue_seconds = Histogram(
            "rft_queue_wait_seconds", "Time from enqueueing a run to its reconcile.", buckets=BUCKETS, registry=registry
        )
        self.queue_depth = Gauge("rft_queue_depth", "Runs that wait for a reconcile.", registry=registry)
        self.requests = Counter(
            "rft_api_requests", "Calls to the API server.", ["verb", "kind", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "rft_api_request_duration_seconds", "Duration of calls.", ["verb"], buckets=BUCKETS, registry=registry
        )
        self.watch_events = Counter("rft_watch_events", "Watch events by kind.", ["kind"], registry=registry)
        self.status_writes = Counter("rft_status_writes", "Writes of a run's status.", registry=registry)
        self.reports = Counter("rft_progress_reports", "Progress reports by answer.", ["code"], registry=registry)
        self.loop_lag = Gauge("rft_event_loop_lag_seconds", "How late the event loop is.", registry=registry)
        self.leader = Gauge("rft_leader", "1 while this replica reconciles.", registry=registry)
        self.swept_at = Gauge("rft_last_sweep_timestamp_seconds", "When all was last listed.", registry=registry)
        self.price_problems = Gauge(
            "rft_price_catalogue_problems", "Entries of the price catalogue that cannot be used.", registry=registry
        )


class RunCollector(Collector):
    """Series of the runs, computed from their status when Prometheus asks."""

    def __init__(self, resources: Callable[[], Iterable[ReasoningFinetune]], now: Callable[[], int]) -> None:
        self._resources = resources
        self._now = now

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registration must not compute the series."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield GPU-seconds, dollars, limits and stages of all runs."""
        labels = ["namespace", "finetune"]
        seconds = CounterMetricFamily("reasoning_finetune_gpu_seconds", "GPU-seconds held.", labels=[*labels, "phase"])
        cost = CounterMetricFamily("reasoning_finetune_cost_usd", "Dollars spent.", labels=[*labels, "phase"])
        limit = GaugeMetricFamily("reasoning_finetune_budget_usd", "budget.limitUSD.", labels=labels)
        stage = GaugeMetricFamily("reasoning_finetune_stage", "1 for the stage a run is in.", labels=[*labels, "stage"])
        percent = GaugeMetricFamily("reasoning_finetune_progress_ratio", "Progress, 0 to 1.", labels=labels)
        now = self._now()
        for run in self._resources():
            names = [run.metadata.namespace, run.metadata.name]
            limit.add_metric(names, micro_usd(run.spec.budget.limit_usd) / MICRO)
            for phase, (gpu_seconds, amount) in _by_phase(run, now=now).items():
                seconds.add_metric([*names, phase], gpu_seconds)
                cost.add_metric([*names, phase], amount / SECONDS_PER_HOUR / MICRO)
            if run.status.stage is not None:
                stage.add_metric([*names, run.status.stage.value], 1)
            if run.status.progress is not None:
                percent.add_metric(names, run.status.progress.percent / 100)
        yield from (seconds, cost, limit, stage, percent)


def _by_phase(run: ReasoningFinetune, *, now: int) -> dict[str, tuple[int, int]]:
    ledger = run.status.ledger
    sums: dict[str, tuple[int, int]] = {}
    parts = [(each.stage, each.gpu_seconds, each.micro_usd_per_gpu_hour) for each in ledger.totals]
    parts += [
        (each.stage, seconds_of(each, now=now), each.micro_usd_per_gpu_hour)
        for each in (*ledger.uncounted, *ledger.open)
    ]
    for phase, gpu_seconds, price in parts:
        former = sums.get(phase, (0, 0))
        sums[phase] = former[0] + gpu_seconds, former[1] + gpu_seconds * price
    return sums
