"""The runtime: who leads reconciles, one run's trouble is its own, and nothing asked for gets lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from rft_operator.api import BUDGET_KIND
from rft_operator.domain.facts import Key
from rft_operator.errors import Conflict, Rejected, Unavailable
from rft_operator.runtime import app, queue
from rft_operator.runtime.app import is_wish
from rft_operator.runtime.kube import Listed
from support.builders import NAME, NAMESPACE, node, resource
from support.polling import eventually
from support.running import Operator

KEY = Key(NAMESPACE, NAME)
OTHER = Key(NAMESPACE, "other")


class Recorder:
    """Takes the reconciler's place: records the keys, answers as a test says."""

    def __init__(self, operator: Operator) -> None:
        self.seen: list[Key] = []
        self.answers: dict[Key, Callable[[], Awaitable[float | None]]] = {}
        operator.runtime.reconciler.reconcile = self.reconcile  # type: ignore[method-assign]

    async def reconcile(self, key: Key) -> float | None:
        self.seen.append(key)
        answer = self.answers.get(key)
        return await answer() if answer is not None else None

    async def saw(self, key: Key, times: int = 1) -> None:
        async def often_enough() -> bool:
            return self.seen.count(key) >= times

        await eventually(often_enough, what=f"{key} to be reconciled {times} times", every_seconds=0.005)


def raising(error: Exception) -> Callable[[], Awaitable[float | None]]:
    async def fail() -> float | None:
        raise error

    return fail


async def test_run_is_looked_at_when_it_came_while_the_first_sweep_still_listed_team_budgets() -> None:
    it = Operator()
    it.kube.put(node())
    pages = it.kube.pages

    async def late(*, kind: str, **words: Any) -> AsyncIterator[Listed]:
        if kind == BUDGET_KIND and not it.kube.find("ReasoningFinetune"):
            it.kube.put(resource())
        async for page in pages(kind=kind, **words):
            yield page

    it.kube.pages = late  # type: ignore[method-assign]
    seen = Recorder(it)
    async with it.leading():
        await seen.saw(KEY)


async def test_failed_run_is_looked_at_again_when_it_asked_for_it_however_often_it_failed() -> None:
    it = Operator()
    error = Rejected("no")
    error.look_again_seconds = 20.0
    seen = Recorder(it)
    seen.answers[KEY] = raising(error)
    async with it.leading():
        for _ in range(12):
            it.runtime.queue.failed(KEY)
        it.runtime.queue.add(KEY)
        await seen.saw(KEY)

        async def planned() -> bool:
            return KEY in it.runtime.queue._timers

        await eventually(planned, what="the next look to be planned", every_seconds=0.005)
        assert it.runtime.queue._timers[KEY].when() - asyncio.get_running_loop().time() <= 20


def labelled(value: str) -> Callable[[dict[str, Any]], None]:
    def change(obj: dict[str, Any]) -> None:
        obj["metadata"]["labels"] = {"x": value}

    return change


async def test_leader_brings_a_run_on_its_way() -> None:
    it = Operator()
    it.kube.put(node())
    async with it.leading():
        it.kube.put(resource())

        async def has_a_job() -> bool:
            return bool(it.kube.find("Job"))

        await eventually(has_a_job, what="the first Job", every_seconds=0.005)
    assert it.sample("rft_reconciles_total", result="ok") >= 1
    assert it.sample("rft_reconciles_total", result="crash") == 0
    assert it.sample("rft_status_writes_total") >= 1
    assert it.sample("rft_watch_events_total", kind="ReasoningFinetune") >= 1


async def test_run_that_meets_a_bug_does_not_stop_the_others() -> None:
    it = Operator(workers=1)
    recorder = Recorder(it)
    recorder.answers[KEY] = raising(TypeError("a bug"))
    it.kube.put(resource())
    async with it.leading():
        await recorder.saw(KEY)
        it.kube.put(resource("other"))
        await recorder.saw(OTHER)
        assert it.sample("rft_reconciles_total", result="crash") == 1
        assert it.runtime.queue._timers[KEY].when() > asyncio.get_running_loop().time()


@pytest.mark.parametrize("error", [Unavailable("down"), Rejected("no"), Conflict("late")])
async def test_run_is_repeated_later_when_the_api_server_fails(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "BACKOFF_FIRST_SECONDS", 0.1)
    it = Operator(workers=1)
    recorder = Recorder(it)
    recorder.answers[KEY] = raising(error)
    it.kube.put(resource())
    async with it.leading():
        await recorder.saw(KEY)
        assert it.runtime.queue._timers[KEY].when() > asyncio.get_running_loop().time()
        await recorder.saw(KEY, times=2)


