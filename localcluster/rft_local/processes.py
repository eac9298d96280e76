"""Background processes with a memory: who was started, so that exactly those can be ended.

Invariant: a pid is only ever signalled if the process behind it started when the record says, so a reused pid of
somebody else's process is safe.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rft_local.errors import StartError
from rft_local.proxy import direct


class Record(NamedTuple):
    """A process and when it started, in clock ticks since boot."""

    pid: int
    start_ticks: int


def start_ticks(pid: int) -> int | None:
    """Return when a process started, or None if there is none (a zombie counts as none)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rsplit(")", 1)[1].split()
    return None if fields[0] == "Z" else int(fields[19])


class Processes:
    """The processes of one cluster, recorded in its state folder."""

    def __init__(self, state: Path) -> None:
        self._file = state / "processes.json"
        self._logs = state / "log"
        self._logs.mkdir(parents=True, exist_ok=True)

    def records(self) -> dict[str, Record]:
        """Return all records by name."""
        try:
            raw = json.loads(self._file.read_text())
        except FileNotFoundError:
            return {}
        return {name: Record(*pair) for name, pair in raw.items()}

    def start(self, name: str, argv: Sequence[str | Path], *, environment: Mapping[str, str] | None = None) -> int:
        """Start a process in a session of its own, with its output in ``log/NAME.log``; return its pid."""
        with (self._logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**direct(os.environ), **(environment or {})},
                cwd="/",
            )
        started = start_ticks(process.pid)
        if started is None:
            msg = f"{name} ended at once; {self.tail(name)}"
            raise StartError(msg)
        try:
            self._save({**self.records(), name: Record(process.pid, started)})
        except OSError:  # a full disk: nobody could end what is on no record
            process.kill()
            process.wait()
            raise
        _reap_later(process)
        return process.pid

    def alive(self, name: str) -> bool:
        """Return whether a recorded process still runs."""
        record = self.records().get(name)
        return record is not None and start_ticks(record.pid) == record.start_ticks

    def pid(self, name: str) -> int | None:
        """Return the pid of a process that runs, or None."""
        record = self.records().get(name)
        return record.pid if record is not None and self.alive(name) else None

    def signal(self, name: str, number: int) -> bool:
        """Send a signal to a recorded process; return whether it still ran."""
        record = self.records().get(name)
        if record is None or start_ticks(record.pid) != record.start_ticks:
            return False
        try:
            os.kill(record.pid, number)
        except ProcessLookupError:
            return False
        return True

    def kill(self, name: str) -> None:
        """SIGKILL a recorded process, wait until it is gone, forget it."""
        pid = self.pid(name)
        if self.signal(name, signal.SIGKILL):
            wait_until(lambda: not self.alive(name), what=f"{name} to end", seconds=10)
            # A program's first thread is a zombie before the others have ended; only then can it be collected.
            wait_until(lambda: _reaped(pid), what=f"{name} to be collected", seconds=10)
        with contextlib.suppress(OSError):  # a full disk; the record of a process that is gone harms nobody
            self._save({other: record for other, record in self.records().items() if other != name})

    def tail(self, name: str, lines: int = 8) -> str:
        """Return the end of a process's log, for error messages."""
        path = self._logs / f"{name}.log"
        text = path.read_text(errors="replace") if path.exists() else ""
        return f"log {path}:\n" + "\n".join(text.splitlines()[-lines:])

    def _save(self, records: Mapping[str, Record]) -> None:
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(records))
        temporary.rename(self._file)


_children: list[subprocess.Popen[bytes]] = []


def _reap_later(process: subprocess.Popen[bytes]) -> None:
    """Keep the handle so that a child that ends while this process lives leaves no zombie behind."""
    _reap()
    _children.append(process)


def _reap() -> None:
    """Collect the children that have ended; what is forgotten here is a warning when this process exits."""
    _children[:] = [each for each in _children if each.poll() is None]


def _reaped(pid: int | None) -> bool:
    """Return whether a process, if it was a child of this one, has been collected."""
    _reap()
    return all(each.pid != pid for each in _children)


def wait_until(
    holds: Callable[[], bool],
    *,
    what: str,
    seconds: float,
    every_seconds: float = 0.1,
    hint: Callable[[], str] = lambda: "",
) -> None:
    """Poll until something holds; raises StartError after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            msg = f"waited {seconds:.0f} s for {what}. {hint()}"
            raise StartError(msg)
        _reap()
        time.sleep(every_seconds)
