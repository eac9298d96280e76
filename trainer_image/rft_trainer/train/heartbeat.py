"""A rank's sign of life, and what it leaves behind when it is asked where it stands.

Invariant: a beat costs one small write and blocks on nobody; the stacks are written by a signal handler in C, which
works while Python hangs in a collective. The supervisor, not the rank, decides what is a hang.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
from pathlib import Path

from rft_trainer.files import write_atomic
from rft_trainer.paths import Layout

STACK_SIGNAL = signal.SIGUSR2
LINE_BYTES = 64
"""Of a fixed length, so that one write replaces the line before."""
_POLL_SECONDS = 0.5


class Heartbeat:
    """``heartbeat/rank-N``: the process id, the phase, and the place in it."""

    def __init__(self, layout: Layout, *, rank: int) -> None:
        layout.heartbeats.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(layout.heartbeats / f"rank-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)

    def beat(self, phase: str, place: str = "") -> None:
        """Say that this rank is alive and where it stands."""
        line = f"{os.getpid()} {phase} {place}".encode()[: LINE_BYTES - 1]
        os.pwrite(self._descriptor, line.ljust(LINE_BYTES - 1) + b"\n", 0)


def answer_dump_requests(layout: Layout, *, rank: int) -> None:
    """From now on, write the stacks when the signal comes and the flight record when the request's file is there."""
    layout.stacks.mkdir(parents=True, exist_ok=True)
    stream = (layout.stacks / f"rank-{rank}.txt").open("w")
    faulthandler.register(STACK_SIGNAL, file=stream, all_threads=True)
    arguments = (layout, flight_record(layout, rank=rank))
    threading.Thread(target=_await_dump_request, args=arguments, name="flight", daemon=True).start()


def flight_record(layout: Layout, *, rank: int) -> Path:
    """Where a rank writes its last collectives."""
    return layout.stacks / f"flight-rank-{rank}.json"


def _await_dump_request(layout: Layout, destination: Path) -> None:
    idle = threading.Event()
    while not layout.dump_request.exists():
        idle.wait(_POLL_SECONDS)
    write_atomic(destination, last_collectives())


def last_collectives() -> bytes:
    """The flight record of this process as JSON.

    NCCL writes into a recorder of its own, for CUDA's events; the general one stays empty whatever backend it is
    asked for.
    """
    import torch
    from torch._C import _distributed_c10d as recorders

    if torch.cuda.is_available():
        return bytes(recorders._dump_nccl_trace_json())  # type: ignore[attr-defined] # not in torch's annotations
    return bytes(recorders._dump_fr_trace_json(backend="gloo"))
