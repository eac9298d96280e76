"""Team budgets, settled: what is promised to whom, what is taken over, what a run leaves behind."""

from __future__ import annotations

from dataclasses import replace

from support.stage import START
from support.team import DOLLAR, GPU_SECOND, Ring, asking, budget, burning, folded, member, shown

DAY = 86_400


# -- grants -------------------------------------------------------------------------------------------------------


def test_run_is_promised_its_limit_when_it_asks_and_so_much_is_free() -> None:
    ring = Ring(budget(limitUSD=100)).settle(asking("a", dollars=40))
    assert shown(ring.record("a")) == (40 * DOLLAR, 0, 0)
    assert ring.dollars() == ("$40.00", "$0.00", "$60.00")
    assert ring.condition("Ready") == ("True", "InForce")
    assert ring.condition("Exhausted") == ("False", "Free")
    assert ring.condition("OverCommitted") == ("False", "WithinLimit")


def test_run_is_promised_nothing_when_it_does_not_ask() -> None:
    ring = Ring(budget()).settle(asking("a", asks=False))
    assert ring.record("a") is None


def test_older_run_is_promised_the_last_dollars_and_the_younger_one_waits() -> None:
    ring = Ring(budget(limitUSD=50)).settle(
        asking("young", dollars=40, created_at=START + 1), asking("old", dollars=40, created_at=START)
    )
    assert ring.record("old") is not None
    assert ring.record("young") is None
    assert ring.condition("Exhausted") == ("True", "RunsWait")
    assert "young ($40.00)" in ring.budgets[0].status.conditions[1].message


def test_small_run_passes_a_big_one_that_does_not_fit() -> None:
    ring = Ring(budget(limitUSD=50)).settle(
        asking("first", dollars=30, created_at=START),
        asking("big", dollars=40, created_at=START + 1),
        asking("small", dollars=20, created_at=START + 2),
    )
    assert [ring.record(name) is not None for name in ("first", "big", "small")] == [True, False, True]
    assert ring.dollars() == ("$50.00", "$0.00", "$0.00")


def test_waiting_run_is_promised_money_when_another_one_is_finished() -> None:
    ring = Ring(budget(limitUSD=50))
    first, second = asking("a", dollars=40), asking("b", dollars=40, created_at=START + 1)
    ring.settle(first, second)
    done = member("a", dollars=40, ledger=folded(5_000, until=START + 9), final=True, started=True)
    ring.settle(done, second, now=START + 10)
    assert shown(ring.record("a")) == (5 * DOLLAR, 5 * DOLLAR, 0)
    assert shown(ring.record("b")) == (40 * DOLLAR, 0, 0)
    assert ring.dollars() == ("$40.00", "$5.00", "$5.00")


def test_run_of_two_budgets_is_promised_by_both_or_by_none() -> None:
    ring = Ring(budget("wide", limitUSD=100), budget("narrow", limitUSD=30)).settle(
        asking("a", dollars=40), asking("b", dollars=20, created_at=START + 1)
    )
    assert ring.record("a", 0) is None
    assert ring.record("a", 1) is None
    assert ring.record("b", 0) is not None
    assert ring.record("b", 1) is not None
    assert ring.condition("Exhausted", 0) == ("False", "Free")
    assert ring.condition("Exhausted", 1) == ("True", "RunsWait")


def test_run_that_only_one_budget_granted_before_a_crash_comes_first() -> None:
    wide, narrow = budget("wide", limitUSD=100), budget("narrow", limitUSD=30)
    younger = asking("younger", dollars=30, created_at=START + 1)
    ring = Ring(wide, narrow)
    before = ring.budgets[1]
    ring.settle(younger)
    ring.budgets[1] = before  # the write of the second budget never happened
    ring.settle(asking("older", dollars=30), younger)
    assert ring.record("younger", 1) is not None
    assert ring.record("older", 1) is None


