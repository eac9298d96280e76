"""The work queue: a key never runs twice at once, never gets lost, never sleeps longer than it must."""

from __future__ import annotations

import asyncio

import pytest

from rft_operator.runtime import queue as queue_module
from rft_operator.runtime.queue import BACKOFF_MOST_SECONDS, ORDINARY_TURN, WorkQueue
from support.polling import eventually

LONG_SECONDS = 10_000.0


async def taken(queue: WorkQueue[str]) -> str:
    key, _ = await asyncio.wait_for(queue.get(), timeout=5)
    return key


def timers(queue: WorkQueue[str]) -> dict[str, asyncio.TimerHandle]:
    return queue._timers


async def test_key_runs_once_when_it_is_asked_for_many_times() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(5):
        queue.add("a")
    assert len(queue) == 1
    assert await taken(queue) == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_keys_are_taken_in_the_order_they_came() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("a", "b", "a", "c"):
        queue.add(key)
    assert [await taken(queue) for _ in range(3)] == ["a", "b", "c"]


async def test_wish_passes_the_news_that_waits_and_takes_its_place_in_the_order_of_wishes() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for key in ("news", "both"):
        queue.add(key)
    for key in ("wish", "both"):
        queue.add(key, prompt=True)
    assert [await taken(queue) for _ in range(3)] == ["wish", "both", "news"]


async def test_news_gets_its_turn_however_many_wishes_wait() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("news")
    for index in range(20):
        queue.add(f"wish-{index}", prompt=True)
    order = [await taken(queue) for _ in range(21)]
    assert order.index("news") == ORDINARY_TURN - 1
    assert len(queue) == 0


async def test_key_whose_delay_is_over_passes_the_news() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("news")
    queue.add_after("stop line", 0.01)

    async def both_wait() -> bool:
        return len(queue) == 2

    await eventually(both_wait, what="the delay to be over", every_seconds=0.005)
    assert await taken(queue) == "stop line"


async def test_wish_that_comes_during_a_run_passes_the_news_after_it_and_only_once() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await taken(queue)
    queue.add("news")
    queue.add("a", prompt=True)
    queue.done("a")
    assert await taken(queue) == "a"
    queue.add("a")
    queue.done("a")
    assert [await taken(queue) for _ in range(2)] == ["news", "a"]


async def test_key_is_held_back_while_it_runs_and_runs_once_more_when_asked_for_meanwhile() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await taken(queue)
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert await taken(queue) == "b"
    second = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not second.done()
    queue.done("a")
    assert (await asyncio.wait_for(second, timeout=5))[0] == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_no_key_runs_twice_at_once_and_none_is_lost_when_many_workers_race() -> None:
    queue: WorkQueue[int] = WorkQueue()
    running: set[int] = set()
    wanted: dict[int, int] = {}
    seen: dict[int, int] = {}

    async def work() -> None:
        while True:
            key, _ = await queue.get()
            assert key not in running
            running.add(key)
            version = wanted[key]
            for _ in range(key % 3 + 1):
                await asyncio.sleep(0)
            seen[key] = max(version, seen.get(key, 0))
            running.discard(key)
            queue.done(key)

    workers = [asyncio.create_task(work()) for _ in range(8)]
    for round_ in range(1, 60):
        for key in range(round_ % 7 + 1):
            wanted[key] = round_
            queue.add(key)
        await asyncio.sleep(0)

    async def at_rest() -> bool:
        return not (len(queue) or running)

    await eventually(at_rest, what="the workers to come to rest", every_seconds=0)
    assert not [worker for worker in workers if worker.done()]
    assert seen == wanted
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def test_waiting_worker_that_is_cancelled_takes_no_key_with_it() -> None:
    queue: WorkQueue[str] = WorkQueue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.add("a")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert await taken(queue) == "a"


async def test_key_comes_back_when_its_delay_is_over() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0.01)
    assert len(queue) == 0
    assert await taken(queue) == "a"
    assert not timers(queue)


async def test_key_is_ready_at_once_when_the_delay_is_nothing() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", 0)
    assert len(queue) == 1


