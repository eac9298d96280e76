"""What the ranks agree on, and which of them is slow."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from rft_trainer.train.agreement import FEWEST_STEPS, Decision, Stragglers, Vote, agree
from unit.trainer.factory import free_port


@pytest.fixture
def group() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{free_port()}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def decided(vote: Vote) -> Decision:
    return agree(vote, rank=0, world_size=1, device=torch.device("cpu"))


@pytest.mark.usefixtures("group")
def test_votes_are_added_exactly_when_they_are_large() -> None:
    decision = decided(Vote(stop=True, save=False, nll=2.0**40 + 1, targets=2**20, seconds_per_token=1e-6))
    assert decision == Decision(
        stop=True, save=False, nll=2.0**40 + 1, sound=True, loss_max=(2.0**40 + 1) / 2**20, seconds_per_token=(1e-6,)
    )


@pytest.mark.usefixtures("group")
def test_gradient_is_unsound_for_all_when_one_rank_finds_it_so() -> None:
    assert not decided(Vote(stop=False, save=False, sound=False)).sound


@pytest.mark.usefixtures("group")
def test_loss_that_is_no_number_is_the_highest_when_a_rank_has_one() -> None:
    assert math.isnan(decided(Vote(stop=False, save=True, nll=math.nan, targets=5)).loss_max)
    assert decided(Vote(stop=False, save=True)).loss_max == 0


def test_slow_rank_is_named_when_it_takes_longer_for_twenty_steps() -> None:
    stragglers = Stragglers()
    assert stragglers.slowest() is None
    for _ in range(100):
        stragglers.record([1.0, 1.1, 1.0, 0.9])
    assert stragglers.slowest() is None
    stragglers.record([1.0, 1.0, 3.0, 1.0])
    assert stragglers.slowest() is None, "one slow step is no slow rank"
    for _ in range(20):
        stragglers.record([1.0, 1.0, 3.0, 1.0])
    found = stragglers.slowest()
    assert found is not None
    assert found[0] == 2
    assert 1.3 < found[1] < 3.0


def test_slow_rank_is_named_when_there_are_only_two() -> None:
    stragglers = Stragglers()
    for _ in range(FEWEST_STEPS):
        assert stragglers.slowest() is None, "too early to tell"
        stragglers.record([2.0, 1.0])
    found = stragglers.slowest()
    assert found is not None
    assert found[0] == 0
    assert found[1] == pytest.approx(2.0)


def test_warm_up_of_a_rank_does_not_make_it_slow_when_it_is_as_fast_as_the_others_then() -> None:
    stragglers = Stragglers()
    stragglers.record([4.0, 1.0])
    for _ in range(FEWEST_STEPS):
        stragglers.record([1.0, 1.0])
        assert stragglers.slowest() is None


@pytest.mark.parametrize("seconds", [[1.0], [0.0, 0.0]])
def test_nobody_is_slow_when_there_is_nothing_to_compare(seconds: list[float]) -> None:
    stragglers = Stragglers()
    for _ in range(2 * FEWEST_STEPS):
        stragglers.record(seconds)
    assert stragglers.slowest() is None
