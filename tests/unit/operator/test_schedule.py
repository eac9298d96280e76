"""How long money lasts while prices rise and fall, against an oracle that pays every second by itself."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rft_operator.api.ledger import Ledger
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.bill import Bill, Kind, Share, bill
from rft_operator.domain.budget import LONGEST_DEADLINE_SECONDS, Terms, assess, pod_deadline_seconds, stop_bound_seconds
from rft_operator.domain.rates import Rate
from rft_operator.domain.schedule import Schedule, amount_of
from rft_trainer.contract import Stage
from support.objects import stored_run

NOW = 1_800_000_000
SPEC = ReasoningFinetune.parse(stored_run()).spec


@st.composite
def schedules(draw: st.DrawFn, *, least: int = 0) -> Schedule:
    """Draw rates that change up to five times within an hour."""
    rate = st.integers(least, 50_000_000)
    later = sorted(draw(st.sets(st.integers(1, 3_600), max_size=5)))
    return Schedule(((NOW, draw(rate)), *((NOW + each, draw(rate)) for each in later)))


def paid(schedule: Schedule, seconds: int) -> int:
    """Pay second by second."""
    return sum([rate for since, rate in schedule.steps if since <= NOW + each][-1] for each in range(seconds))


@given(schedules(), st.integers(0, 5_000))
def test_cost_is_the_sum_of_all_seconds(schedule: Schedule, seconds: int) -> None:
    assert schedule.cost(seconds) == paid(schedule, seconds)


@given(schedules(least=1), st.integers(0, 3_000 * 50_000_000))
def test_money_lasts_as_long_as_the_last_second_that_can_be_paid(schedule: Schedule, amount: int) -> None:
    lasts = schedule.lasts(amount)
    assert lasts is not None
    assert schedule.cost(lasts) <= amount < schedule.cost(lasts + 1)


def test_money_lasts_for_ever_when_nothing_costs_anything() -> None:
    assert Schedule.flat(NOW, 0).lasts(0) is None
    assert Schedule(((NOW, 5), (NOW + 10, 0))).lasts(50) is None
    assert Schedule(((NOW, 5), (NOW + 10, 0))).lasts(49) == 9


@given(schedules(), schedules(), st.integers(0, 4_000))
def test_sum_of_two_costs_what_both_cost(one: Schedule, two: Schedule, seconds: int) -> None:
    assert one.plus(two).cost(seconds) == one.cost(seconds) + two.cost(seconds)


@given(schedules(), st.integers(0, 4_000), st.integers(0, 4_000))
def test_one_who_begins_later_pays_what_is_due_then(schedule: Schedule, delay: int, seconds: int) -> None:
    assert schedule.delayed(delay).cost(seconds) == schedule.cost(delay + seconds) - schedule.cost(delay)


@given(schedules(), st.integers(0, 4_000))
def test_price_that_is_locked_at_any_time_is_never_more_than_the_dearest_so_far(schedule: Schedule, at: int) -> None:
    assert schedule.never_cheaper().at(NOW + at) == max(schedule.at(NOW + each) for each in range(at + 1))


def terms(per_gpu: Schedule, *, limit: int, reserve: int, grace: int) -> Terms:
    return Terms(
        spec=SPEC,
        stage=Stage.TRAIN,
        rate=Rate(micro_usd_per_gpu_hour=per_gpu.at(NOW), source="test"),
        schedule=per_gpu,
        limit_micro_usd=limit,
        reserve_micro_usd=reserve,
        grace=grace,
    )


@given(
    schedules(least=100_000),
    st.integers(1, 40_000_000),
    st.integers(0, 5_000_000),
    st.integers(10, 600),
    st.integers(0, 3_600),
)
def test_limit_holds_to_the_second_when_pods_run_to_their_deadline_and_take_all_the_time_they_may(
    per_gpu: Schedule, limit: int, reserve: int, grace: int, wait: int
) -> None:
    """Whenever within the wait the gang starts: nobody looks any more, and each pod is charged to the last second."""
    ahead = per_gpu.never_cheaper()
    deadline = pod_deadline_seconds(
        terms(ahead.delayed(wait), limit=limit, reserve=reserve, grace=grace), bill(Ledger(), now=NOW)
    )
    seconds = deadline + stop_bound_seconds(grace)
    gpus = SPEC.resources.nodes * SPEC.resources.gpus_per_node
    for start in {0, wait // 2, wait}:
        spent = gpus * (per_gpu.cost(start + seconds) - per_gpu.cost(start))
        assert deadline == 1 or spent <= amount_of(limit - reserve)


@given(schedules(least=1), st.integers(1, 40_000_000), st.integers(0, 10**12), st.integers(31, 700))
def test_stop_line_is_the_last_second_from_which_the_stop_can_be_paid(
    schedule: Schedule, limit: int, spent: int, bound: int
) -> None:
    now = Bill(by_kind={Kind("train", "", ""): Share(gpu_seconds=1, amount=spent)}, rate=schedule.at(NOW))
    state = assess(now, limit_micro_usd=limit, reserve_micro_usd=0, schedule=schedule, bound_seconds=bound)
    left = amount_of(limit) - spent
    if state.past_stop_line:
        assert schedule.cost(bound + 1) > left
    elif state.stop_at is None:
        assert schedule.cost(LONGEST_DEADLINE_SECONDS) <= left, "no pod has so long a deadline"
    else:
        until = state.stop_at - NOW + bound
        assert schedule.cost(until) <= left < schedule.cost(until + 1)
