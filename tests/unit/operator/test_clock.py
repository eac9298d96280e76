"""The API server's clock: bounded by its answers, never ahead of it, back on track after a step."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_operator.runtime.clock import ServerClock

LOCAL = 1_000.0
START = 1_767_225_600
"""2026-01-01T00:00:00Z"""


class Clocks:
    """A server clock under test, with both clocks in hand."""

    def __init__(self, *, wall: float = START) -> None:
        self.local = LOCAL
        self.clock = ServerClock(monotonic=lambda: self.local, wall=lambda: wall)

    def answer(self, server_time: float, *, sent: float | None = None) -> None:
        """An answer stamped at ``server_time`` arrives now."""
        self.clock.observe(formatdate(int(server_time), usegmt=True), sent=sent or self.local, received=self.local)


def test_local_wall_clock_counts_until_an_answer_came() -> None:
    it = Clocks()
    it.local += 5
    assert it.clock.now() == START + 5


def test_server_counts_from_its_first_answer_on() -> None:
    it = Clocks(wall=START + 3_600)
    it.answer(START)
    assert it.clock.now() == START
    it.local += 10
    assert it.clock.now() == START + 10


def test_reading_gets_finer_with_every_answer() -> None:
    it = Clocks()
    it.answer(START + 0.9)
    it.local += 0.2
    it.answer(START + 1.1)
    # The second turned between the answers: at the second one it was at most 0.2 s old.
    it.local += 0.85
    assert it.clock.now() == START + 1
    it.local += 0.15
    assert it.clock.now() == START + 2


@pytest.mark.parametrize("step", [-7_200, 7_200])
def test_reading_starts_anew_when_the_servers_clock_was_stepped(step: int) -> None:
    it = Clocks()
    it.answer(START)
    it.local += 1
    it.answer(START + 1 + step)
    assert it.clock.now() == START + 1 + step


def test_slow_answer_does_not_blur_a_fine_reading() -> None:
    it = Clocks()
    it.answer(START)
    sent = it.local
    it.local += 15
    it.answer(START + 2, sent=sent)
    assert it.clock.now() == START + 15


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 99 Jan 2026 00:00:00 GMT"])
def test_senseless_date_is_ignored(date: str) -> None:
    it = Clocks()
    it.answer(START)
    it.clock.observe(date, sent=it.local, received=it.local)
    assert it.clock.now() == START


@given(
    offset=st.floats(-1e6, 1e6),
    waits=st.lists(st.tuples(st.floats(0.01, 30), st.floats(0, 5), st.floats(0, 1)), min_size=1, max_size=30),
)
def test_reading_is_never_ahead_and_at_most_a_second_and_the_travel_behind(
    offset: float, waits: list[tuple[float, float, float]]
) -> None:
    it = Clocks()
    base = START + offset
    travel_least = float("inf")
    for pause, travel, share in waits:
        it.local += pause
        sent = it.local
        stamped_at = base + (sent - LOCAL) + travel * share
        it.local = sent + travel
        travel_least = min(travel_least, travel)
        date = format_datetime(datetime.fromtimestamp(int(stamped_at), UTC), usegmt=True)
        it.clock.observe(date, sent=sent, received=it.local)
        true = base + (it.local - LOCAL)
        assert it.clock.now() <= true + 1e-3
        assert it.clock.now() >= true - 2 - travel_least - 1e-3
