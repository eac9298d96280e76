"""Floating prices against an oracle that knows of each second what it was to cost: catalogues are edited, announced and
not, nodes go with their labels, team budgets hold the folding, writes are lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rft_operator.api.ledger import MAX_PRICE_STEPS
from rft_operator.domain.bill import bill, bill_at
from rft_operator.domain.ledger import next_ledger
from rft_operator.domain.timestamps import rfc3339
from rft_trainer.contract import Stage
from support.ledger_operator import FALLBACK_PRICE, Operator
from support.pod_lives import NODES, T0, PodLife, PriceTable, pod_lives, price_tables

HORIZON = T0 + 1_400
"""After the end of every life that is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look of the operator, and what the cluster and its admin did before it."""

    after: int
    is_lost: bool
    table: int
    """Which of the drawn catalogues is in force."""
    missing: frozenset[str]
    hold_after: int | None


LOOKS = st.lists(
    st.builds(
        Look,
        after=st.integers(1, 300),
        is_lost=st.booleans(),
        table=st.integers(0, 2),
        missing=st.sampled_from((frozenset(), frozenset(), frozenset({"a"}), frozenset(NODES))),
        hold_after=st.one_of(st.none(), st.integers(T0, T0 + 1_500)),
    ),
    min_size=1,
    max_size=20,
)


@dataclass(slots=True)
class Seconds:
    """What each second of each pod costs a GPU, as far as it is known: written down second by second."""

    lives: Sequence[PodLife]
    notice_seconds: int
    prices: dict[str, dict[int, int]] = field(default_factory=dict)

    def look(self, now: int, table: PriceTable, missing: frozenset[str]) -> None:
        """The operator's record of this look lasts."""
        for life in self.lives:
            if life.bound > now:
                continue
            if life.uid not in self.prices:
                gone = life.node in missing
                span = range(life.bound, HORIZON)
                self.prices[life.uid] = {at: FALLBACK_PRICE if gone else table.price(life.node, at) for at in span}
            elif life.node not in missing and now < life.end:
                row = self.prices[life.uid]
                for at in range(now, HORIZON):
                    new = table.price(life.node, at)
                    row[at] = min(row[at], new) if at < now + self.notice_seconds else new

    def amount(self, until: int) -> int:
        """Return micro-dollars per hour x seconds of all pods until an instant."""
        return sum(
            life.gpus * price
            for life in self.lives
            for at, price in self.prices.get(life.uid, {}).items()
            if at < min(until, life.end)
        )


def no_record_is_full(operator: Operator) -> bool:
    """Whether nothing was left off a record: what does not fit is known later, and this oracle knows all at once."""
    return all(len(entry.announced) < MAX_PRICE_STEPS for entry in operator.ledger.open)


@settings(max_examples=40)
@given(pod_lives(), st.lists(price_tables(most_steps=2), min_size=3, max_size=3), LOOKS, st.integers(0, 200))
def test_floating_bill_is_the_sum_of_what_each_second_was_known_to_cost(
    lives: list[PodLife], tables: list[PriceTable], looks: list[Look], notice_seconds: int
) -> None:
    lives = [replace(life, ending="written") for life in lives]
    operator = Operator(lives, tables[0], floating=True, notice_seconds=notice_seconds)
    seconds = Seconds(lives, notice_seconds)
    for look in looks:
        operator.prices, operator.missing, operator.hold_after = tables[look.table], look.missing, look.hold_after
        found = operator.look(look.after, write_is_lost=look.is_lost)
        assume(no_record_is_full(operator))
        if not look.is_lost:
            seconds.look(operator.now, operator.prices, look.missing)
            assert found.amount == seconds.amount(operator.now)
            folded = operator.ledger.folded_until
            if look.hold_after is not None and (folded is None or folded <= rfc3339(look.hold_after)):
                at = min(look.hold_after, operator.now)
                assert bill_at(operator.ledger, at).amount == seconds.amount(at), "a team budget sees its window"
    operator.missing, operator.hold_after = frozenset(), None
    operator.look(5_000)
    seconds.look(operator.now, operator.prices, operator.missing)
    final = operator.settle()
    assert final.amount == seconds.amount(HORIZON)
    assert final.gpu_seconds == sum(life.gpus * (life.end - life.bound) for life in lives)
    ledger = operator.ledger
    assert (ledger.open, ledger.uncounted, ledger.former) == ([], [], [])


