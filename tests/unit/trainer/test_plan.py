"""The batch plan: which rows a step has, who computes them, and that nothing but the speed depends on who."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.batches import ORDERED_TARGET, PACKED_TARGET, arrangements, sky_t1_lengths
from rft_trainer.errors import BadInputError
from rft_trainer.train.plan import BatchPlan, accumulation_steps, padding_share
from unit.trainer.factory import run_config

ROWS, GLOBAL_BATCH = 37, 24
LENGTHS = np.random.Generator(np.random.PCG64(1)).integers(5, 100, size=ROWS)
WORLDS = st.sampled_from(
    [(ranks, micro) for ranks in (1, 2, 3, 4, 6, 8) for micro in (1, 2, 3, 4) if GLOBAL_BATCH % (ranks * micro) == 0]
)
"""Ranks and rows that a rank holds at once; accumulation makes up the rest of the global batch."""


def make_plan(ranks: int, micro: int, *, seed: int = 7) -> BatchPlan:
    return BatchPlan(
        lengths=LENGTHS,
        targets=LENGTHS // 2,
        seed=seed,
        global_batch_size=GLOBAL_BATCH,
        micro_batch_size=micro,
        world_size=ranks,
    )


def rows_of_rank(plan: BatchPlan, *, step: int, rank: int) -> list[int]:
    return [row for micro_batch in plan.step(step, rank=rank).micro_batches for row in micro_batch]


def rows_of(plan: BatchPlan, *, step: int, ranks: int) -> list[int]:
    return sorted(row for rank in range(ranks) for row in rows_of_rank(plan, step=step, rank=rank))


@given(lives=st.lists(st.tuples(st.integers(1, 4), WORLDS), min_size=1, max_size=5), seed=st.integers(0, 2**31 - 1))
def test_resume_neither_repeats_nor_skips_a_row_when_ranks_micro_batches_and_accumulation_change(
    lives: list[tuple[int, tuple[int, int]]], seed: int
) -> None:
    step, seen, whole = 0, [], make_plan(1, 1, seed=seed)
    for steps, (ranks, micro) in lives:
        plan = make_plan(ranks, micro, seed=seed)  # a new process each life
        for _ in range(steps):
            rows = rows_of(plan, step=step, ranks=ranks)
            assert rows == rows_of(whole, step=step, ranks=1)
            assert plan.step(step, rank=ranks - 1).target_tokens == whole.step(step, rank=0).target_tokens
            seen += rows
            step += 1
    epochs, rest = divmod(step * GLOBAL_BATCH, ROWS)
    times = Counter(seen)
    assert all(times[row] in {epochs, epochs + 1} for row in range(ROWS))
    assert sum(times[row] == epochs + 1 for row in range(ROWS)) == rest


@given(world=WORLDS, step=st.integers(0, 40))
def test_step_has_the_rows_of_its_global_batch_once_when_ordered_by_length(world: tuple[int, int], step: int) -> None:
    ranks, micro = world
    plan = make_plan(ranks, micro)
    assert rows_of(plan, step=step, ranks=ranks) == sorted(plan.global_batch(step).tolist())
    shapes = [[len(rows) for rows in plan.step(step, rank=rank).micro_batches] for rank in range(ranks)]
    assert shapes == [[micro] * (GLOBAL_BATCH // (ranks * micro))] * ranks


@given(world=WORLDS, step=st.integers(0, 40))
def test_ranks_have_rows_of_similar_length_in_every_micro_step(world: tuple[int, int], step: int) -> None:
    ranks, micro = world
    plan = make_plan(ranks, micro)
    of_rank = [plan.step(step, rank=rank).micro_batches for rank in range(ranks)]
    micro_steps = [[LENGTHS[row] for rows in micro_step for row in rows] for micro_step in zip(*of_rank, strict=True)]
    assert all(min(longer) >= max(shorter) for longer, shorter in pairwise(micro_steps))


@given(world=WORLDS, step=st.integers(0, 40))
def test_no_rank_has_the_longer_rows_throughout_when_they_are_handed_out(world: tuple[int, int], step: int) -> None:
    ranks, micro = world
    plan = make_plan(ranks, micro)
    totals = [int(LENGTHS[rows_of_rank(plan, step=step, rank=rank)].sum()) for rank in range(ranks)]
    # The differences of two micro steps that follow one another go against each other; one alone may be left.
    assert max(totals) - min(totals) <= micro * int(LENGTHS.max() - LENGTHS.min())


def test_plan_sees_every_row_once_an_epoch_when_epochs_run_into_one_another() -> None:
    plan = make_plan(1, 1)
    order = [int(row) for step in range(ROWS) for row in plan.global_batch(step)]
    epochs = [order[start : start + ROWS] for start in range(0, len(order), ROWS)]
    assert len(epochs) == GLOBAL_BATCH
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == GLOBAL_BATCH, "every epoch has an order of its own"
    assert plan.epoch(ROWS) == GLOBAL_BATCH


def test_plan_is_a_function_of_the_step_when_asked_out_of_order() -> None:
    forward, single = make_plan(2, 2), make_plan(2, 2)
    steps = [forward.step(step, rank=1) for step in range(20)]
    assert single.step(19, rank=1) == steps[19]
    assert single.step(3, rank=1) == steps[3]


def test_plan_has_another_order_when_the_seed_differs() -> None:
    orders = {tuple(make_plan(1, 1, seed=seed).global_batch(0).tolist()) for seed in range(5)}
    assert len(orders) == 5


def test_padding_is_counted_when_a_micro_batch_has_rows_of_several_lengths() -> None:
    plan = BatchPlan(
        lengths=np.asarray([10, 4, 8, 2]),
        targets=np.asarray([1, 1, 1, 1]),
        seed=0,
        global_batch_size=4,
        micro_batch_size=2,
        world_size=1,
    )
    step = plan.step(0, rank=0)
    assert step.micro_batches == ((0, 2), (1, 3))
    assert (step.tokens, step.padded_tokens) == (24, 2 * 10 + 2 * 4)
    assert padding_share(plan, steps=3) == pytest.approx(1 - 24 / 28)


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_ordered_and_packed_rows_waste_less_than_plain_ones_when_lengths_are_like_sky_t1s(micro: int) -> None:
    plain, ordered, packed = arrangements(sky_t1_lengths(rows=4_800), micro_batch_size=micro)
    assert plain.useful_tokens == ordered.useful_tokens
    assert plain.computed_per_useful >= ORDERED_TARGET * ordered.computed_per_useful
    assert plain.computed_per_useful >= PACKED_TARGET * packed.computed_per_useful
    assert 1 <= packed.computed_per_useful < ordered.computed_per_useful


def test_batch_size_is_refused_with_a_remedy_when_ranks_do_not_divide_it() -> None:
    training = run_config(training__global_batch_size=12, training__micro_batch_size=4).training
    assert accumulation_steps(training, world_size=3) == 1
    with pytest.raises(BadInputError, match="globalBatchSize=12 must be a multiple of microBatchSize=4 x 2 GPUs = 8"):
        accumulation_steps(training, world_size=2)