def test_raised_limit_is_promised_when_it_is_free_and_not_before() -> None:
    ring = Ring(budget(limitUSD=50)).settle(asking("a", dollars=20), asking("b", dollars=20, created_at=START + 1))
    raised = member("a", dollars=40, generation=2)
    ring.settle(raised, member("b", dollars=20))
    assert shown(ring.record("a")) == (20 * DOLLAR, 0, 0)
    assert ring.record("a").observed_generation == 1  # type: ignore[union-attr]
    ring.settle(raised, member("b", dollars=20, final=True))
    assert shown(ring.record("a")) == (40 * DOLLAR, 0, 0)
    assert ring.record("a").observed_generation == 2  # type: ignore[union-attr]


def test_lowered_limit_frees_money_only_when_no_pod_of_the_old_one_can_run() -> None:
    ring = Ring(budget(limitUSD=50)).settle(asking("a", dollars=40))
    holding = member("a", dollars=10, generation=2, ledger=burning())
    ring.settle(holding, now=START + 1)
    assert ring.record("a").reserved_micro_usd == 40 * DOLLAR  # type: ignore[union-attr]
    ring.settle(replace(holding, ledger=burning(end=START + 1), at_rest=True), now=START + 2)
    assert ring.record("a").reserved_micro_usd == 10 * DOLLAR  # type: ignore[union-attr]


def test_failed_run_is_promised_money_again_only_when_it_asks() -> None:
    ring = Ring(budget(limitUSD=50)).settle(asking("a", dollars=20))
    failed = member("a", dollars=40, generation=2, ledger=folded(20_000, until=START + 5), final=True, at_rest=True)
    ring.settle(failed, now=START + 6)
    assert shown(ring.record("a")) == (20 * DOLLAR, 20 * DOLLAR, 0)
    assert ring.record("a").settled  # type: ignore[union-attr]
    asks = replace(failed, asks=True)
    ring.settle(asks, now=START + 7)
    assert shown(ring.record("a")) == (40 * DOLLAR, 20 * DOLLAR, 0)
    assert not ring.record("a").settled  # type: ignore[union-attr]
    older = asking("older", dollars=20, created_at=START - 1)
    ring.settle(asks, older, now=START + 8)
    assert shown(ring.record("a")) == (40 * DOLLAR, 20 * DOLLAR, 0), "what was granted is not given away again"
    ring.settle(failed, older, now=START + 9)
    assert shown(ring.record("a")) == (20 * DOLLAR, 20 * DOLLAR, 0)
    assert ring.record("older") is not None


# -- what runs already --------------------------------------------------------------------------------------------


def test_new_budget_takes_running_runs_over_in_full_and_grants_nothing_more() -> None:
    ring = Ring(budget(limitUSD=50, created=START + 100)).settle(
        member("a", dollars=40, ledger=burning()),
        member("b", dollars=40, created_at=START + 1),
        asking("c", dollars=1, created_at=START + 2),
        now=START + 100,
    )
    assert shown(ring.record("a")) == (40 * DOLLAR - 100 * GPU_SECOND, 0, 100 * GPU_SECOND)
    assert shown(ring.record("b")) == (40 * DOLLAR, 0, 0)
    assert ring.record("c") is None
    assert ring.condition("OverCommitted") == ("True", "PromisedMoreThanLimit")
    assert ring.reasons() == ["OverCommitted"]
    assert ring.dollars()[2] == "$0.00"


def test_lowered_team_limit_takes_nothing_back_and_grants_nothing_more() -> None:
    ring = Ring(budget(limitUSD=100)).settle(asking("a", dollars=60))
    ring.edit(limitUSD=30)
    ring.settle(member("a", dollars=60), asking("b", dollars=1, created_at=START + 1))
    assert ring.record("a").reserved_micro_usd == 60 * DOLLAR  # type: ignore[union-attr]
    assert ring.record("b") is None
    assert ring.condition("OverCommitted") == ("True", "PromisedMoreThanLimit")
    ring.settle(member("a", dollars=60), asking("b", dollars=1, created_at=START + 1))
    assert ring.reasons() == [], "it is announced once"


