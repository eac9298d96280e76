"""How much a tested program may use."""

from __future__ import annotations

from dataclasses import asdict, dataclass

MEBIBYTE = 1 << 20
PROGRAM_MIB = 1_024
"""What a program may take where nothing else is said."""
JUDGE_MIB = 1_024
"""What the judge takes itself: its Python, and the tests of a problem while they are unpacked."""
BESIDE_MIB = 256
"""What it takes for each program at once: a nursery of each kind, what the program prints, the tests of its problem."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one process; LiveCodeBench's own are 6 s and 4 GB a test."""

    cpu_seconds: int = 6
    wall_seconds: float = 15.0
    """Longer than the computing time, so that a busy machine makes no answer wrong."""
    memory_bytes: int = PROGRAM_MIB * MEBIBYTE
    """Address space, over what Python itself and its modules hold."""
    output_bytes: int = 16 * MEBIBYTE
    """Of each stream; the program is ended when it writes more."""
    threads: int = 64

    def to_json(self) -> dict[str, float]:
        """The fields, for the other process."""
        return asdict(self)


def memory_mib_for(programs: int, *, program_mib: int) -> int:
    """What a place must have to run so many programs at once, each of which may take ``program_mib``."""
    return JUDGE_MIB + programs * (program_mib + BESIDE_MIB)


def programs_in(memory_mib: int, *, program_mib: int) -> int:
    """How many such programs a place with so much memory can run at once."""
    return max(0, (memory_mib - JUDGE_MIB) // (program_mib + BESIDE_MIB))
