"""What a GPU-hour costs on a node and in a pool, now and as far ahead as the catalogue knows.

Invariant: no price, no start (docs/metering.md M10, M11). A pool's price is the dearest at which its next pod may be
bound: of every node, of the same machine with another capacity type, and of what the catalogue announces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from rft_operator.domain.facts import NodeFacts
from rft_operator.domain.money import micro_usd
from rft_operator.domain.prices import LABELS, Entry, PriceCatalogue
from rft_operator.errors import PriceCatalogueError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Price of one GPU-hour and where it comes from."""

    micro_usd_per_gpu_hour: int
    source: str


def rate_of_node(
    node: NodeFacts,
    *,
    gpu_resource: str,
    spec_price: int | str | None,
    catalogue: PriceCatalogue,
    at: int,
) -> Rate | None:
    """Return the price of a GPU-hour on a node, or None if nobody named one or its GPUs are shared (M2)."""
    if spec_price is not None:
        return Rate(micro_usd_per_gpu_hour=micro_usd(spec_price), source="spec")
    if shared_words(node) is not None:
        return None
    try:
        entry = catalogue.lookup(node.labels, at=at)
    except PriceCatalogueError:
        return None
    return None if entry is None else _rate(entry, gpus=node.gpus.get(gpu_resource, 0))


def _rate(entry: Entry, *, gpus: int) -> Rate | None:
    micro = micro_usd(entry.usd_per_hour)
    if entry.basis == "node":
        if gpus == 0:
            return None
        micro = -(-micro // gpus)
    return Rate(micro_usd_per_gpu_hour=micro, source=entry.name)


def prices_from(
    node: NodeFacts, *, gpu_resource: str, catalogue: PriceCatalogue, since: int
) -> tuple[tuple[int, Rate], ...]:
    """Return a node's prices from an instant on, as (from, rate), in order; where one is missing, none is added."""
    instants = {entry.starts_at for entry in catalogue.entries if entry.starts_at > since}
    found = [
        (at, rate_of_node(node, gpu_resource=gpu_resource, spec_price=None, catalogue=catalogue, at=at))
        for at in sorted({since, *instants})
    ]
    return tuple((at, rate) for at, rate in found if rate is not None)


def shared_words(node: NodeFacts) -> str | None:
    """Return how a node divides its GPUs, in words; None if a GPU there is a whole one.

    The labels are those of NVIDIA's gpu-feature-discovery: product names end in -SHARED where GPUs are time-sliced, and
    have -MIG- in them where every slice is offered as a GPU. A price per GPU would be charged several times over.
    """
    labels = node.labels
    product = labels.get(LABELS["gpu_product"], "")
    if "-MIG-" in product:
        return f"slices of a GPU (MIG, product {product})"
    replicas = labels.get("nvidia.com/gpu.replicas", "")
    if product.endswith("-SHARED") or (replicas.isdecimal() and int(replicas) > 1):
        return f"GPUs shared by {replicas or 'several'} pods (time-slicing or MPS)"
    return None


def pool(nodes: Sequence[NodeFacts], *, node_selector: Mapping[str, str], gpu_resource: str) -> tuple[NodeFacts, ...]:
    """Return the nodes a GPU pod of the run may be bound to."""
    return tuple(
        node
        for node in nodes
        if node.gpus.get(gpu_resource, 0) > 0
        and all(node.labels.get(key) == value for key, value in node_selector.items())
    )


def rate_of_pool(
    nodes: Sequence[NodeFacts],
    *,
    node_selector: Mapping[str, str],
    gpu_resource: str,
    spec_price: int | str | None,
    catalogue: PriceCatalogue,
    at: int,
) -> Rate | None:
    """Return the dearest rate the next pod may be bound at, or None if any matching node has no price.

    For an empty (autoscaled) pool it is the dearest entry that the nodeSelector's labels match; a price per node is
    shared by the entry's gpusPerNode then, and none is known where an entry that fits does not state it.
    """
    if spec_price is not None:
        return Rate(micro_usd_per_gpu_hour=micro_usd(spec_price), source="spec")
    matching = pool(nodes, node_selector=node_selector, gpu_resource=gpu_resource)
    if not matching:
        return _rate_of_empty_pool(node_selector, catalogue, at=at)
    rates = [
        rate_of_node(node, gpu_resource=gpu_resource, spec_price=None, catalogue=catalogue, at=at) for node in matching
    ]
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates):
        return None
    if LABELS["capacity_type"] not in node_selector:
        known += _other_capacity(matching, gpu_resource=gpu_resource, catalogue=catalogue, at=at)
    return max(known, key=lambda rate: rate.micro_usd_per_gpu_hour)


