"""The ledger against an oracle that counts every second by itself: equal, not nearly equal, whatever the operator saw.

The operator looks at odd moments; some of its status writes are lost after it made them up; prices change in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rft_operator.domain.bill import Bill, bill, bill_at
from rft_operator.domain.ledger import next_ledger, open_waste
from rft_operator.domain.waste import AttemptLife
from rft_trainer.contract import Stage
from support.ledger_operator import Operator
from support.pod_lives import T0, PodLife, PriceTable, oracle, pod_lives, price_tables

LOOKS = st.lists(st.tuples(st.integers(1, 300), st.booleans()), min_size=1, max_size=30)
"""Seconds until the next look, and whether its write is lost."""


def seen_in_time(life: PodLife, looks: Sequence[tuple[int, bool]]) -> bool:
    """Whether a pod that vanishes was on record before: a pod nobody saw is nobody's (M7 needs the intent)."""
    moments, now = [], T0
    for gap, lost in looks:
        now += gap
        moments += [] if lost else [now]
    return life.ending != "vanished" or any(life.bound <= moment < life.end for moment in moments)


@given(pod_lives(), price_tables(), LOOKS, st.booleans())
def test_bill_is_the_sum_over_every_second_when_the_operator_looks_and_fails_at_odd_moments(
    lives: list[PodLife], prices: PriceTable, looks: list[tuple[int, bool]], floating: bool
) -> None:
    lives = [life for life in lives if life.ending != "node gone" and seen_in_time(life, looks)]
    operator = Operator(lives, prices, floating)
    for after, lost in looks:
        operator.look(after, write_is_lost=lost)
    final = operator.settle()
    wanted = oracle(lives, prices, floating=floating, ends=operator.noticed)
    shares = {stage: (share.gpu_seconds, share.amount) for stage, share in final.by_stage.items()}
    assert {stage: pair for stage, pair in shares.items() if pair[0]} == wanted
    assert final.spent_micro_usd == -(-sum(amount for _, amount in wanted.values()) // 3_600)
    assert not operator.ledger.open
    assert not operator.ledger.uncounted


@given(pod_lives(), price_tables(), LOOKS, st.booleans())
def test_bill_of_now_is_the_sum_so_far_when_pods_still_run(
    lives: list[PodLife], prices: PriceTable, looks: list[tuple[int, bool]], floating: bool
) -> None:
    lives = [replace(life, ending="written") for life in lives]
    operator = Operator(lives, prices, floating)
    for after, lost in looks:
        found = operator.look(after, write_is_lost=lost)
        cut = {life.uid: min(life.end, operator.now) for life in lives}
        wanted = oracle(lives, prices, floating=floating, ends=cut)
        shares = {stage: (share.gpu_seconds, share.amount) for stage, share in found.by_stage.items()}
        assert {stage: pair for stage, pair in shares.items() if pair[0]} == wanted


@given(pod_lives(), price_tables(), LOOKS, st.integers(0, 1_500))
def test_bill_of_a_past_instant_is_the_sum_until_then_when_nothing_later_is_folded(
    lives: list[PodLife], prices: PriceTable, looks: list[tuple[int, bool]], at: int
) -> None:
    lives = [replace(life, ending="written") for life in lives]
    operator = Operator(lives, prices, floating=False)
    for after, _ in looks:
        if operator.now + after > T0 + at:
            break
        operator.look(after)
    operator.look(max(1, T0 + at - operator.now + 1))
    cut = {life.uid: min(life.end, T0 + at) for life in lives if life.bound <= T0 + at}
    seen = [life for life in lives if life.bound <= T0 + at]
    wanted = sum(amount for _, amount in oracle(seen, prices, floating=False, ends=cut).values())
    folded_later = [life for life in lives if life.end > T0 + at and life.uid in operator.released]
    assert folded_later or bill_at(operator.ledger, T0 + at).amount == wanted


def life_of(operator: Operator, looks: Sequence[tuple[int, bool]]) -> Bill:
    for after, lost in looks:
        operator.look(after, write_is_lost=lost)
    return operator.settle()


@given(pod_lives(), price_tables(), LOOKS, st.booleans())
def test_amount_doubles_when_every_price_doubles(
    lives: list[PodLife], prices: PriceTable, looks: list[tuple[int, bool]], floating: bool
) -> None:
    lives = [replace(life, ending="written") for life in lives]
    once = life_of(Operator(lives, prices, floating), looks)
    twice = life_of(Operator(lives, prices.doubled(), floating), looks)
    assert (twice.amount, twice.gpu_seconds) == (2 * once.amount, once.gpu_seconds)


@given(pod_lives(), price_tables(), LOOKS)
def test_amount_stays_when_a_life_is_split_in_two_pods(
    lives: list[PodLife], prices: PriceTable, looks: list[tuple[int, bool]]
) -> None:
    lives = [replace(life, ending="written") for life in lives]
    halves = []
    for life in lives:
        middle = (life.bound + life.end) // 2
        halves += [replace(life, end=middle), replace(life, uid=f"{life.uid}-2", created=middle, bound=middle)]
    whole = life_of(Operator(lives, prices, floating=True), looks)
    assert life_of(Operator(halves, prices, floating=True), looks).amount == whole.amount


@given(pod_lives(), LOOKS, st.integers(-100_000, 100_000))
def test_amount_stays_when_all_clocks_are_shifted(
    lives: list[PodLife], looks: list[tuple[int, bool]], shift: int
) -> None:
    lives = [replace(life, ending="written") for life in lives]
    flat = PriceTable({"a": ((0, 5_000_000),), "b": ((0, 7_000_000),)})
    fields = ("created", "bound", "started", "end")
    moved = [replace(life, **{name: getattr(life, name) + shift for name in fields}) for life in lives]
    later = Operator(moved, flat, floating=False, now=T0 + shift)
    assert life_of(later, looks).amount == life_of(Operator(lives, flat, floating=False), looks).amount


@given(pod_lives(), price_tables(), LOOKS, st.booleans())
def test_pod_without_gpus_changes_nothing(
    lives: list[PodLife], prices: PriceTable, looks: list[tuple[int, bool]], floating: bool
) -> None:
    launcher = replace(lives[0], uid="launcher", gpus=0, stage=Stage.TRAIN)
    alone, beside = Operator(lives, prices, floating), Operator([*lives, launcher], prices, floating)
    assert life_of(alone, looks) == life_of(beside, looks)
    assert alone.ledger == beside.ledger


@given(pod_lives(), price_tables(), LOOKS, st.booleans())
def test_bill_never_falls_and_waste_is_never_more_than_it(
    lives: list[PodLife], prices: PriceTable, looks: list[tuple[int, bool]], floating: bool
) -> None:
    lives = [replace(life, ending="written") for life in lives]
    operator, before = Operator(lives, prices, floating), 0
    for after, _ in looks:
        found = operator.look(after)
        assert found.amount >= before or any(life.end <= operator.now for life in lives)
        before = found.amount
        waste = open_waste(operator.ledger, operator.evidence())
        assert sum(share.gpu_seconds for share in waste.values()) <= found.gpu_seconds
        assert sum(share.amount for share in waste.values()) <= found.amount


def test_pod_is_charged_until_its_node_is_gone_when_nothing_else_ends_it() -> None:
    life = PodLife(
        uid="p", stage=Stage.TRAIN, node="a", gpus=8, created=T0, bound=T0, started=T0, end=T0 + 50, ending="node gone"
    )
    operator = Operator([life], PriceTable({"a": ((0, 3_600),), "b": ((0, 3_600),)}), floating=False)
    operator.look(100)
    together = {("train", 1): AttemptLife(together_at=T0)}
    silent = replace(operator.evidence(), silent={"a": T0 + 40}, lives=together)
    operator.ledger = next_ledger(operator.ledger, silent)
    assert bill(operator.ledger, now=T0 + 400).disputed_gpu_seconds == 8 * 360
    gone = replace(operator.evidence(), now=T0 + 400, lives=together, gone_nodes=frozenset({"a"}))
    operator.ledger = next_ledger(operator.ledger, gone)
    (closed,) = operator.ledger.uncounted
    assert (closed.end_basis, bill(operator.ledger, now=T0 + 9_999).gpu_seconds) == ("nodeGone", 8 * 400)
    assert [(each.reason, each.gpu_seconds) for each in closed.waste] == [("nodeLost", 8 * 360)]


def test_dispute_is_settled_when_the_node_answers_again() -> None:
    life = PodLife(
        uid="p", stage=Stage.TRAIN, node="a", gpus=8, created=T0, bound=T0, started=T0, end=T0 + 500, ending="written"
    )
    operator = Operator([life], PriceTable({"a": ((0, 3_600),), "b": ((0, 3_600),)}), floating=False)
    operator.look(100)
    ledger = next_ledger(operator.ledger, replace(operator.evidence(), silent={"a": T0 + 40}))
    assert bill(ledger, now=T0 + 100).disputed_gpu_seconds == 8 * 60
    ledger = next_ledger(ledger, replace(operator.evidence(), answering=frozenset({"a"})))
    assert bill(ledger, now=T0 + 100).disputed_gpu_seconds == 0