def running(*steps: tuple[int, int], notice_seconds: int = 0) -> Operator:
    """Return an operator with a pod of one GPU on node a from T0 to T0 + 500, at $1 first and then as given."""
    life = PodLife(
        uid="p", stage=Stage.TRAIN, node="a", gpus=1, created=T0, bound=T0, started=T0, end=T0 + 500, ending="written"
    )
    return Operator([life], table(*steps), floating=True, notice_seconds=notice_seconds)


def table(*steps: tuple[int, int]) -> PriceTable:
    rows = ((T0 - 10, 1), *((T0 + at, price) for at, price in steps))
    return PriceTable({"a": rows, "b": ((T0 - 10, 1),)})


def test_step_is_charged_when_the_pod_ends_while_a_team_budget_holds_the_folding() -> None:
    operator = running((100, 9))
    operator.look(10)
    operator.hold_after = T0 + 50
    assert operator.look(990).amount == 100 * 1 + 400 * 9
    (part,) = operator.ledger.former
    assert (part.end_time, part.micro_usd_per_gpu_hour) == (rfc3339(T0 + 100), 1)
    assert operator.ledger.totals == []
    operator.hold_after = None
    assert operator.settle().amount == 100 * 1 + 400 * 9
    assert operator.ledger.former == []


def test_announced_step_is_charged_when_the_node_went_before_it_came() -> None:
    operator = running((100, 9))
    operator.look(10)
    operator.missing = frozenset({"a"})
    assert operator.settle().amount == 100 * 1 + 400 * 9


def test_step_while_its_node_was_said_to_be_gone_is_charged_when_the_node_is_back() -> None:
    operator = running((200, 9))
    operator.look(10)
    gone = replace(operator.evidence(), now=T0 + 100, gone_nodes=frozenset({"a"}))
    operator.ledger = next_ledger(operator.ledger, gone)
    assert operator.ledger.open == []
    operator.now = T0 + 300
    back = replace(operator.evidence(), answering=frozenset({"a"}))
    operator.ledger = next_ledger(operator.ledger, back)
    assert bill(operator.ledger, now=T0 + 300).amount == 200 * 1 + 100 * 9


def test_rise_dated_back_is_charged_from_one_notice_after_it_was_first_seen() -> None:
    operator = running(notice_seconds=90)
    operator.look(100)
    operator.prices = table((5, 9))
    assert operator.look(100).amount == 200 * 1
    assert operator.settle().amount == 290 * 1 + 210 * 9


def test_rise_announced_too_late_is_charged_from_one_notice_after_it_was_first_seen() -> None:
    operator = running(notice_seconds=90)
    operator.look(100)
    operator.prices = table((120, 9))
    operator.look(1)
    assert operator.settle().amount == 191 * 1 + 309 * 9


def test_fall_that_nobody_announced_is_charged_at_once_and_takes_back_a_rise() -> None:
    operator = running(notice_seconds=90)
    operator.look(100)
    operator.prices = table((5, 90))
    operator.look(50)
    operator.prices = table()
    operator.look(50)
    assert operator.ledger.open[0].announced == []
    assert operator.settle().amount == 500 * 1


def test_announced_rise_that_is_withdrawn_is_never_charged() -> None:
    operator = running((300, 9), notice_seconds=90)
    operator.look(100)
    operator.prices = table()
    operator.look(100)
    assert operator.settle().amount == 500 * 1


def test_record_holds_the_next_changes_only_and_takes_on_the_rest_when_they_have_passed() -> None:
    steps = [(20 * number, number + 1) for number in range(1, MAX_PRICE_STEPS + 4)]
    operator = running(*steps)
    operator.look(1)
    assert len(operator.ledger.open[0].announced) == MAX_PRICE_STEPS
    operator.look(99)
    assert operator.settle().amount == sum(operator.prices.price("a", second) for second in range(T0, T0 + 500))
