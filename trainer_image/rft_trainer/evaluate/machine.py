"""What this process may use: of a pod its limits, elsewhere what the machine has.

Invariant: so many programs run at once as have a processor each, and room for all that each may take; a program that is
stopped by its own limit must never be the reason that the pod reaches its own.
"""

from __future__ import annotations

import os
from pathlib import Path

from rft_trainer.errors import BadInputError
from rft_trainer.sandbox.limits import MEBIBYTE, memory_mib_for, programs_in

CGROUPS = Path("/sys/fs/cgroup")


def programs_at_once(*, program_mib: int) -> int:
    """How many programs may run at once; raises :class:`BadInputError` where there is no room for one."""
    memory = memory_mib()
    room = programs_in(memory, program_mib=program_mib)
    if room == 0:
        least = memory_mib_for(1, program_mib=program_mib)
        raise BadInputError(
            f"memory: there are {memory} MiB, and a program may take {program_mib} MiB; run programs where at least "
            f"{least} MiB are (on a cluster: evaluation.codeExecution.memory)"
        )
    return min(processors(), room)


def processors() -> int:
    """How many processors there are: of a pod, what its limit on CPU comes to."""
    available = len(os.sched_getaffinity(0))
    quota = _number("cpu.max", 0) or _number("cpu/cpu.cfs_quota_us", 0)
    period = _number("cpu.max", 1) or _number("cpu/cpu.cfs_period_us", 0)
    return max(1, min(available, quota // period if quota and period else available))


def memory_mib() -> int:
    """How much memory there is: of a pod, its limit."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _number("memory.max", 0) or _number("memory/memory.limit_in_bytes", 0)
    return min(installed, limit or installed) // MEBIBYTE


def _number(name: str, index: int) -> int | None:
    """A number of this process's control group, version 2 or 1; None where there is none, which means no bound."""
    try:
        number = int((CGROUPS / name).read_text().split()[index])
    except (OSError, ValueError, IndexError):
        return None
    return number if number > 0 else None
