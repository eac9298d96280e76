"""Best-fit packing: nothing lost, nothing cut, hardly a token free."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rft_trainer.prepare.packing import next_fit, pack, singles

CAPACITY = 50
LENGTHS = st.lists(st.integers(1, CAPACITY), max_size=80)


@given(lengths=LENGTHS, window_rows=st.integers(1, 90))
def test_packing_keeps_every_row_once_and_whole_when_rows_fit(lengths: list[int], window_rows: int) -> None:
    packed = pack(lengths, capacity=CAPACITY, window_rows=window_rows)
    assert sorted(row for rows in packed for row in rows) == list(range(len(lengths)))
    assert all(0 < sum(lengths[row] for row in rows) <= CAPACITY for rows in packed)


@given(lengths=LENGTHS, window_rows=st.integers(1, 90))
@example(lengths=[21, 14, 14, 21, 14, 14], window_rows=90)  # best-fit decreasing alone would need a third sequence
def test_packing_needs_no_more_sequences_than_next_fit(lengths: list[int], window_rows: int) -> None:
    windows = [range(start, min(start + window_rows, len(lengths))) for start in range(0, len(lengths), window_rows)]
    plain = sum(len(next_fit(lengths, window, capacity=CAPACITY)) for window in windows)
    assert len(pack(lengths, capacity=CAPACITY, window_rows=window_rows)) <= plain


@given(lengths=LENGTHS.filter(bool), window_rows=st.integers(1, 90))
def test_packing_fills_sequences_over_half_when_more_than_one_is_needed(lengths: list[int], window_rows: int) -> None:
    packed = pack(lengths, capacity=CAPACITY, window_rows=window_rows)
    windows = -(-len(lengths) // window_rows)
    assert len(packed) <= 2 * sum(lengths) / CAPACITY + windows


@given(lengths=LENGTHS, window_rows=st.integers(1, 90))
def test_packing_is_a_function_of_the_lengths_when_repeated(lengths: list[int], window_rows: int) -> None:
    first = pack(lengths, capacity=CAPACITY, window_rows=window_rows)
    assert first == pack(np.asarray(lengths).tolist(), capacity=CAPACITY, window_rows=window_rows)
    assert first == sorted(first), "sequences stand in the order of their first rows"
    assert all(rows == sorted(rows) for rows in first)


def test_packing_joins_rows_of_one_window_only_when_there_are_several() -> None:
    assert pack([30, 20, 30, 20], capacity=50, window_rows=1) == singles(4)
    assert pack([30, 30, 20, 20], capacity=50, window_rows=4) == [[0, 2], [1, 3]]
    assert pack([30, 30, 20, 20], capacity=50, window_rows=2) == [[0], [1], [2, 3]]


def test_packing_refuses_a_row_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="a row of 51 tokens does not fit into a sequence of 50"):
        pack([3, 51], capacity=50)
