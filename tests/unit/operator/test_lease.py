"""Leader election: one holder at a time, a quick successor after a clean exit, no faith in answers that are late."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

from rft_operator.errors import Conflict, KubeError, Unavailable
from rft_operator.runtime.lease import LeaseElector
from support.fake_kube import FakeKube
from support.polling import eventually

SOON_SECONDS = 10.0


class Store(FakeKube):
    """A fake API server that can be slow, silent or broken for one client."""

    def __init__(self) -> None:
        super().__init__(lambda: 0)
        self.error: KubeError | None = None
        self.silent = False
        self.last_answer_takes_seconds = 0.0
        """The next write is answered so late, and nothing after it."""
        self.local = 1_000.0
        """The client's monotonic clock, where a test drives it."""

    async def read(self, *, kind: str, namespace: str | None, name: str) -> dict[str, Any]:
        await self._trouble()
        return await super().read(kind=kind, namespace=namespace, name=name)

    async def replace(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        await self._trouble()
        written = await super().replace(manifest)
        if self.last_answer_takes_seconds:
            self.local += self.last_answer_takes_seconds
            self.error = Unavailable("down")
        return written

    async def _trouble(self) -> None:
        if self.silent:
            await asyncio.Event().wait()
        if self.error is not None:
            self.local += 0.5
            raise self.error

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.objects["Lease", "rft-system", "rft-operator"]["spec"]
        return spec


def elector(store: FakeKube, identity: str = "one", **times: Any) -> LeaseElector:
    times = {"retry_seconds": 0.001, **times}
    return LeaseElector(store, namespace="rft-system", name="rft-operator", identity=identity, **times)


async def soon(work: Any) -> None:
    await asyncio.wait_for(work, timeout=SOON_SECONDS)


async def test_first_replica_makes_the_lease_and_holds_it() -> None:
    store = Store()
    await soon(elector(store).acquire())
    assert store.spec["holderIdentity"] == "one"
    assert store.spec["leaseDurationSeconds"] == 15
    assert store.spec["leaseTransitions"] == 0
    assert store.spec["acquireTime"].endswith("Z")


async def test_renewal_moves_the_renew_time_alone() -> None:
    store = Store()
    one = elector(store)
    await soon(one.acquire())
    before = dict(store.spec)
    await soon(one.acquire())
    changed = {name for name, value in store.spec.items() if before[name] != value}
    assert changed == {"renewTime"}


async def test_successor_waits_until_the_record_has_not_moved_for_its_duration() -> None:
    store = Store()
    await soon(elector(store, "one").acquire())
    ticks = itertools.count()
    two = elector(store, "two", monotonic=lambda: float(next(ticks)))
    await soon(two.acquire())
    assert next(ticks) > 15
    assert store.spec["holderIdentity"] == "two"
    assert store.spec["leaseTransitions"] == 1


async def test_successor_never_gets_the_lease_while_it_is_renewed() -> None:
    store = Store()
    one, ticks = elector(store, "one"), itertools.count(step=10)
    await soon(one.acquire())
    two = elector(store, "two", monotonic=lambda: float(next(ticks)))
    for _ in range(20):
        await soon(one.acquire())
        assert not await two._try()
    assert store.spec["holderIdentity"] == "one"


async def test_duration_is_the_one_the_holder_wrote() -> None:
    store = Store()
    await soon(elector(store, "one", lease_seconds=60).acquire())
    ticks = itertools.count()
    await soon(elector(store, "two", monotonic=lambda: float(next(ticks))).acquire())
    assert next(ticks) > 60


async def test_released_lease_is_taken_at_once() -> None:
    store = Store()
    one, two = elector(store, "one"), elector(store, "two", monotonic=lambda: 0.0)
    await soon(one.acquire())
    await one.release()
    assert store.spec["holderIdentity"] == ""
    await soon(two.acquire())
    assert store.spec["holderIdentity"] == "two"


async def test_lease_is_taken_over_from_one_who_still_renews_it_and_who_then_stops() -> None:
    store = Store()
    one, heir = elector(store, "one", renew_deadline_seconds=0.05), elector(store, "heir", renew_deadline_seconds=0.05)
    await soon(one.acquire())
    holding = asyncio.create_task(one.hold())
    await soon(heir.take_over())
    assert holding.done(), "its deadline has passed"
    assert store.spec["holderIdentity"] == "heir"
    assert not await one._try()


async def test_lease_that_was_taken_over_is_held_for_as_long_as_the_work_takes() -> None:
    store = Store()
    await soon(elector(store, "one").acquire())
    heir = elector(store, "two", renew_deadline_seconds=0.5)
    await soon(heir.take_over())
    taken = store.spec["renewTime"]
    holding = asyncio.create_task(heir.hold())

    async def renewed() -> bool:
        assert not holding.done(), "it let go of the lease at once"
        return bool(store.spec["renewTime"] > taken)

    await eventually(renewed, what="the lease to be renewed", every_seconds=0.001)
    assert store.spec["holderIdentity"] == "two"
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)


