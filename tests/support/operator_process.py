"""An operator under test, looked at from outside: its HTTP endpoints, and its process where it is one."""

from __future__ import annotations

import asyncio
import contextlib
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

START_SECONDS = 60.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.05
WRITES = ("apply", "apply_status", "set_finalizers", "set_deadline", "open_gate", "delete", "create", "replace")
LEADING = "leading\n"
STANDING_BY = "standing by\n"


class OperatorError(Exception):
    """The operator did not do what whoever started it needs."""


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

    def names(self) -> set[str]:
        """Return the names of all series."""
        return {each.name for each in self._samples}

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


class Operator:
    """Whatever serves an operator's endpoints on a port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.spawned = time.perf_counter()

    async def get(self, path: str) -> tuple[int, str]:
        """Return status and text of an endpoint."""
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.text()

    async def metrics(self) -> Samples:
        """Scrape the metrics."""
        return Samples((await self.get("/metrics"))[1])

    async def leading(self) -> float:
        """Wait until it leads, which is after its first sweep; return the seconds since it was started."""
        return await self.ready(LEADING)

    async def ready(self, word: str) -> float:
        """Wait until ``/readyz`` says a word; return the seconds since the operator was started."""
        deadline = time.perf_counter() + START_SECONDS
        while time.perf_counter() < deadline:
            self.check_alive()
            with contextlib.suppress(aiohttp.ClientConnectionError):
                if await self.get("/readyz") == (200, word):
                    return time.perf_counter() - self.spawned
            await asyncio.sleep(POLL_SECONDS)
        raise OperatorError(f"/readyz did not say {word.strip()!r} within {START_SECONDS:.0f} s")

    def check_alive(self) -> None:
        """Raise OperatorError if it has ended."""
        raise NotImplementedError


class OperatorProcess(Operator):
    """``python -m rft_operator`` with its log in a file."""

    def __init__(self, *, environment: Mapping[str, str], log: Path) -> None:
        super().__init__(free_port())
        self.log = log
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RFT_", "KUBE"))}
        self._environment = {**kept, **environment, "RFT_METRICS_PORT": str(self.port)}

    async def __aenter__(self) -> Self:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "rft_operator", env=self._environment, stdout=log, stderr=log
            )
        self.spawned = time.perf_counter()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process.returncode is None:
            await self.kill()

    @property
    def pid(self) -> int:
        """The process; raises OperatorError if it has ended."""
        self.check_alive()
        return self._process.pid

    def words(self) -> str:
        """Return all it has logged."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def check_alive(self) -> None:
        """Raise OperatorError if it has ended."""
        if self._process.returncode is not None:
            tail = "\n".join(self.words().splitlines()[-8:])
            raise OperatorError(f"the operator ended with {self._process.returncode}; its log ends with:\n{tail}")

    async def kill(self) -> None:
        """SIGKILL it."""
        self._process.kill()
        await self._process.wait()

    async def ended(self) -> int:
        """Wait until it ends by itself; return its exit code."""
        async with asyncio.timeout(STOP_SECONDS):
            return await self._process.wait()

    async def stop(self) -> float:
        """Ask it to end; return how many seconds that took."""
        began = time.perf_counter()
        self._process.send_signal(signal.SIGTERM)
        code = await self.ended()
        if code != 0:
            raise OperatorError(f"the operator ended with {code} after SIGTERM; its log is {self.log}")
        return time.perf_counter() - began
