"""Packs rows into sequences.

Invariant: a row is never cut and never appears twice; the packing depends on the lengths alone. Without packing every
sequence is one row.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

WINDOW_ROWS = 8_192
"""Rows packed together: enough that hardly a token stays free, and few enough that millions of rows pack in linear
time and the rows of a sequence are near each other in the dataset."""

Packed = list[list[int]]


def pack(lengths: Sequence[int], *, capacity: int, window_rows: int = WINDOW_ROWS) -> Packed:
    """Row numbers of each sequence: best-fit decreasing, window by window; sequences stand in order of their first row.

    Next-fit is kept where it needs fewer sequences, so packing is never worse than putting rows in as they come. Raises
    ValueError for a row that does not fit.
    """
    if lengths and max(lengths) > capacity:
        raise ValueError(f"a row of {max(lengths)} tokens does not fit into a sequence of {capacity}")
    packed: Packed = []
    for start in range(0, len(lengths), window_rows):
        rows = range(start, min(start + window_rows, len(lengths)))
        best = _best_fit_decreasing(lengths, rows, capacity=capacity)
        plain = next_fit(lengths, rows, capacity=capacity)
        packed += plain if len(plain) < len(best) else best
    return packed


def _best_fit_decreasing(lengths: Sequence[int], rows: range, *, capacity: int) -> Packed:
    bins: Packed = []
    free: list[tuple[int, int]] = []
    for row in sorted(rows, key=lambda row: (-lengths[row], row)):
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
    return sorted(sorted(rows_of_bin) for rows_of_bin in bins)


def next_fit(lengths: Sequence[int], rows: range, *, capacity: int) -> Packed:
    """Rows in their order; a row that does not fit begins the next sequence."""
    bins: Packed = []
    free = 0
    for row in rows:
        if lengths[row] > free or not bins:
            bins.append([])
            free = capacity
        bins[-1].append(row)
        free -= lengths[row]
    return bins


def singles(rows: int) -> Packed:
    """One sequence a row."""
    return [[row] for row in range(rows)]