async def test_lease_is_taken_over_when_there_is_none_and_after_trouble() -> None:
    store = Store()
    store.error = Unavailable("down")
    heir = elector(store, "heir", renew_deadline_seconds=0.001)
    taking = asyncio.create_task(heir.take_over())
    await asyncio.sleep(0.01)
    assert not taking.done()
    store.error = None
    await soon(taking)
    assert store.spec["holderIdentity"] == "heir"


async def test_lease_of_another_is_not_released() -> None:
    store = Store()
    await soon(elector(store, "one").acquire())
    await elector(store, "two").release()
    assert store.spec["holderIdentity"] == "one"


async def test_release_does_not_fail_when_the_api_server_is_down_or_there_is_no_lease() -> None:
    store = Store()
    await elector(store).release()
    store.error = Unavailable("down")
    await elector(store).release()
    assert not store.objects


async def test_restarted_process_of_the_same_pod_takes_its_lease_at_once() -> None:
    store = Store()
    await soon(elector(store).acquire())
    await soon(elector(store, monotonic=lambda: 0.0).acquire())
    assert store.spec["leaseTransitions"] == 0


async def test_one_of_two_wins_when_both_make_the_lease() -> None:
    store = Store()
    electors = [elector(store, name, monotonic=lambda: 0.0) for name in ("one", "two")]
    assert sorted(await asyncio.gather(*(each._try() for each in electors))) == [False, True]


async def test_lease_is_not_won_when_somebody_else_writes_in_between() -> None:
    store = Store()
    await elector(store, "one").acquire()
    await elector(store, "one").release()

    async def refuse(_: Mapping[str, Any]) -> dict[str, Any]:
        raise Conflict("the object has been modified", status=409)

    store.replace = refuse  # type: ignore[method-assign, assignment]
    assert not await elector(store, "two")._try()
    assert store.spec["holderIdentity"] == ""


async def test_lease_is_won_when_the_api_server_comes_back() -> None:
    store = Store()
    store.error = Unavailable("down")
    winning = asyncio.create_task(elector(store).acquire())
    await asyncio.sleep(0.01)
    assert not winning.done()
    store.error = None
    await soon(winning)
    assert store.spec["holderIdentity"] == "one"


async def test_holder_gives_up_when_it_cannot_renew_within_the_deadline() -> None:
    store = Store()
    one = elector(store, monotonic=lambda: store.local)
    await soon(one.acquire())
    began = store.local
    store.error = Unavailable("down")
    await soon(one.hold())
    assert 10 <= store.local - began < 11


async def test_deadline_counts_from_before_the_renewal_was_sent() -> None:
    store = Store()
    one = elector(store, monotonic=lambda: store.local)
    await soon(one.acquire())
    store.last_answer_takes_seconds = 9
    sent = store.local
    await soon(one.hold())
    # The record moved when the request arrived: a successor may take the lease 15 s after that.
    assert store.local - sent < 11


async def test_holder_does_not_wait_for_an_answer_beyond_its_deadline() -> None:
    store = Store()
    one = elector(store, renew_deadline_seconds=0.1)
    await soon(one.acquire())
    store.silent = True
    await soon(one.hold())


async def test_holder_stops_at_once_when_somebody_else_holds_the_lease() -> None:
    store = Store()
    one = elector(store, renew_deadline_seconds=10_000)
    await soon(one.acquire())
    store.spec["holderIdentity"] = "two"
    await soon(one.hold())


async def test_holder_has_given_up_before_a_successor_can_win_when_it_is_cut_off() -> None:
    store, order = Store(), list[str]()
    cut_off = Store()
    cut_off.objects = store.objects
    one = elector(cut_off, "one", lease_seconds=1, renew_deadline_seconds=0.4)
    two = elector(store, "two", lease_seconds=1)
    await soon(one.acquire())
    cut_off.silent = True

    async def lead() -> None:
        await one.hold()
        order.append("one stopped")

    async def follow() -> None:
        await two.acquire()
        order.append("two leads")

    await soon(asyncio.gather(lead(), follow()))
    assert order == ["one stopped", "two leads"]
