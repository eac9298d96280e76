"""Asks the process that compares expressions, within a time limit.

Invariant: an expression that hangs or kills that process costs one verdict; one that cannot start at all is an error.
"""

from __future__ import annotations

import importlib.util
import json

from rft_trainer.errors import StageError
from rft_trainer.scoring.worker import TIMEOUT_SECONDS, WorkerProcess


class Mathematics:
    """Keeps one worker process."""

    def __init__(self) -> None:
        self._worker = WorkerProcess("rft_trainer.scoring.math_worker")

    def compare(self, *, gold: str, answer: str) -> str:
        """``equal``, ``different``, ``unparsed`` or ``timeout``."""
        if not self._worker.runs:
            self._start()
        line = self._worker.ask({"gold": gold, "answer": answer}, timeout_seconds=TIMEOUT_SECONDS)
        if not line:
            return "unparsed" if line is not None else "timeout"
        return str(json.loads(line)["verdict"])

    def _start(self) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise StageError(
                "scorer math: math-verify is not installed; pip install 'reasoning-finetune-operator[score]' brings it"
            )
        if not self._worker.starts({"gold": "1", "answer": "1"}):
            raise StageError(
                "scorer math: math-verify does not start; python -m rft_trainer.scoring.math_worker says why"
            )

    def close(self) -> None:
        """End the worker."""
        self._worker.close()
