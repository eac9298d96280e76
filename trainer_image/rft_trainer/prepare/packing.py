"""Packs rows into sequences.

Invariant: a row is never cut and never appears twice; the packing depends on the lengths alone. Without packing every
sequence is one row.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence


def pack(lengths: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Best-fit decreasing: row numbers of each sequence; the sequences stand in the order of their first row."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []
    for row in order:
        length = lengths[row]
        position = bisect_left(free, (length, -1))
        if position == len(free):
            bins.append([row])
            remaining, index = capacity - length, len(bins) - 1
        else:
            space, index = free.pop(position)
            bins[index].append(row)
            remaining = space - length
        if remaining > 0:
            insort(free, (remaining, index))
    packed = [sorted(rows) for rows in bins]
    return sorted(packed)


def singles(rows: int) -> list[list[int]]:
    """One sequence a row."""
    return [[row] for row in range(rows)]