def test_run_that_ended_before_the_budget_leaves_no_trace() -> None:
    ring = Ring(budget(created=START + 10)).settle(member("a", ledger=folded(500, until=START + 5), final=True))
    assert ring.record("a") is None
    assert ring.dollars() == ("$0.00", "$0.00", "$100.00")


def test_run_keeps_its_share_when_its_labels_no_longer_match() -> None:
    ring = Ring(budget(selector={"matchLabels": {"team": "a"}}))
    ring.settle(asking("a", dollars=20, labels={"team": "a"}), asking("b", labels={"team": "b"}))
    assert ring.record("b") is None
    ring.settle(member("a", dollars=20, labels={}, ledger=burning()), now=START + 50)
    assert shown(ring.record("a")) == (20 * DOLLAR, 50 * GPU_SECOND, 0)


def test_overshoot_is_shown_and_not_hidden() -> None:
    ring = Ring(budget(limitUSD=10)).settle(asking("a", dollars=10))
    ring.settle(member("a", dollars=10, ledger=burning()), now=START + 12_000)
    assert shown(ring.record("a")) == (12 * DOLLAR, 12 * DOLLAR, 0)
    assert ring.condition("OverCommitted")[0] == "True"


# -- runs that go -------------------------------------------------------------------------------------------------


def test_bill_of_a_run_that_is_gone_is_booked_exactly_once() -> None:
    ring = Ring(budget(limitUSD=100)).settle(asking("a", dollars=40))
    ring.settle(member("a", dollars=40, ledger=folded(7_000, until=START + 5), final=True), now=START + 10)
    ring.settle(now=START + 11)
    assert ring.record("a") is None
    assert ring.budgets[0].status.closed_micro_usd == 7 * DOLLAR
    assert ring.reasons() == []
    ring.settle(now=START + 12)
    assert ring.budgets[0].status.closed_micro_usd == 7 * DOLLAR


def test_run_that_vanished_after_its_pods_could_start_is_booked_in_full() -> None:
    ring = Ring(budget(limitUSD=100)).settle(asking("a", dollars=40))
    ring.settle(member("a", dollars=40, started=True), now=START + 10)
    ring.settle(now=START + 11)
    assert ring.dollars() == ("$0.00", "$40.00", "$60.00")
    assert ring.reasons() == ["RunVanished"]
    assert "finalizer was removed by hand" in ring.statements[0].events[0].message


def test_run_that_vanished_before_its_pods_could_start_is_booked_as_nothing() -> None:
    ring = Ring(budget(limitUSD=100)).settle(asking("a", dollars=40))
    ring.settle(now=START + 11)
    assert ring.dollars() == ("$0.00", "$0.00", "$100.00")
    assert ring.reasons() == []


def test_run_that_vanished_over_a_boundary_is_booked_with_what_it_had_left() -> None:
    ring = Ring(budget(limitUSD=100, window="day")).settle(asking("a", dollars=40))
    ring.settle(member("a", dollars=40, ledger=burning()), now=START + 1_000)
    ring.settle(now=START + DAY + 1)
    assert ring.budgets[0].status.closed_micro_usd == 39 * DOLLAR


def test_deleted_run_keeps_its_share_until_its_bill_is_closed() -> None:
    ring = Ring(budget(limitUSD=100)).settle(asking("a", dollars=40))
    going = member("a", dollars=5, ledger=burning(), deleting=True, at_rest=True)
    ring.settle(going, now=START + 10)
    assert ring.record("a").reserved_micro_usd == 40 * DOLLAR  # type: ignore[union-attr]
    ring.settle(replace(going, ledger=burning(end=START + 20), final=True), now=START + 30)
    assert shown(ring.record("a")) == (20 * GPU_SECOND, 20 * GPU_SECOND, 0)