async def test_sooner_wish_replaces_a_later_one_and_not_the_other_way_round() -> None:
    queue: WorkQueue[str] = WorkQueue()
    loop = asyncio.get_running_loop()
    queue.add_after("a", LONG_SECONDS)
    later = timers(queue)["a"]
    queue.add_after("a", 100)
    sooner = timers(queue)["a"]
    assert later.cancelled()
    assert sooner.when() < loop.time() + 101
    queue.add_after("a", LONG_SECONDS)
    assert timers(queue)["a"] is sooner
    queue.close()
    assert sooner.cancelled()
    assert not timers(queue)


async def test_delay_grows_up_to_a_bound_when_a_key_fails_again_and_again() -> None:
    queue: WorkQueue[str] = WorkQueue()
    delays = [queue.failed("a") for _ in range(40)]
    assert 0.75 <= delays[0] <= 1.25
    assert 1.5 <= delays[1] <= 2.5
    assert all(0.75 * BACKOFF_MOST_SECONDS <= delay <= 1.25 * BACKOFF_MOST_SECONDS for delay in delays[-20:])
    queue.close()


async def test_delay_starts_anew_when_a_key_succeeded() -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(10):
        queue.failed("a")
    queue.succeeded("a")
    assert queue.failed("a") <= 1.25
    queue.close()


@pytest.mark.parametrize(
    ("asked", "least", "most"), [(30.0, 30.0, 30.0), (1e9, BACKOFF_MOST_SECONDS, BACKOFF_MOST_SECONDS)]
)
async def test_key_waits_as_the_server_asks_but_never_for_ever(asked: float, least: float, most: float) -> None:
    queue: WorkQueue[str] = WorkQueue()
    assert least <= queue.failed("a", at_least_seconds=asked) <= most
    assert timers(queue)["a"].when() <= asyncio.get_running_loop().time() + most
    queue.close()


@pytest.mark.parametrize(
    ("wish", "least", "most"), [(20.0, 20.0, 20.0), (0.2, 1.0, 1.0), (0.0, 225.0, 375.0), (None, 225.0, 375.0)]
)
async def test_key_that_failed_often_is_ready_at_the_time_for_which_it_asked(
    wish: float | None, least: float, most: float
) -> None:
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(10):
        queue.failed("a")
    assert least <= queue.failed("a", wish_seconds=wish) <= most
    queue.close()


async def test_nothing_is_kept_of_a_key_when_it_succeeded_and_wants_nothing() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_after("a", LONG_SECONDS)
    queue.failed("a")
    queue.add("a")
    await taken(queue)
    queue.succeeded("a")
    queue.done("a")
    assert not timers(queue)
    assert not queue._failures
    assert not queue._processing
    assert len(queue) == 0


async def test_waiting_time_is_counted_from_the_first_wish() -> None:
    queue: WorkQueue[str] = WorkQueue()
    loop = asyncio.get_running_loop()
    before = loop.time()
    queue.add("a")
    await asyncio.sleep(0.02)
    queue.add("a")
    _, waited = await queue.get()
    assert 0.02 <= waited <= loop.time() - before


async def test_wishes_that_may_wait_become_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "BATCH_SECONDS", 0.01)
    queue: WorkQueue[str] = WorkQueue()
    for _ in range(3):
        queue.add_soon("a")
    assert len(queue) == 0
    assert await taken(queue) == "a"
    queue.done("a")
    assert len(queue) == 0
    assert queue._batches == {}


async def test_wish_that_may_wait_is_met_by_a_run_that_begins_before() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_soon("a")
    queue.add("a")
    queue.add_soon("a")
    assert await taken(queue) == "a"
    assert queue._batches == {}


async def test_wish_that_may_wait_is_not_lost_when_it_comes_during_a_run_that_succeeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue_module, "BATCH_SECONDS", 0.01)
    queue: WorkQueue[str] = WorkQueue()
    queue.add("a")
    await taken(queue)
    queue.add_soon("a")
    queue.succeeded("a")
    queue.done("a")
    assert await taken(queue) == "a"


async def test_nothing_fires_when_the_queue_is_closed() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add_soon("a")
    queue.add_after("b", LONG_SECONDS)
    batch, timer = queue._batches["a"], timers(queue)["b"]
    queue.close()
    assert batch.cancelled()
    assert timer.cancelled()
