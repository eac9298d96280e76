"""One supervised child and everything it starts.

Invariant: when :meth:`Child.kill` returns, no process of this pod but ours is left, or none that a signal can end: we
are a subreaper (or process 1), so orphans come to us and are reaped.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from rft_trainer.launch.output import Output

KILL_SECONDS = 10.0
_PR_SET_CHILD_SUBREAPER = 36
_ERROR_LINE = re.compile(r"^(?:\[rank\d+\]:\s*)?((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Killed)\b.*)")


def become_subreaper() -> None:
    """Make orphans of our children our own children, as for process 1."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Child:
    """A process whose output passes through us, as that of the ranks below it, so its last error line is known."""

    def __init__(
        self, command: Sequence[str], *, environment: dict[str, str], ranks: Mapping[Path, int] = MappingProxyType({})
    ) -> None:
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        assert self._process.stdout is not None
        self._output = Output(os.dup(self._process.stdout.fileno()), ranks=ranks)
        self._process.stdout.close()
        self.returncode: int | None = None
        """Exit code, or the negative signal number; None while it runs."""

    @property
    def error_line(self) -> str | None:
        """The last line that looks like an exception, else the last line."""
        lines = [line for line in self._output.newest if line.strip()]
        for line in reversed(lines):
            match = _ERROR_LINE.match(line)
            if match is not None:
                return match[1]
        return lines[-1] if lines else None

    def poll(self) -> bool:
        """Reap what has ended; True when the child itself has."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return self.returncode is not None
            if pid == 0:
                return self.returncode is not None
            if pid == self._process.pid:
                self.returncode = os.waitstatus_to_exitcode(status)
                self._process.returncode = self.returncode

    def kill(self, *, timeout_seconds: float = KILL_SECONDS) -> None:
        """Kill the child and all its descendants, and reap them; one that waits for a disk is not waited for longer."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            descendants = descendants_of(os.getpid())
            if not descendants and self.poll():
                break
            for pid in descendants:
                _kill(pid)
            self.poll()
            time.sleep(0.05)
        self._output.finish(timeout_seconds=2)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def descendants_of(ancestor: int) -> list[int]:
    """Living processes below ``ancestor``; zombies are left out."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    queue = [ancestor]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found
