"""What a test sees of the local cluster from the machine below it: processes, links, namespaces, cgroups, mounts."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

from rft_local.layout import Layout


def can_run_nodes() -> bool:
    """Return whether nodes can be started here."""
    return sys.platform == "linux" and os.geteuid() == 0


def let_go_first(layout: Layout) -> None:
    """Give a cluster's pods eight times the processor time of another group of processes, where they compete.

    All of its pods together count as much as one session else, and a gang would crawl beside other tests.
    """
    for file, weight in (("cpu/{}/cpu.shares", 8_192), ("{}/cpu.weight", 800)):
        path = Path("/sys/fs/cgroup", file.format(layout.cgroup))
        if path.exists():
            path.write_text(str(weight))


def processes_of(layout: Layout) -> list[psutil.Process]:
    """Return every process whose command line or cgroup belongs to the cluster."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            groups = Path(f"/proc/{process.pid}/cgroup").read_text()
        except (psutil.Error, OSError):
            continue
        # A control plane alone has no cgroup: its number is that of a cluster of somebody else.
        if str(layout.state) in words or (layout.nodes and f":/{layout.cgroup}/" in groups):
            found.append(process)
    return found


def kill_processes_of(layout: Layout) -> None:
    """SIGKILL everything of a cluster; some die of others' deaths before their turn."""
    deadline = time.monotonic() + 30
    while found := processes_of(layout):  # a supervisor may start another one before its own turn
        assert time.monotonic() < deadline, f"processes that do not die: {found}"
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=5)


def container_processes(layout: Layout, *, pod_uid: str, word: str) -> list[psutil.Process]:
    """Return the processes of a pod whose command line has a word."""
    found = []
    for process in processes_of(layout):
        with contextlib.suppress(psutil.NoSuchProcess, OSError):
            in_pod = pod_uid in Path(f"/proc/{process.pid}/cgroup").read_text()
            if in_pod and word in " ".join(process.cmdline()):
                found.append(process)
    return found


def traces_of(layout: Layout) -> list[str]:
    """Return everything of a cluster that is still on the machine, in words."""
    number = layout.number
    traces = [f"process {process.pid}" for process in processes_of(layout)]
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
