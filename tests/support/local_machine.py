"""What a test sees of the local cluster from the machine below it: processes, links, namespaces, cgroups, mounts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from rft_local.layout import Layout


def can_run_nodes() -> bool:
    """Return whether nodes can be started here."""
    return sys.platform == "linux" and os.geteuid() == 0


def processes_of(layout: Layout) -> list[psutil.Process]:
    """Return every process whose command line or cgroup belongs to the cluster."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            groups = Path(f"/proc/{process.pid}/cgroup").read_text()
        except (psutil.Error, OSError):
            continue
        if str(layout.state) in words or f":/{layout.cgroup}/" in groups:
            found.append(process)
    return found


def container_processes(layout: Layout, *, pod_uid: str, word: str) -> list[psutil.Process]:
    """Return the processes of a pod whose command line has a word."""
    return [
        process
        for process in processes_of(layout)
        if pod_uid in Path(f"/proc/{process.pid}/cgroup").read_text() and word in " ".join(process.cmdline())
    ]


def traces_of(layout: Layout) -> list[str]:
    """Return everything of a cluster that is still on the machine, in words."""
    number = layout.number
    traces = [f"process {process.pid}: {' '.join(process.cmdline())[:120]}" for process in processes_of(layout)]
    links = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    traces += [f"link {line}" for line in links.splitlines() if line.startswith((f"rft{number} ", f"rft{number}n"))]
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout
    traces += [f"route {line}" for line in routes.splitlines() if f"198.18.{layout.base}." in line]
    names = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    traces += [f"namespace {line}" for line in names.splitlines() if line.startswith(f"rft{number}-")]
    traces += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(f"*/{layout.cgroup}")]
    traces += [f"cgroup {path}" for path in Path("/sys/fs/cgroup").glob(layout.cgroup)]
    mounts = Path("/proc/mounts").read_text().splitlines()
    traces += [f"mount {line}" for line in mounts if str(layout.state) in line]
    if layout.state.exists():
        traces.append(f"folder {layout.state}")
    return traces