def _other_capacity(nodes: Sequence[NodeFacts], *, gpu_resource: str, catalogue: PriceCatalogue, at: int) -> list[Rate]:
    """Return the prices of the pool's machines with every capacity type that the catalogue knows.

    Where spot runs out, an autoscaler brings the same machines on demand (E2: the dearest allowed rate).
    """
    label = LABELS["capacity_type"]
    types = {entry.match.capacity_type for entry in catalogue.entries if entry.match.capacity_type is not None}
    others = [
        replace(node, labels={**node.labels, label: type_})
        for node in nodes
        for type_ in types
        if label in node.labels and node.labels[label] != type_
    ]
    known = catalogue.of_any_age()
    rates = [rate_of_node(node, gpu_resource=gpu_resource, spec_price=None, catalogue=known, at=at) for node in others]
    return [rate for rate in rates if rate is not None]


def _rate_of_empty_pool(node_selector: Mapping[str, str], catalogue: PriceCatalogue, *, at: int) -> Rate | None:
    entries = _entries_of_empty_pool(node_selector, catalogue, at=at)
    fresh = [entry for entry in entries if not catalogue.is_stale(entry, at=at)]
    rates = [rate for entry in fresh if (rate := _rate(entry, gpus=entry.gpus_per_node or 0)) is not None]
    if len(rates) < len(entries) or twins_of_empty_pool(node_selector, catalogue, at=at):
        return None
    return max(rates, key=lambda rate: rate.micro_usd_per_gpu_hour, default=None)


def _entries_of_empty_pool(
    node_selector: Mapping[str, str], catalogue: PriceCatalogue, *, at: int
) -> tuple[Entry, ...]:
    """Return the entries that may price the nodes to come: the newest of each match that the nodeSelector allows."""
    return tuple(
        entry
        for entry in catalogue.unreplaced(at=at)
        if entry.starts_at <= at
        and any(key in entry.match.wanted() for key in node_selector)
        and all(entry.match.wanted().get(key, value) == value for key, value in node_selector.items())
    )


def twins_of_empty_pool(node_selector: Mapping[str, str], catalogue: PriceCatalogue, *, at: int) -> tuple[str, ...]:
    """Return the names of entries that price the same nodes to come from the same instant on: which one holds?

    A node that is there has no price then either (``PriceCatalogue.lookup``).
    """
    entries = _entries_of_empty_pool(node_selector, catalogue, at=at)
    keys = [entry.match.key() for entry in entries]
    return tuple(entry.name for entry, key in zip(entries, keys, strict=True) if keys.count(key) > 1)


def without_gpus_per_node(node_selector: Mapping[str, str], catalogue: PriceCatalogue, *, at: int) -> tuple[str, ...]:
    """Return the names of the entries that price whole nodes of an empty pool and do not say who shares the price."""
    entries = _entries_of_empty_pool(node_selector, catalogue, at=at)
    return tuple(entry.name for entry in entries if entry.basis == "node" and entry.gpus_per_node is None)


def unpriced_nodes(
    nodes: Sequence[NodeFacts],
    *,
    node_selector: Mapping[str, str],
    gpu_resource: str,
    catalogue: PriceCatalogue,
    at: int,
) -> tuple[str, ...]:
    """Return the names of the pool's nodes that the catalogue does not price, for the message."""
    return tuple(
        node.name
        for node in pool(nodes, node_selector=node_selector, gpu_resource=gpu_resource)
        if rate_of_node(node, gpu_resource=gpu_resource, spec_price=None, catalogue=catalogue, at=at) is None
    )
