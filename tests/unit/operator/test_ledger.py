"""The ledger: each pod charged exactly once, from bound to ended, whatever happens in between."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rft_operator.api.ledger import Ledger
from rft_operator.domain.bill import bill
from rft_operator.domain.evidence import Evidence
from rft_operator.domain.facts import PodFacts, PodPhase
from rft_operator.domain.ledger import next_ledger, releasable
from rft_operator.domain.rates import Rate
from rft_trainer.contract import Stage

T0 = 1_800_000_000
RATE = Rate(micro_usd_per_gpu_hour=2_950_000, source="spec")


def pod(uid: str = "p", **change: object) -> PodFacts:
    base = PodFacts(
        uid=uid,
        namespace="team",
        name=uid,
        finetune="demo",
        stage=Stage.TRAIN,
        attempt=1,
        rank=0,
        resource_version="1",
        phase=PodPhase.RUNNING,
        created_at=T0 - 30,
        node="node-1",
        gpus=8,
        scheduled_at=T0,
        has_finalizer=True,
    )
    return replace(base, **change)  # type: ignore[arg-type]


def step(ledger: Ledger, *pods: PodFacts, now: int) -> Ledger:
    return next_ledger(ledger, Evidence(pods=pods, rate_of=lambda _: RATE, fallback=RATE, now=now))


def test_waiting_pod_is_free_when_it_is_not_bound() -> None:
    ledger = step(Ledger(), pod(scheduled_at=None, node=None, phase=PodPhase.PENDING), now=T0 + 999)
    assert bill(ledger, now=T0 + 999).amount == 0


def test_bound_pod_is_charged_when_it_still_pulls_its_image() -> None:
    ledger = step(Ledger(), pod(phase=PodPhase.PENDING), now=T0 + 100)
    found = bill(ledger, now=T0 + 100)
    assert found.gpu_seconds == 800
    assert found.rate == 8 * 2_950_000
    # 800 GPU-seconds at $2.95 an hour, rounded up once.
    assert found.spent_micro_usd == -(-800 * 2_950_000 // 3_600)


def test_entry_closes_at_the_phase_write_when_the_pod_ends() -> None:
    ledger = step(Ledger(), pod(), now=T0 + 50)
    ended = pod(phase=PodPhase.SUCCEEDED, phase_written_at=T0 + 90, finished_at=T0 + 88)
    ledger = step(ledger, ended, now=T0 + 500)
    assert not ledger.open
    assert ledger.uncounted[0].end_basis == "phaseWritten"
    assert bill(ledger, now=T0 + 9_999).gpu_seconds == 8 * 90


def test_entry_closes_after_the_container_when_no_phase_write_is_known() -> None:
    ledger = step(step(Ledger(), pod(), now=T0), pod(phase=PodPhase.FAILED, finished_at=T0 + 88), now=T0 + 500)
    assert (ledger.uncounted[0].end_basis, bill(ledger, now=T0).gpu_seconds) == ("finishedAt", 8 * 89)


def test_entry_closes_now_and_is_marked_estimated_when_the_pod_vanishes() -> None:
    ledger = step(step(Ledger(), pod(), now=T0), now=T0 + 70)
    assert ledger.uncounted[0].end_basis == "vanished"
    ledger = step(ledger, now=T0 + 900)
    assert (ledger.totals[0].gpu_seconds, ledger.totals[0].estimated_gpu_seconds) == (560, 560)


def test_pod_is_charged_once_when_its_finalizer_lingers() -> None:
    ended = pod(phase=PodPhase.SUCCEEDED, phase_written_at=T0 + 10)
    ledger = step(step(Ledger(), pod(), now=T0), ended, now=T0 + 20)
    for _ in range(3):
        assert releasable(ledger, [ended]) == (ended,)
        ledger = step(ledger, ended, now=T0 + 30)
    released = replace(ended, has_finalizer=False)
    ledger = step(ledger, released, now=T0 + 40)
    ledger = step(ledger, released, now=T0 + 50)
    assert bill(ledger, now=T0 + 99).gpu_seconds == 80
    assert not ledger.uncounted


def test_finalizer_stays_when_the_entry_is_still_open() -> None:
    running = pod()
    ledger = step(Ledger(), running, now=T0)
    assert releasable(ledger, [running, replace(running, deleted_at=T0 + 5)]) == ()


def test_finalizer_comes_off_when_a_pod_was_deleted_before_it_was_bound() -> None:
    unbound = pod(scheduled_at=None, node=None, phase=PodPhase.PENDING, deleted_at=T0)
    assert releasable(Ledger(), [unbound]) == (unbound,)


def test_price_stays_when_the_catalogue_changes_after_the_bind() -> None:
    ledger = step(Ledger(), pod(), now=T0)
    dearer = Rate(micro_usd_per_gpu_hour=9_000_000, source="new")
    ledger = next_ledger(ledger, Evidence(pods=[pod()], rate_of=lambda _: dearer, fallback=dearer, now=T0 + 5))
    assert ledger.open[0].micro_usd_per_gpu_hour == 2_950_000


LIFE = st.lists(
    st.tuples(
        st.integers(0, 500),  # created
        st.integers(1, 300),  # bound after
        st.integers(0, 2_000),  # runs for
        st.integers(1, 8),  # GPUs
        st.booleans(),  # does the operator ever see the end before the pod goes?
    ),
    min_size=1,
    max_size=6,
)


@given(LIFE, st.lists(st.integers(1, 400), min_size=1, max_size=40), st.lists(st.booleans(), min_size=80, max_size=80))
def test_bill_equals_the_pods_lives_when_looks_and_writes_are_irregular(
    lives: list[tuple[int, int, int, int, bool]], looks: list[int], writes: list[bool]
) -> None:
    """The operator looks at odd moments, and some of its writes are lost: the final bill is the same."""
    ledger, released, now = Ledger(), set[str](), T0
    end_of_all = T0 + max(created + wait + length for created, wait, length, _, _ in lives)
    moments = [*looks, *([10_000] * 8)]
    for index, gap in enumerate(moments):
        now += gap
        pods = [view for number, life in enumerate(lives) if (view := _view(number, life, now, released)) is not None]
        candidate = step(ledger, *pods, now=now)
        lost = index < len(looks) and not writes[index]
        if not lost:
            released |= {each.uid for each in releasable(ledger, pods)}
            ledger = candidate
    assert now > end_of_all
    expected = sum(length * gpus for _, _, length, gpus, _ in lives)
    assert bill(ledger, now=now).gpu_seconds == expected
    assert bill(ledger, now=now).amount == expected * 2_950_000


def _view(number: int, life: tuple[int, int, int, int, bool], now: int, released: set[str]) -> PodFacts | None:
    created, wait, length, gpus, _ = life
    uid, bound = f"p{number}", T0 + created + wait
    if now < T0 + created:
        return None
    base = pod(uid, gpus=gpus, has_finalizer=uid not in released, phase=PodPhase.PENDING)
    if now < bound:
        return replace(base, scheduled_at=None, node=None)
    if now < bound + length:
        return replace(base, scheduled_at=bound, phase=PodPhase.RUNNING)
    return replace(base, scheduled_at=bound, phase=PodPhase.SUCCEEDED, phase_written_at=bound + length)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_spent_never_falls_when_time_passes(first: int, later: int) -> None:
    ledger = step(Ledger(), pod(), now=T0)
    early, late = T0 + first, T0 + first + later
    assert bill(ledger, now=early).spent_micro_usd <= bill(ledger, now=late).spent_micro_usd
