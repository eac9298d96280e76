"""How much a tested program may use."""

from __future__ import annotations

from dataclasses import asdict, dataclass

MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of one process; LiveCodeBench's own are 6 s and 4 GB a test."""

    cpu_seconds: int = 6
    wall_seconds: float = 15.0
    """Longer than the computing time, so that a busy machine makes no answer wrong."""
    memory_bytes: int = 1_024 * MEBIBYTE
    """Address space, over what Python itself and its modules hold."""
    output_bytes: int = 16 * MEBIBYTE
    """Of each stream; the program is ended when it writes more."""
    threads: int = 64

    def to_json(self) -> dict[str, float]:
        """The fields, for the other process."""
        return asdict(self)
