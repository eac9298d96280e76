"""The nodes' cgroups, in every hierarchy of cgroup v1 and in the unified one.

Invariant: after :func:`remove` no process and no folder of the cluster is left below /sys/fs/cgroup.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from rft_local.processes import wait_until

ROOT = Path("/sys/fs/cgroup")
UNIFIED_MARK = "cgroup.controllers"


def _hierarchies() -> Iterator[Path]:
    if (ROOT / UNIFIED_MARK).exists():
        yield ROOT
        return
    yield from sorted(folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.is_symlink())


def create(root: str, nodes: list[str]) -> None:
    """Make ``root/NODE`` in every hierarchy; a new cpuset starts empty and must be filled from its parent."""
    for hierarchy in _hierarchies():
        for folder in (hierarchy / root, *(hierarchy / root / node for node in nodes)):
            folder.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):
                parent = folder.parent / name
                if (folder / name).exists() and parent.exists() and not (folder / UNIFIED_MARK).exists():
                    (folder / name).write_text(parent.read_text())
    if (ROOT / UNIFIED_MARK).exists():
        _delegate(ROOT / root)


def _delegate(folder: Path) -> None:
    """cgroup v2: let the nodes' folders use every controller."""
    controllers = " ".join(f"+{name}" for name in (folder / UNIFIED_MARK).read_text().split())
    for each in (folder.parent, folder):
        with contextlib.suppress(OSError):
            (each / "cgroup.subtree_control").write_text(controllers)


def processes(root: str) -> set[int]:
    """Return the pids in all cgroups of the cluster."""
    pids: set[int] = set()
    for hierarchy in _hierarchies():
        for file in (hierarchy / root).rglob("cgroup.procs"):
            with contextlib.suppress(OSError):
                pids |= {int(line) for line in file.read_text().split()}
    return pids - {0}


def remove(root: str) -> None:
    """Kill what is left in the cluster's cgroups and remove them."""

    def empty() -> bool:
        for pid in processes(root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not processes(root)

    wait_until(empty, what=f"the cgroups {root} to become empty", seconds=15)
    for hierarchy in _hierarchies():
        folder = hierarchy / root
        if not folder.exists():
            continue
        for sub in sorted(folder.rglob("*"), key=lambda path: len(path.parts), reverse=True):
            if sub.is_dir():
                sub.rmdir()
        folder.rmdir()
