"""``python -m bench``: run the four measurements, print the table; exit 0 even on a miss, 1 when there is no figure."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click

from bench.api import BenchError
from bench.machine import facts
from bench.phases import (
    BURST_NAMESPACES,
    STEADY_NAMESPACE,
    Phase,
    at_once,
    idle,
    raw,
    restart,
    steady,
)
from bench.process import MeasuredOperator
from bench.report import rows, table, verdict
from bench.rig import Rig, rig
from rft_local.errors import LocalClusterError
from support.operator_process import OperatorError


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much is measured; the targets speak of the defaults."""

    rate: float = 5.0
    steady_seconds: float = 20.0
    count: int = 1_000
    idle_seconds: float = 60.0


def say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


@click.command()
@click.option("--rate", default=Load().rate, show_default=True, help="Creates per second of the steady phase.")
@click.option("--steady-seconds", default=Load().steady_seconds, show_default=True, help="Length of the steady phase.")
@click.option("--count", default=Load().count, show_default=True, help="Resources of the burst.")
@click.option("--idle-seconds", default=Load().idle_seconds, show_default=True, help="Length of the idle phase.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
def main(rate: float, steady_seconds: float, count: int, idle_seconds: float, json_file: Path | None) -> None:
    """Measure the operator on a real control plane."""
    load = Load(rate=rate, steady_seconds=steady_seconds, count=count, idle_seconds=idle_seconds)
    machine = facts()
    folder = Path(tempfile.mkdtemp(prefix="rft-bench-"))
    try:
        phases = asyncio.run(measure(load, folder))
    except* (BenchError, OperatorError, LocalClusterError, TimeoutError, OSError) as errors:
        for error in leaves(errors):
            say(f"error: {type(error).__name__}: {error}; logs are in {folder}")
        sys.exit(1)
    found = rows(phases)
    full_load = load == Load()
    click.echo(table(found, phases, machine, full_load=full_load))
    if json_file is not None:
        lines = [{**asdict(row), "verdict": verdict(row, full_load=full_load)} for row in found]
        report = {"version": 1, "machine": machine, "load": asdict(load), "rows": lines, "phases": raw(phases)}
        json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder)


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    """Return the errors of a group of groups."""
    found: list[BaseException] = []
    for each in group.exceptions:
        found += leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


async def measure(load: Load, folder: Path) -> list[Phase]:
    """Run all phases on a control plane of their own."""
    async with rig(folder, [STEADY_NAMESPACE, *BURST_NAMESPACES]) as control_plane:
        found = await _first_operator(load, control_plane)
        async with control_plane.operator() as operator:
            say("restart ...")
            found.append(await restart(operator, partial(_pids, control_plane, operator), count=load.count))
            await operator.stop()
    return found


async def _first_operator(load: Load, control_plane: Rig) -> list[Phase]:
    api = control_plane.api
    async with control_plane.operator() as operator:
        pids = partial(_pids, control_plane, operator)
        await operator.leading()
        say("steady ...")
        found = [await steady(api, operator, pids, per_second=load.rate, seconds=load.steady_seconds)]
        say("burst ...")
        found.append(await at_once(api, operator, pids, count=load.count))
        say("idle ...")
        found.append(await idle(operator, pids, seconds=load.idle_seconds))
        await operator.stop()
    return found


def _pids(control_plane: Rig, operator: MeasuredOperator) -> dict[str, int]:
    return {**control_plane.pids(), "operator": operator.pid, "benchmark": os.getpid()}


if __name__ == "__main__":
    main()
