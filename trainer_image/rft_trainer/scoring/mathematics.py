"""Asks the process that compares expressions, within a time limit.

Invariant: an expression that hangs or kills that process costs one verdict; one that cannot start at all is an error.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import select
import subprocess
import sys

from rft_trainer.errors import StageError

TIMEOUT_SECONDS = 10.0
START_TIMEOUT_SECONDS = 120.0


class Mathematics:
    """Keeps one worker process, and starts another when it had to be killed."""

    def __init__(self) -> None:
        self._worker: subprocess.Popen[str] | None = None

    def compare(self, *, gold: str, answer: str) -> str:
        """``equal``, ``different``, ``unparsed`` or ``timeout``."""
        if self._worker is None:
            self._start()
        line = self._ask({"gold": gold, "answer": answer}, timeout_seconds=TIMEOUT_SECONDS)
        if not line:
            self.close()
            return "unparsed" if line is not None else "timeout"
        return str(json.loads(line)["verdict"])

    def _ask(self, request: dict[str, str], *, timeout_seconds: float) -> str | None:
        """The worker's line, empty when it died, None when it took too long."""
        worker = self._worker
        assert worker is not None
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            worker.stdin.write(json.dumps(request) + "\n")
            worker.stdin.flush()
        except BrokenPipeError:
            return ""
        ready, _, _ = select.select([worker.stdout], [], [], timeout_seconds)
        return worker.stdout.readline() if ready else None

    def _start(self) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise StageError(
                "scorer math: math-verify is not installed; pip install 'reasoning-finetune-operator[score]' brings it"
            )
        command = [sys.executable, "-W", "ignore", "-m", "rft_trainer.scoring.math_worker"]
        self._worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        if not self._ask({"gold": "1", "answer": "1"}, timeout_seconds=START_TIMEOUT_SECONDS):
            self.close()
            raise StageError(
                "scorer math: math-verify does not start; python -m rft_trainer.scoring.math_worker says why"
            )

    def close(self) -> None:
        """End the worker."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.kill()
        worker.wait()
        for stream in (worker.stdin, worker.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # what a dead worker never read
                    stream.close()
