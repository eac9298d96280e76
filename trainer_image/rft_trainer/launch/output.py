"""What the processes of a pod print, as lines on the pod's stdout; those of ranks begin with ``[rank N]``.

Invariant: a line comes out whole, at once, and said by one process; what a process printed last comes out also when it
ended without a line break, or when DeepSpeed's launcher, which starts the ranks, has died. So each rank writes to pipes
of its own that the supervisor reads, and not through the launcher.
"""

from __future__ import annotations

import itertools
import os
import selectors
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

from rft_trainer.paths import Layout

LONGEST_LINE_BYTES = 1 << 20
"""A longer one comes out in parts, so that memory stays bounded."""
KEPT_LINES = 200
_STREAMS = ((1, "stdout"), (2, "stderr"))
_POLL_SECONDS = 0.2
_CHUNK_BYTES = 1 << 16


def make_pipes(layout: Layout, ranks: Sequence[int]) -> dict[Path, int]:
    """Make the pipes of this pod's ranks; each with its rank."""
    layout.output.mkdir(parents=True, exist_ok=True)
    pipes = {layout.output / f"rank-{rank}.{stream}": rank for rank in ranks for _, stream in _STREAMS}
    for path in pipes:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    return pipes


def speak_as_rank(layout: Layout, *, rank: int) -> None:
    """Have what this process prints go to its pipes; where nobody reads them it goes where it went before."""
    for descriptor, stream in _STREAMS:
        try:
            # not blocking, else the opening would wait for a reader
            pipe = os.open(layout.output / f"rank-{rank}.{stream}", os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            continue
        os.set_blocking(pipe, True)
        os.dup2(pipe, descriptor)
        os.close(pipe)


class _Source:
    """One pipe: its whole lines, and the one that is not whole yet."""

    def __init__(self, descriptor: int, *, rank: int | None) -> None:
        self.descriptor = descriptor
        self._rank, self._begun = rank, b""
        self._whole: list[bytes] = []
        self.newest: deque[tuple[int, str]] = deque(maxlen=KEPT_LINES)
        """The last lines that were told, each with its number among those of all pipes."""
        os.set_blocking(descriptor, False)

    def read(self) -> int | None:
        """Take what is there, up to a chunk: its size, 0 at the end, None where there is nothing now."""
        try:
            chunk = os.read(self.descriptor, _CHUNK_BYTES)
        except BlockingIOError:
            return None
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        self._whole += lines
        if len(self._begun) > LONGEST_LINE_BYTES:
            self._whole.append(self._begun)
            self._begun = b""
        return len(chunk)

    def finish(self) -> None:
        """Nobody writes any more: what is left counts as a line."""
        while self.read():
            continue
        if self._begun:
            self._whole.append(self._begun)
            self._begun = b""

    def lines(self) -> list[tuple[bytes, bytes]]:
        """The whole lines since the last call, each as it is told and as it was written."""
        lines, self._whole = self._whole, []
        if self._rank is None:
            return [(line, line) for line in lines]
        # torch puts a prefix before a rank's last traceback, which is not said twice
        written = [line.removeprefix(b"[rank%d]: " % self._rank) for line in lines]
        return [(b"[rank %d] %s" % (self._rank, line), line) for line in written]


class Output:
    """Tells the lines of the launcher, and of the ranks with their prefix, in a thread of its own."""

    def __init__(self, descriptor: int, *, ranks: Mapping[Path, int]) -> None:
        # held open for writing too, so a pipe has no end before the first rank or after the last one
        pipes = [_Source(os.open(path, os.O_RDWR), rank=rank) for path, rank in ranks.items()]
        self._sources = [_Source(descriptor, rank=None), *pipes]
        self._numbers = itertools.count()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    @property
    def newest(self) -> list[str]:
        """The last lines of every pipe, without prefixes, in the order in which they came.

        What one rank says last is not lost among what the others say after it.
        """
        return [line for _, line in sorted(kept for source in self._sources for kept in source.newest)]

    def finish(self, *, timeout_seconds: float) -> None:
        """Tell the rest, now that nobody writes any more; a stdout that takes nothing is not waited for for ever."""
        self._over.set()
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for source in self._sources:
                selector.register(source.descriptor, selectors.EVENT_READ, source)
            while not self._over.is_set() and selector.get_map():
                for key, _ in selector.select(_POLL_SECONDS):
                    if key.data.read() == 0:
                        selector.unregister(key.fileobj)
                    self._tell(key.data)
        for source in self._sources:
            source.finish()
            self._tell(source)
            os.close(source.descriptor)

    def _tell(self, source: _Source) -> None:
        lines = source.lines()
        if lines:
            sys.stdout.buffer.write(b"".join(told + b"\n" for told, _ in lines))
            sys.stdout.buffer.flush()
            source.newest.extend(
                (next(self._numbers), written.decode(errors="replace").rstrip()) for _, written in lines
            )
