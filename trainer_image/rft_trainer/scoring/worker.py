"""A process that answers one line of JSON with another, within a time limit.

Invariant: a request that hangs or kills the process costs itself alone: the process is ended, and the next one asked.
"""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
from collections.abc import Mapping

TIMEOUT_SECONDS = 10.0
START_TIMEOUT_SECONDS = 120.0
"""Of a process that loads its libraries first."""


class WorkerProcess:
    """Keeps one process of a module of ours; it is started when it is first asked."""

    def __init__(self, module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        """``environment``: this process's own where none is given."""
        self._command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self._process is not None

    def starts(self, request: Mapping[str, str]) -> bool:
        """Whether a new process answers a first request."""
        return bool(self.ask(request, timeout_seconds=START_TIMEOUT_SECONDS))

    def ask(self, request: Mapping[str, str], *, timeout_seconds: float) -> str | None:
        """The process's line, empty when it died, None when it took too long; it is ended in both cases."""
        line = self._ask(request, timeout_seconds=timeout_seconds)
        if not line:
            self.close()
        return line

    def _ask(self, request: Mapping[str, str], *, timeout_seconds: float) -> str | None:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                env=self._environment,
            )  # fmt: skip
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return ""
        ready, _, _ = select.select([process.stdout], [], [], timeout_seconds)
        return process.stdout.readline() if ready else None

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what a dead process never read
                    stream.close()
