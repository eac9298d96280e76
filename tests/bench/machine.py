"""What the machine is, and who used its processors: figures mean nothing without both.

Invariant: strangers' use is what the kernel says was used in all, less what the benchmark's own processes used.
"""

from __future__ import annotations

import os
import platform
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rft_local.tools import FAMILIES, version_of

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
BUSY_FIELDS = (0, 1, 2, 5, 6)
"""user, nice, system, irq, softirq of /proc/stat."""


def facts() -> dict[str, str]:
    """Return what the figures depend on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in ("kopf", "kubernetes", "aiohttp", "pydantic"))
    return {
        "processor": f"{os.cpu_count()} cores, {_processor()}",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "kubernetes": version_of(FAMILIES["kubernetes"]),
        "etcd": version_of(FAMILIES["etcd"]),
        "python": f"{platform.python_version()} ({_build()}), {packages}",
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _build() -> str:
    """Tell how the interpreter was built: one without profile-guided optimisation is slower."""
    optimised = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return "optimised build" if optimised else "build without optimisations"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time a process has used, all of its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def memory_mib(pid: int) -> tuple[float, float]:
    """Return the resident memory of a process now, and its peak."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return sizes["VmRSS"], sizes["VmHWM"]


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds by who used them."""

    parts: Mapping[str, float]
    total: float

    @classmethod
    def now(cls, pids: Mapping[str, int]) -> Usage:
        """Read the counters of the named processes and of the machine."""
        numbers = Path("/proc/stat").read_text(encoding="utf-8").split("\n", 1)[0].split()[1:]
        busy = sum(int(numbers[index]) for index in BUSY_FIELDS) / TICKS_PER_SECOND
        return cls({name: cpu_seconds(pid) for name, pid in pids.items()}, busy)

    def since(self, before: Usage) -> dict[str, float]:
        """Return what each part used between two readings, strangers last."""
        used = {name: round(seconds - before.parts.get(name, 0.0), 2) for name, seconds in self.parts.items()}
        return {**used, "strangers": round(max(0.0, self.total - before.total - sum(used.values())), 2)}
