"""Events are written in order and beside the work; none holds anything up, and none is waited for without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rft_operator.errors import KubeError, Rejected, Unavailable
from rft_operator.runtime import event_queue
from rft_operator.runtime.event_queue import EventQueue
from support.builders import resource
from support.fake_kube import FakeKube
from support.polling import eventually

RUN = {**resource(), "metadata": {**resource()["metadata"], "uid": "uid-1", "resourceVersion": "7"}}


class Api(FakeKube):
    """Fails as told, then writes."""

    def __init__(self, *failures: KubeError) -> None:
        super().__init__(lambda: 0)
        self.failures = list(failures)
        self.written: list[str] = []
        self.blocked = asyncio.Event()
        self.blocked.set()

    async def emit(self, *, regarding: object, type_: str, reason: str, message: str) -> None:
        await self.blocked.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.written.append(reason)


@asynccontextmanager
async def writing(queue: EventQueue) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(queue.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ask(queue: EventQueue, *reasons: str) -> None:
    for reason in reasons:
        await queue.emit(regarding=RUN, type_="Normal", reason=reason, message="m")


async def all_written(api: Api, *reasons: str) -> None:
    async def look() -> bool:
        return api.written == list(reasons)

    await eventually(look, what=f"{reasons} to be written")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_queue, "REPEAT_SECONDS", (0.0, 0.0))


async def test_events_are_written_in_the_order_they_were_asked_for() -> None:
    api = Api()
    queue = EventQueue(api)
    async with writing(queue):
        await ask(queue, "A", "B", "C")
        await all_written(api, "A", "B", "C")


async def test_nobody_waits_when_the_api_server_does_not_answer() -> None:
    api = Api()
    api.blocked.clear()
    queue = EventQueue(api)
    async with writing(queue):
        await asyncio.wait_for(ask(queue, "A", "B"), timeout=5)
        assert api.written == []
        api.blocked.set()
        await all_written(api, "A", "B")


async def test_each_event_lets_runs_pass_while_they_wait_and_is_written_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(event_queue, "PATIENCE_SECONDS", 0.03)
    api, loop = Api(), asyncio.get_running_loop()
    began = loop.time()
    queue = EventQueue(api, busy=lambda: True)
    async with writing(queue):
        await ask(queue, "A", "B", "C")
        await all_written(api, "A", "B", "C")
    assert loop.time() - began >= 3 * 0.03


async def test_event_is_repeated_when_the_api_server_was_unavailable() -> None:
    api = Api(Unavailable("503"), Unavailable("503"))
    queue = EventQueue(api)
    async with writing(queue):
        await ask(queue, "A")
        await all_written(api, "A")


@pytest.mark.parametrize(
    "failures", [[Rejected("403")], [Unavailable("503")] * 3], ids=["refused", "unavailable for too long"]
)
async def test_event_is_dropped_and_the_next_one_written_when_it_cannot_be(
    failures: list[KubeError], caplog: pytest.LogCaptureFixture
) -> None:
    api = Api(*failures)
    queue = EventQueue(api)
    async with writing(queue):
        await ask(queue, "A", "B")
        await all_written(api, "B")
    assert [record.message for record in caplog.records] == ["an Event is dropped"]


async def test_newest_event_is_dropped_when_too_many_wait(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_queue, "EVENTS_KEPT", 2)
    api = Api()
    queue = EventQueue(api)
    await ask(queue, "A", "B", "C")
    async with writing(queue):
        await all_written(api, "A", "B")
    assert [record.message for record in caplog.records] == ["an Event is dropped"]


async def test_what_waits_or_is_under_way_is_still_written_when_the_operator_stops() -> None:
    api = Api()
    api.blocked.clear()
    queue = EventQueue(api)
    async with writing(queue) as task:
        await ask(queue, "A", "B")
        await asyncio.sleep(0)
        task.cancel()
        api.blocked.set()
    assert api.written == ["A", "B"]


async def test_stopping_operator_does_not_wait_long_for_a_dead_api_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_queue, "FLUSH_SECONDS", 0.01)
    api = Api()
    api.blocked.clear()
    queue = EventQueue(api)
    async with writing(queue) as task:
        await ask(queue, "A", "B")
        task.cancel()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), timeout=5)
    assert api.written == []