async def test_run_waits_as_long_as_the_server_asks() -> None:
    it = Operator(workers=1)
    recorder = Recorder(it)
    recorder.answers[KEY] = raising(Unavailable("busy", status=429, retry_after_seconds=40))
    it.kube.put(resource())
    async with it.leading():
        await recorder.saw(KEY)
        await asyncio.sleep(0)
        assert it.runtime.queue._timers[KEY].when() > asyncio.get_running_loop().time() + 39


async def test_resource_is_read_again_when_somebody_else_wrote_first() -> None:
    it = Operator(workers=1)
    recorder = Recorder(it)
    it.kube.put(resource())
    it.kube.subscribers.clear()
    async with it.leading():
        await recorder.saw(KEY)
        recorder.answers[KEY] = raising(Conflict("late"))
        it.kube.patch("ReasoningFinetune", NAMESPACE, NAME, lambda obj: obj["spec"].update(suspend=True))
        it.runtime.wake(KEY)
        await recorder.saw(KEY, times=2)

        async def is_fresh() -> bool:
            raw = it.runtime.cache.resource(KEY)
            return raw is not None and raw["spec"].get("suspend") is True

        await eventually(is_fresh, what="the newer resource", every_seconds=0.005)


async def test_run_is_looked_at_again_when_it_asks_for_it() -> None:
    it = Operator()
    recorder = Recorder(it)

    async def soon() -> float | None:
        return 0.01 if recorder.seen.count(KEY) < 3 else None

    recorder.answers[KEY] = soon
    it.kube.put(resource())
    async with it.leading():
        await recorder.saw(KEY, times=3)
        await asyncio.sleep(0)
        assert KEY not in it.runtime.queue._timers


async def test_timer_of_a_run_is_gone_with_the_run() -> None:
    it = Operator()
    recorder = Recorder(it)

    async def much_later() -> float | None:
        return 1e6 if it.runtime.cache.resource(KEY) is not None else None

    recorder.answers[KEY] = much_later
    it.kube.put(resource())
    async with it.leading():
        await recorder.saw(KEY)
        await asyncio.sleep(0)
        assert KEY in it.runtime.queue._timers
        it.kube.remove("ReasoningFinetune", NAMESPACE, NAME)
        await recorder.saw(KEY, times=2)
        await asyncio.sleep(0)
        assert not it.runtime.queue._timers
    assert it.runtime.cache.known_keys() == ()


async def test_event_that_comes_while_a_run_is_looked_at_makes_one_more_look() -> None:
    it = Operator()
    recorder = Recorder(it)
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> float | None:
        inside.set()
        await go_on.wait()
        return None

    recorder.answers[KEY] = slow
    it.kube.put(resource())
    async with it.leading():
        await inside.wait()
        for label in ("one", "two", "three"):
            it.kube.patch("ReasoningFinetune", NAMESPACE, NAME, labelled(label))
        assert recorder.seen == [KEY]
        go_on.set()
        await recorder.saw(KEY, times=2)
        it.kube.put(resource("other"))
        await recorder.saw(OTHER)
    assert recorder.seen.count(KEY) == 2


async def test_standby_keeps_no_queue_but_sees_everything() -> None:
    it = Operator()
    it.kube.put(resource())
    it.kube.put(node())
    assert len(it.runtime.queue) == 0
    assert it.runtime.cache.known_keys() == (KEY,)
    recorder = Recorder(it)
    async with it.leading():
        await recorder.saw(KEY)
    assert it.sample("rft_queue_wait_seconds_count") == 1


async def test_nothing_is_judged_before_everything_was_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Operator()
    recorder = Recorder(it)
    listing = it.kube.list
    attempts: list[str] = []

    async def unreachable_at_first(**how: Any) -> Any:
        attempts.append(how["kind"])
        assert not it.runtime.leading
        assert not recorder.seen
        if len(attempts) == 1:
            raise Unavailable("down")
        return await listing(**how)

    monkeypatch.setattr(it.kube, "list", unreachable_at_first)
    it.kube.put(resource())
    async with it.leading():
        await recorder.saw(KEY)
        assert it.runtime.leading
        assert it.sample("rft_leader") == 1
        assert it.sample("rft_last_sweep_timestamp_seconds") == it.kube.wall
    assert attempts.count("Node") == 2


