"""``rft-launch``, before anything is loaded.

Invariant: a stop that is asked for while libraries load is not lost. Process 1 has no default for signals: the kernel
drops one that nobody handles, and asks only once; the pod would go on, and be paid for, until its grace is over.
"""

from __future__ import annotations

import signal
import sys
from types import FrameType


def main() -> int:
    """Entry point; returns the pod's exit code."""
    early: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        early.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, remember)
    from rft_trainer.launch.main import main as launch

    return launch(early=early)


if __name__ == "__main__":
    sys.exit(main())
