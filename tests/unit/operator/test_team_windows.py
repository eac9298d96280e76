"""Team budgets: when a window begins and what it carries over, whom a selector takes, what people are shown."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from rft_operator.api.ledger import Ledger
from rft_operator.api.team import MAX_RESERVATIONS, Reservation, Selector, TeamStatus, Window
from rft_operator.domain.team_run import selects
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_operator.domain.windows import next_window, window_start
from support.stage import START
from support.team import DOLLAR, GPU_SECOND, Ring, asking, budget, burning, entry, folded, member, shown

DAY = 86_400


@pytest.mark.parametrize(
    ("window", "at", "start", "following"),
    [
        ("day", "2026-03-01T00:00:00Z", "2026-03-01", "2026-03-02"),
        ("day", "2026-02-28T23:59:59Z", "2026-02-28", "2026-03-01"),
        ("week", "2026-01-05T00:00:00Z", "2026-01-05", "2026-01-12"),
        ("week", "2026-01-04T23:59:59Z", "2025-12-29", "2026-01-05"),
        ("month", "2026-12-31T23:59:59Z", "2026-12-01", "2027-01-01"),
        ("month", "2028-02-29T12:00:00Z", "2028-02-01", "2028-03-01"),
    ],
)
def test_window_begins_at_midnight_in_utc(window: str, at: str, start: str, following: str) -> None:
    now = epoch(at)
    assert window_start(Window(window), now) == epoch(f"{start}T00:00:00Z")
    assert next_window(Window(window), now) == epoch(f"{following}T00:00:00Z")


def test_week_begins_on_monday() -> None:
    start = window_start(Window.WEEK, START)
    assert start is not None
    assert datetime.fromtimestamp(start, UTC).isoweekday() == 1


def test_budget_without_a_window_never_begins_anew() -> None:
    assert window_start(Window.NONE, START) is None
    assert next_window(Window.NONE, START) is None


def test_new_window_begins_at_its_instant_and_not_when_it_is_noticed() -> None:
    ring = Ring(budget(limitUSD=1_000, window="day"))
    ring.settle(asking("a", dollars=500))
    held = burning(START + DAY - 100)
    ring.settle(member("a", dollars=500, ledger=held), now=START + DAY - 50)
    ring.settle(member("a", dollars=500, ledger=held), now=START + DAY + 3_000)
    assert shown(ring.record("a")) == (500 * DOLLAR - 100 * GPU_SECOND, 3_000 * GPU_SECOND, 100 * GPU_SECOND)
    assert ring.budgets[0].status.window_start == rfc3339(START + DAY)


def test_new_window_forgets_what_ended_runs_have_spent() -> None:
    ring = Ring(budget(limitUSD=100, window="day")).settle(asking("a", dollars=60), asking("b", dollars=40))
    ended = member("a", dollars=60, ledger=folded(60_000, until=START + 100), final=True)
    ring.settle(ended, now=START + 200)
    assert ring.dollars() == ("$0.00", "$60.00", "$40.00")
    ring.settle(ended, now=START + DAY)
    assert ring.dollars() == ("$0.00", "$0.00", "$100.00")
    assert ring.record("a") is None


def test_what_a_run_may_spend_in_its_life_is_the_same_in_a_new_window() -> None:
    ring = Ring(budget(limitUSD=100, window="day")).settle(asking("a", dollars=60))
    ring.edit(limitUSD=10)
    ring.settle(member("a", dollars=60, ledger=burning(START + DAY - 100)), now=START + DAY + 5)
    found = ring.record("a")
    assert found is not None
    assert found.spent_before_micro_usd == 100 * GPU_SECOND
    assert found.spent_before_micro_usd + found.reserved_micro_usd == 60 * DOLLAR


def test_pod_whose_end_is_seen_late_is_charged_to_the_window_it_ended_in() -> None:
    ring = Ring(budget(window="day")).settle(asking("a", dollars=90))
    ring.settle(member("a", dollars=90, ledger=burning(START + DAY - 100)), now=START + DAY + 5)
    assert shown(ring.record("a")) == (90 * DOLLAR - 100 * GPU_SECOND, 5 * GPU_SECOND, 100 * GPU_SECOND)
    seen = burning(START + DAY - 100, end=START + DAY - 10)
    ring.settle(member("a", dollars=90, ledger=seen), now=START + DAY + 6)
    assert shown(ring.record("a")) == (90 * DOLLAR - 90 * GPU_SECOND, 0, 90 * GPU_SECOND)


def test_window_errs_high_when_times_were_lost_before_it_was_seen() -> None:
    ring = Ring(budget(window="day")).settle(asking("a", dollars=90))
    late = folded(300, until=START + DAY + 100)
    ring.settle(member("a", dollars=90, ledger=late), now=START + DAY + 200)
    assert shown(ring.record("a")) == (90 * DOLLAR, 300 * GPU_SECOND, 0)


def test_reset_counts_only_what_is_spent_after_it() -> None:
    ring = Ring(budget(limitUSD=100)).settle(asking("a", dollars=90))
    held = member("a", dollars=90, ledger=burning())
    ring.settle(held, now=START + 1_000)
    ring.edit(limitUSD=100, resetTime=rfc3339(START + 600))
    ring.settle(held, now=START + 1_100)
    assert shown(ring.record("a")) == (90 * DOLLAR - 600 * GPU_SECOND, 500 * GPU_SECOND, 600 * GPU_SECOND)


def test_reset_to_come_is_waited_for() -> None:
    ring = Ring(budget(limitUSD=100, resetTime=rfc3339(START + 600)))
    ring.settle(asking("a", dollars=90), now=START + 10)
    assert ring.budgets[0].status.window_start == rfc3339(START)
    ring.settle(member("a", dollars=90), now=START + 600)
    assert ring.budgets[0].status.window_start == rfc3339(START + 600)


def test_window_never_goes_back_when_it_is_widened_or_the_clock_is_set_back() -> None:
    ring = Ring(budget(window="day")).settle(now=START + 10 * DAY)
    ring.edit(window="month")
    ring.settle(now=START + 10 * DAY + 5)
    assert ring.budgets[0].status.window_start == rfc3339(START + 10 * DAY)
    ring.edit(window="day")
    ring.settle(now=START + 3 * DAY)
    assert ring.budgets[0].status.window_start == rfc3339(START + 10 * DAY)


def test_worked_example_of_the_docs_is_what_is_computed() -> None:
    def at(clock: str, day: int = 0) -> int:
        hour, minute = clock.split(":")
        return START + day * DAY + int(hour) * 3_600 + int(minute) * 60

    def held(gpus: int, start: str, end: str | None = None) -> Ledger:
        found = entry(start=at(start), end=at(end) if end else None, gpus=gpus)
        return Ledger(uncounted=[found]) if end else Ledger(open=[found])

    ring = Ring(budget(limitUSD=100, window="day"))
    a, b, c = (asking(name, dollars=limit, created_at=at("08:00")) for name, limit in (("a", 60), ("b", 60), ("c", 25)))
    table = [ring.settle(a, now=at("08:00")).dollars()]
    a = replace(a, accepted=True, asks=False, started=True)
    table.append(ring.settle(a, b, c, now=at("08:05")).dollars())
    c = replace(c, accepted=True, asks=False)
    a = replace(a, ledger=held(8, "08:10"))
    table.append(ring.settle(a, b, c, now=at("09:10")).dollars())
    a = replace(a, ledger=held(8, "08:10", "09:10"), final=True)
    table.append(ring.settle(a, b, c, now=at("09:10")).dollars())
    b = replace(b, limit_micro_usd=45 * DOLLAR)
    table.append(ring.settle(a, b, c, now=at("09:30")).dollars())
    table.append(ring.settle(b, c, now=at("10:00")).dollars())
    b = replace(b, accepted=True, asks=False, ledger=held(4, "22:00"))
    c = replace(c, ledger=held(2, "12:00", "13:00"), final=True)
    table.append(ring.settle(b, c, now=at("23:00")).dollars())
    table.append(ring.settle(b, c, now=at("00:00", day=1)).dollars())
    docs = (Path(__file__).resolve().parents[3] / "docs" / "team-budgets.md").read_text(encoding="utf-8")
    assert table == re.findall(r"\| (\$[0-9.]+) \| (\$[0-9.]+) \| (\$[0-9.]+) \|$", docs, flags=re.MULTILINE)
    assert len(table) == 8


# -- what is shown ------------------------------------------------------------------------------------------------


def test_threshold_is_announced_once_in_a_window() -> None:
    ring = Ring(budget(limitUSD=10, warnAtPercent=[50, 80], window="day")).settle(asking("a", dollars=10))
    half = member("a", dollars=10, ledger=burning())
    assert ring.settle(half, now=START + 5_000).reasons() == ["TeamBudgetWarning50"]
    assert ring.settle(half, now=START + 6_000).reasons() == []
    assert ring.settle(half, now=START + 9_000).reasons() == ["TeamBudgetWarning80"]
    ended = member("a", dollars=10, ledger=folded(9_000, until=START + 9_000), final=True)
    assert ring.settle(ended, now=START + DAY).budgets[0].status.warned_at_percent == []


def test_budget_of_nothing_lets_no_run_in_and_warns_of_nothing() -> None:
    ring = Ring(budget(limitUSD=0)).settle(asking("a", dollars=1))
    assert ring.record("a") is None
    assert ring.reasons() == []
    assert ring.condition("Exhausted") == ("True", "RunsWait")


def test_budget_with_nothing_free_says_so_though_nobody_waits() -> None:
    ring = Ring(budget(limitUSD=10)).settle(asking("a", dollars=10))
    assert ring.condition("Exhausted") == ("True", "NothingFree")


def test_second_look_changes_nothing_and_a_look_at_spending_runs_is_no_news() -> None:
    ring = Ring(budget()).settle(asking("a", dollars=40))
    assert (ring.statements[0].changed, ring.statements[0].is_news) == (True, True)
    ring.settle(asking("a", dollars=40), now=START + 99)
    assert not ring.statements[0].changed
    ring.settle(member("a", dollars=40, ledger=burning(START + 99)), now=START + 99)
    ring.settle(member("a", dollars=40, ledger=burning(START + 99)), now=START + 150)
    assert (ring.statements[0].changed, ring.statements[0].is_news) == (True, False)
    assert ring.dollars() == ("$39.95", "$0.06", "$60.00")


def test_budget_says_so_when_it_has_no_room_for_another_record() -> None:
    names = [f"{index}" for index in range(MAX_RESERVATIONS)]
    crowd = [Reservation(uid=f"uid-{name}", name=name, reserved_micro_usd=1) for name in names]
    full = budget(status=TeamStatus(window_start=rfc3339(START), reservations=crowd))
    runs = [member(name) for name in names]
    ring = Ring(full).settle(*runs, asking("late", created_at=START + 1), member("later", created_at=START + 2))
    assert ring.record("late") is None
    assert ring.record("later") is None
    assert ring.condition("Ready") == ("False", "TooManyRuns")


@pytest.mark.parametrize(
    ("selector", "labels", "fits"),
    [
        (None, {}, True),
        ({}, {"team": "a"}, True),
        ({"matchLabels": {"team": "a"}}, {"team": "a", "x": "y"}, True),
        ({"matchLabels": {"team": "a", "x": "y"}}, {"team": "a"}, False),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}, {"team": "b"}, True),
        ({"matchExpressions": [{"key": "team", "operator": "In", "values": ["a", "b"]}]}, {}, False),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}, {}, True),
        ({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}, {"team": "a"}, False),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, {"team": ""}, True),
        ({"matchExpressions": [{"key": "team", "operator": "Exists"}]}, {}, False),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, {}, True),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, {"team": ""}, False),
        (
            {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "Exists"}]},
            {"a": "1", "b": "2"},
            True,
        ),
    ],
)
def test_selector_takes_what_kubernetes_would_take(
    selector: dict[str, Any] | None, labels: dict[str, str], fits: bool
) -> None:
    parsed = Selector.model_validate(selector) if selector is not None else None
    assert selects(parsed, labels) is fits


def test_thresholds_on_record_are_those_that_are_asked_for_however_often_they_are_edited() -> None:
    ring = Ring(budget(limitUSD=10)).settle(asking("a", dollars=10))
    ended = member("a", ledger=folded(9_000, until=START + 10), final=True)
    for first in (1, 9, 17):
        ring.edit(warnAtPercent=[*range(first, first + 8)])
        assert ring.settle(ended, now=START + 20).budgets[0].status.warned_at_percent == [*range(first, first + 8)]