async def test_sweeps_go_on_when_one_of_them_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Operator(sweep_seconds=0)
    recorder = Recorder(it)
    it.kube.put(resource())
    listing = it.kube.list
    calls = 0

    async def down_for_a_while(**how: Any) -> Any:
        nonlocal calls
        calls += 1
        if 8 < calls < 12:
            raise Unavailable("down")
        return await listing(**how)

    monkeypatch.setattr(it.kube, "list", down_for_a_while)
    async with it.leading():
        await recorder.saw(KEY, times=3)


async def test_every_run_is_looked_at_when_the_prices_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "TICK_SECONDS", 0.005)
    file = tmp_path / "prices.yaml"
    it = Operator(prices_file=file)
    recorder = Recorder(it)
    it.kube.put(resource())
    it.kube.put(resource("other"))
    async with it.leading():
        await recorder.saw(KEY)
        await recorder.saw(OTHER)
        file.write_text('version: 1\nprices: [{name: a, match: {instanceType: x}, usdPerHour: "1"}]\n')
        await recorder.saw(KEY, times=2)
        await recorder.saw(OTHER, times=2)


async def test_lead_leaves_nothing_running_when_it_ends() -> None:
    it = Operator()
    recorder = Recorder(it)

    async def later() -> float | None:
        return 1_000.0

    recorder.answers[KEY] = later
    it.kube.put(resource())
    before = asyncio.all_tasks()
    async with it.leading():
        await recorder.saw(KEY)
    assert asyncio.all_tasks() == before
    assert (it.runtime.elected, it.runtime.leading) == (False, False)
    assert it.sample("rft_leader") == 0
    assert not it.runtime.queue._timers


async def test_trainers_are_told_of_the_progress_server_once_its_authority_is_known() -> None:
    it = Operator(progress_url="https://rft:8443")
    assert it.runtime.settings().progress_url is None
    it.runtime.progress_ca = "PEM"
    assert (it.runtime.settings().progress_url, it.runtime.settings().progress_ca) == ("https://rft:8443", "PEM")
    assert Operator().runtime.settings().progress_url is None


async def test_event_loop_proves_that_it_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "LAG_SECONDS", 0.01)
    it = Operator()
    it.runtime.alive_at = 0.0
    pulse = asyncio.create_task(it.runtime.watch_loop_lag())

    async def is_alive() -> bool:
        return it.runtime.alive_at > 0

    await eventually(is_alive, what="the pulse", every_seconds=0.005)
    pulse.cancel()
    await asyncio.gather(pulse, return_exceptions=True)
    assert it.sample("rft_event_loop_lag_seconds") >= 0


async def test_unreadable_resource_does_not_hide_the_others_from_prometheus() -> None:
    it = Operator()
    it.runtime.leading = True
    it.kube.put(resource())
    broken = resource("broken")
    it.runtime.saw(
        "ReasoningFinetune",
        "ADDED",
        {**broken, "spec": {}, "metadata": {**broken["metadata"], "uid": "u", "resourceVersion": "9"}},
    )
    assert it.sample("reasoning_finetune_budget_usd", namespace=NAMESPACE, finetune=NAME) == 10
    assert it.sample("reasoning_finetune_budget_usd", namespace=NAMESPACE, finetune="broken") == 0


@pytest.mark.parametrize(
    ("type_", "metadata", "observed", "wish"),
    [
        ("ADDED", {"generation": 1}, None, True),
        ("MODIFIED", {"generation": 2}, 1, True),
        ("MODIFIED", {"generation": 2}, 2, False),
        ("MODIFIED", {"generation": 2, "deletionTimestamp": "2026-11-25T00:00:00Z"}, 2, True),
        ("DELETED", {"generation": 2}, 2, True),
    ],
)
def test_event_is_a_wish_when_the_user_changed_what_was_not_looked_at(
    type_: str, metadata: dict[str, Any], observed: int | None, wish: bool
) -> None:
    status = {} if observed is None else {"observedGeneration": observed}
    assert is_wish(type_, {"metadata": metadata, "status": status}) is wish


async def test_standby_shows_no_run_to_prometheus_or_sums_would_count_it_twice() -> None:
    it = Operator()
    it.kube.put(resource())
    labels = {"namespace": NAMESPACE, "finetune": NAME}
    assert it.runtime.metrics.registry.get_sample_value("reasoning_finetune_budget_usd", labels) is None
    it.runtime.leading = True
    assert it.runtime.metrics.registry.get_sample_value("reasoning_finetune_budget_usd", labels) == 10
