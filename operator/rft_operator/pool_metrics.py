"""What Prometheus sees of the pools that runs are bound to: how old their prices are, how many GPUs they have.

Invariant: labels are those of the catalogue and of the nodes' machine types, never a node.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from prometheus_client.core import GaugeMetricFamily

from rft_operator.domain.facts import NodeFacts
from rft_operator.domain.prices import LABELS, PriceCatalogue


def price_ages(catalogue: PriceCatalogue, *, now: int) -> GaugeMetricFamily:
    """Return the day that each price of the catalogue is of; one that another has replaced may be as old as it is."""
    family = GaugeMetricFamily(
        "reasoning_finetune_price_asof_timestamp_seconds",
        "Day that a price of the catalogue is of; none of one that a later entry has replaced.",
        labels=("source",),
    )
    for entry in catalogue.unreplaced(at=now):
        if entry.as_of_epoch is not None:
            family.add_metric([entry.name], entry.as_of_epoch)
    return family


def pool_sizes(nodes: Iterable[NodeFacts], *, gpu_resources: Collection[str]) -> GaugeMetricFamily:
    """Return the allocatable GPUs of all nodes by kind; ``gpu_resources`` are the resources that count as GPUs."""
    family = GaugeMetricFamily(
        "reasoning_finetune_pool_gpus",
        "Allocatable GPUs of the cluster's nodes, held or not; each replica shows them.",
        labels=("gpu_product", "capacity_type"),
    )
    sizes: dict[tuple[str, str], int] = {}
    for node in nodes:
        gpus = sum(node.gpus.get(name, 0) for name in gpu_resources)
        if gpus:
            kind = node.labels.get(LABELS["gpu_product"], ""), node.labels.get(LABELS["capacity_type"], "")
            sizes[kind] = sizes.get(kind, 0) + gpus
    for kind, gpus in sorted(sizes.items()):
        family.add_metric(list(kind), gpus)
    return family
