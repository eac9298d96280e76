"""The table: what was measured, what the target is, and whether it was met.

Invariant: a verdict is only given for the full load that the target speaks of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.phases import Phase


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    what: str
    measured: float
    unit: str = ""
    below: float | None = None
    """The target, if measured must be less."""
    at_least: float | None = None
    """The target, if measured must not be less."""
    at_most: float | None = None
    """The target, if measured must not be more."""

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without a target."""
        if self.below is not None:
            return self.measured < self.below
        if self.at_least is not None:
            return self.measured >= self.at_least
        return self.measured <= self.at_most if self.at_most is not None else None

    @property
    def target(self) -> str:
        """The target in words."""
        if self.below is not None:
            return f"< {_short(self.below)}"
        if self.at_least is not None:
            return f">= {_short(self.at_least)}"
        return _short(self.at_most) if self.at_most is not None else ""


def _short(number: float) -> str:
    return f"{number:.0f}" if number == round(number) or abs(number) >= 1_000 else f"{number:.1f}"


def rows(phases: Sequence[Phase]) -> list[Row]:
    """Return the table's lines in the order of the phases."""
    makers = {"steady": _steady, "burst": _burst, "idle": _idle, "restart": _restart}
    return [row for phase in phases for row in makers[phase.name](phase.values)]


def _steady(it: Mapping[str, float]) -> list[Row]:
    load = f"{it['per_second']:g} creates per second, {it['resources']:.0f} in all:"
    found = [Row(what=f"{load} accepted to first child, p50", measured=it["accepted_p50_ms"], unit="ms", below=25)]
    found += [
        Row(what=f"  accepted to first child, p{p}", measured=it[f"accepted_p{p}_ms"], unit="ms") for p in (90, 99)
    ]
    found += [Row(what=f"  sent to first child, p{p}", measured=it[f"sent_p{p}_ms"], unit="ms") for p in (50, 90, 99)]
    return found


def _burst(it: Mapping[str, float]) -> list[Row]:
    rate = it["children_per_second"]
    return [
        Row(what=f"{it['resources']:.0f} creates at once: first children per second", measured=rate, at_least=50),
        Row(
            what="  operator CPU per resource, until all have a first child",
            measured=it["first_child_cpu_ms_per_resource"],
            unit="ms",
            below=12,
        ),
        Row(
            what="  the same until at rest: claim, Job, pod, the scheduler's verdict",
            measured=it["rest_cpu_ms_per_resource"],
            unit="ms",
        ),
        Row(what="  peak resident memory", measured=it["peak_mib"], unit="MiB", below=160),
        Row(what="  creates per second that the API server took", measured=it["creates_per_second"]),
        Row(what="  last first child after", measured=it["last_child_seconds"], unit="s"),
        Row(what="  at rest after", measured=it["rest_seconds"], unit="s"),
        Row(what="  API writes per resource", measured=it["writes"] / it["resources"]),
        Row(what="  reconciles per resource", measured=it["reconciles"] / it["resources"]),
    ]


def _idle(it: Mapping[str, float]) -> list[Row]:
    return [
        Row(what=f"idle for {it['seconds']:.0f} s: API writes per minute", measured=it["writes_per_minute"], at_most=0),
        Row(what="  writes of leader election per minute", measured=it["lease_writes_per_minute"]),
        Row(what="  reconciles per minute", measured=it["reconciles_per_minute"]),
        Row(what="  operator CPU, of one core", measured=it["cpu_percent_of_a_core"], unit="%"),
        Row(what="  resident memory", measured=it["resident_mib"], unit="MiB"),
        Row(what="  one scrape of /metrics", measured=it["scrape_ms"], unit="ms"),
    ]


def _restart(it: Mapping[str, float]) -> list[Row]:
    count = f"{it['resources']:.0f}"
    return [
        Row(what=f"restart with {count} present: API writes", measured=it["writes"], at_most=0),
        Row(what="  leading, and all listed, after", measured=it["leading_seconds"], unit="s"),
        Row(what="  all looked at and at rest after", measured=it["rest_seconds"], unit="s"),
        Row(what="  reconciles", measured=it["reconciles"]),
        Row(what="  operator CPU, start included", measured=it["cpu_seconds"], unit="s"),
        Row(what="  peak resident memory", measured=it["peak_mib"], unit="MiB"),
    ]


def verdict(row: Row, *, full_load: bool) -> str:
    """Return pass, miss, or nothing where there is no target or the load was not the target's."""
    if row.met is None or not full_load:
        return ""
    return "pass" if row.met else "miss"


def table(found: Sequence[Row], phases: Sequence[Phase], machine: Mapping[str, str], *, full_load: bool) -> str:
    """Return the report as text."""
    lines = [f"{name:<12} {value}" for name, value in machine.items()]
    if not full_load:
        lines += ["", "A quick run: the targets are for the default load, so no verdict is given."]
    lines += ["", f"{'':<72}{'measured':>12}  {'target':<8}verdict"]
    for row in found:
        measured = f"{_short(row.measured)} {row.unit}".strip()
        lines.append(f"{row.what:<72}{measured:>12}  {row.target:<8}{verdict(row, full_load=full_load)}".rstrip())
    lines += ["", "CPU seconds used while it was measured:"]
    for phase in phases:
        used = ", ".join(f"{name} {seconds:.1f}" for name, seconds in phase.used.items())
        lines.append(f"  {phase.name:<9} {used}")
    return "\n".join(lines)
