"""The operator under test: a real process, read from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bench.api import BenchError
from bench.machine import cpu_seconds, memory_mib

START_SECONDS = 60.0
STOP_SECONDS = 60.0
QUIET_SECONDS = 5.0
QUIET_SHARE = 0.05
"""Leader election and the watches' pulse alone use about one percent of a core."""
POLL_SECONDS = 0.05
WRITES = ("apply", "apply_status", "set_finalizers", "delete", "create", "replace")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Samples:
    """One scrape of ``/metrics``."""

    def __init__(self, text: str) -> None:
        self._samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that carry these labels."""
        wanted = labels.items()
        return sum(each.value for each in self._samples if each.name == name and wanted <= each.labels.items())

    def calls(self) -> dict[str, float]:
        """Return the calls to the API server by ``verb kind``."""
        found: dict[str, float] = {}
        for each in self._samples:
            if each.name == "rft_api_requests_total":
                what = f"{each.labels['verb']} {each.labels['kind']}"
                found[what] = found.get(what, 0.0) + each.value
        return found

    def writes(self) -> float:
        """Return the writes to the API server, those of leader election excepted."""
        return sum(
            count for what, count in self.calls().items() if what.split()[0] in WRITES and what.split()[1] != "Lease"
        )


class OperatorProcess:
    """``python -m rft_operator`` with its log in a file."""

    def __init__(self, *, environment: Mapping[str, str], log: Path) -> None:
        self._port = free_port()
        self._log = log
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RFT_", "KUBE"))}
        self._environment = {**kept, **environment, "RFT_METRICS_PORT": str(self._port)}

    async def __aenter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "rft_operator", env=self._environment, stdout=log, stderr=log
            )
        self.spawned = time.perf_counter()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    @property
    def pid(self) -> int:
        """The process; raises BenchError if it has ended."""
        if self._process.returncode is not None:
            tail = "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:])
            raise BenchError(f"the operator ended with {self._process.returncode}; its log ends with:\n{tail}")
        return self._process.pid

    def cpu(self) -> float:
        """Return the CPU seconds used so far."""
        return cpu_seconds(self.pid)

    def memory(self) -> tuple[float, float]:
        """Return resident memory and its peak in MiB."""
        return memory_mib(self.pid)

    async def _get(self, path: str) -> str:
        url = f"http://127.0.0.1:{self._port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return await response.text()

    async def metrics(self) -> Samples:
        """Scrape the metrics."""
        return Samples(await self._get("/metrics"))

    async def leading(self) -> float:
        """Wait until it leads, which is after its first sweep; return the seconds since it was started."""
        deadline = self.spawned + START_SECONDS
        while time.perf_counter() < deadline:
            _ = self.pid
            try:
                if await self._get("/readyz") == "leading\n":
                    return time.perf_counter() - self.spawned
            except aiohttp.ClientConnectorError:
                pass
            await asyncio.sleep(POLL_SECONDS)
        raise BenchError(f"the operator did not lead within {START_SECONDS:.0f} s; its log is {self._log}")

    async def rest(self, *, seconds: float, quiet_seconds: float = QUIET_SECONDS) -> float:
        """Wait until it has been idle for ``quiet_seconds``; return the ``perf_counter`` time at which that began."""
        deadline = time.perf_counter() + seconds
        since, used = time.perf_counter(), self.cpu()
        while time.perf_counter() < deadline:
            await asyncio.sleep(0.5)
            if self.cpu() - used > QUIET_SHARE * quiet_seconds:
                since, used = time.perf_counter(), self.cpu()
            elif time.perf_counter() - since >= quiet_seconds:
                return since
        raise BenchError(f"the operator did not come to rest within {seconds:.0f} s; its log is {self._log}")

    async def stop(self) -> float:
        """Ask it to end; return how many seconds that took."""
        began = time.perf_counter()
        self._process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(STOP_SECONDS):
            code = await self._process.wait()
        if code != 0:
            raise BenchError(f"the operator ended with {code} after SIGTERM; its log is {self._log}")
        return time.perf_counter() - began
