"""The four measurements. Each returns plain numbers; nothing here judges them."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.api import Api
from bench.load import FirstChildren, burst, create, delete_all, first_children, stream
from bench.machine import Usage
from bench.process import MeasuredOperator
from rft_operator.domain.facts import Key
from rft_operator.domain.show import SCHEDULING_PATIENCE_SECONDS
from support.operator_process import Samples

Pids = Callable[[], dict[str, int]]

STEADY_NAMESPACE = "steady"
BURST_NAMESPACES = tuple(f"team-{index}" for index in range(10))
WARM_UP = 5
CHILD_SECONDS = 60.0
BURST_SECONDS = 600.0
REST_SECONDS = 300.0
SETTLED_SECONDS = SCHEDULING_PATIENCE_SECONDS + 5.0
"""The last thing the operator does with a run of the burst is to announce that its pod stays unschedulable."""


@dataclass(slots=True, kw_only=True)
class Phase:
    """What one measurement found, and who used the processors meanwhile."""

    name: str
    values: dict[str, float] = field(default_factory=dict)
    calls: dict[str, float] = field(default_factory=dict)
    used: dict[str, float] = field(default_factory=dict)


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    """Return the calls that were made between two scrapes."""
    return {what: count - before.get(what, 0.0) for what, count in after.items() if count > before.get(what, 0.0)}


async def steady(api: Api, operator: MeasuredOperator, pids: Pids, *, per_second: float, seconds: float) -> Phase:
    """Create runs at a fixed rate; time the first child of each."""
    keys = [Key(STEADY_NAMESPACE, f"steady-{index:04d}") for index in range(round(per_second * seconds))]
    async with first_children(api) as children:
        await _warm_up(api, children)
        await operator.rest(seconds=REST_SECONDS)
        before = Usage.now(pids())
        created = await stream(api, keys, per_second=per_second)
        await children.wait_for(keys, seconds=CHILD_SECONDS)
        used = Usage.now(pids()).since(before)
    accepted = [(children.seen[each.key] - each.accepted) * 1_000 for each in created]
    sent = [(children.seen[each.key] - each.sent) * 1_000 for each in created]
    values: dict[str, float] = {"resources": len(keys), "per_second": per_second}
    for name, found in (("accepted", accepted), ("sent", sent)):
        values |= {f"{name}_p{percent}_ms": percentile(found, percent) for percent in (50, 90, 99)}
    await operator.rest(seconds=REST_SECONDS)
    await delete_all(api, STEADY_NAMESPACE, seconds=REST_SECONDS)
    await operator.rest(seconds=REST_SECONDS)
    return Phase(name="steady", values=values, used=used)


async def _warm_up(api: Api, children: FirstChildren) -> None:
    """Connections are opened and code is loaded before anything is timed."""
    keys = [Key(STEADY_NAMESPACE, f"warm-{index}") for index in range(WARM_UP)]
    for key in keys:
        await create(api, key)
    await children.wait_for(keys, seconds=CHILD_SECONDS)


async def at_once(api: Api, operator: MeasuredOperator, pids: Pids, *, count: int) -> Phase:
    """Create all runs at once; time the first children and what the operator spends until it rests again."""
    keys = [Key(BURST_NAMESPACES[index % len(BURST_NAMESPACES)], f"burst-{index:05d}") for index in range(count)]
    scraped = await operator.metrics()
    async with first_children(api) as children:
        cpu, before, began = operator.cpu(), Usage.now(pids()), time.perf_counter()
        created = await burst(api, keys)
        await children.wait_for(keys, seconds=BURST_SECONDS)
        used, children_cpu = Usage.now(pids()).since(before), operator.cpu()
    rested, rested_cpu = await operator.rest(seconds=REST_SECONDS, quiet_seconds=SETTLED_SECONDS)
    after = await operator.metrics()
    seen = sorted(children.seen[key] for key in keys)
    resident, peak = operator.memory()
    values = {
        "resources": count,
        "children_per_second": (count - 1) / (seen[-1] - seen[0]),
        "creates_per_second": count / (max(each.accepted for each in created) - began),
        "last_child_seconds": seen[-1] - began,
        "rest_seconds": rested - began,
        "first_child_cpu_ms_per_resource": (children_cpu - cpu) / count * 1_000,
        "rest_cpu_ms_per_resource": (rested_cpu - cpu) / count * 1_000,
        "resident_mib": resident,
        "peak_mib": peak,
        "writes": after.writes() - scraped.writes(),
        "reconciles": _reconciles(after) - _reconciles(scraped),
    }
    return Phase(name="burst", values=values, calls=difference(after.calls(), scraped.calls()), used=used)


async def idle(operator: MeasuredOperator, pids: Pids, *, seconds: float) -> Phase:
    """Leave the operator alone with all runs present."""
    began = time.perf_counter()
    scraped = await operator.metrics()
    scrape_ms = (time.perf_counter() - began) * 1_000
    cpu, before = operator.cpu(), Usage.now(pids())
    await asyncio.sleep(seconds)
    spent, used = operator.cpu() - cpu, Usage.now(pids()).since(before)
    after = await operator.metrics()
    minutes = seconds / 60
    calls = difference(after.calls(), scraped.calls())
    values = {
        "seconds": seconds,
        "writes_per_minute": (after.writes() - scraped.writes()) / minutes,
        "lease_writes_per_minute": (calls.get("replace Lease", 0.0) + calls.get("create Lease", 0.0)) / minutes,
        "reconciles_per_minute": (_reconciles(after) - _reconciles(scraped)) / minutes,
        "watch_events_per_minute": (_events(after) - _events(scraped)) / minutes,
        "cpu_percent_of_a_core": spent / seconds * 100,
        "resident_mib": operator.memory()[0],
        "scrape_ms": scrape_ms,
    }
    return Phase(name="idle", values=values, calls=calls, used=used)


async def restart(operator: MeasuredOperator, pids: Pids, *, count: int) -> Phase:
    """Start an operator with all runs present; time it until it leads, and until it has looked at all of them."""
    before = Usage.now(pids())
    leading = await operator.leading()
    rested, spent = await operator.rest(seconds=REST_SECONDS)
    used = Usage.now(pids()).since(before)
    after = await operator.metrics()
    resident, peak = operator.memory()
    values = {
        "resources": count,
        "leading_seconds": leading,
        "rest_seconds": rested - operator.spawned,
        "cpu_seconds": spent,
        "writes": after.writes(),
        "reconciles": _reconciles(after),
        "resident_mib": resident,
        "peak_mib": peak,
    }
    return Phase(name="restart", values=values, calls=after.calls(), used=used)


def _reconciles(samples: Samples) -> float:
    return samples.total("rft_reconciles_total")


def _events(samples: Samples) -> float:
    return samples.total("rft_watch_events_total")


def raw(phases: Sequence[Phase]) -> dict[str, Any]:
    """Return everything that was measured, for the JSON file."""
    return {each.name: {"values": each.values, "calls": each.calls, "used": each.used} for each in phases}
