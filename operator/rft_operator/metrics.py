"""What Prometheus sees of the machinery; the runs' series are in ``run_metrics``.

Invariant: labels are few and bounded: no run, no pod, no uid.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

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
        self.clock_offset = Gauge(
            "reasoning_finetune_clock_offset_seconds",
            "How far the API server's clock, which money is counted by, is ahead of this machine's.",
            registry=registry,
        )
        self.leader = Gauge("rft_leader", "1 while this replica reconciles.", registry=registry)
        self.swept_at = Gauge("rft_last_sweep_timestamp_seconds", "When all was last listed.", registry=registry)
        self.price_problems = Gauge(
            "rft_price_catalogue_problems", "Entries of the price catalogue that cannot be used.", registry=registry
        )
