"""The operator under test: a real process, read from outside, with what it uses of the machine."""

from __future__ import annotations

import asyncio
import time

from bench.machine import cpu_seconds, memory_mib
from support.operator_process import OperatorError, OperatorProcess

QUIET_SECONDS = 5.0
QUIET_SHARE = 0.05
"""Leader election and the watches' pulse alone use about one percent of a core."""


class MeasuredOperator(OperatorProcess):
    """An operator's process and its use of processors and memory."""

    def cpu(self) -> float:
        """Return the CPU seconds used so far."""
        return cpu_seconds(self.pid)

    def memory(self) -> tuple[float, float]:
        """Return resident memory and its peak in MiB."""
        return memory_mib(self.pid)

    async def rest(self, *, seconds: float, quiet_seconds: float = QUIET_SECONDS) -> tuple[float, float]:
        """Wait until it has been idle for ``quiet_seconds``.

        Returns the ``perf_counter`` time at which that began, and the CPU seconds used by then.
        """
        deadline = time.perf_counter() + seconds
        since, used = time.perf_counter(), self.cpu()
        while time.perf_counter() < deadline:
            await asyncio.sleep(0.5)
            if self.cpu() - used > QUIET_SHARE * quiet_seconds:
                since, used = time.perf_counter(), self.cpu()
            elif time.perf_counter() - since >= quiet_seconds:
                return since, used
        raise OperatorError(f"the operator did not come to rest within {seconds:.0f} s; its log is {self.log}")
