"""Logs of all ranks as one stream: order, attempts, resumption, and what is said of pods that cannot be read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rft_operator.api import KIND
from rft_operator.client import AsyncClient, Forbidden, LogLine, LogQuery, RunNotFound, logs, watching
from rft_operator.client.log_lines import Cursor, Origin
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.fake_api import FakeApi
from support.polling import eventually
from support.stage import World


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(logs, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(logs, "MOMENT_SECONDS", 0.02)


@pytest.fixture
async def world() -> World:
    found = World()
    await found.to_training()
    return found


@pytest.fixture
def api(world: World, tmp_path: Path) -> Any:
    with FakeApi(tmp_path, world.kube) as found:
        yield found


@pytest.fixture
async def client(api: FakeApi) -> AsyncIterator[AsyncClient]:
    async with await AsyncClient.connect(kubeconfig=api.kubeconfig) as found:
        yield found


PREPARE, FIRST, SECOND = f"{NAME}-prepare-1-0-x", f"{NAME}-train-1-0-x", f"{NAME}-train-1-1-x"


def at(second: int, fraction: str = "") -> str:
    return f"2026-01-01T00:00:{second:02d}{fraction}Z"


async def texts(stream: AsyncIterator[LogLine]) -> list[str]:
    return [f"{line.origin.stage}-{line.origin.attempt}/{line.origin.rank} {line.text}" async for line in stream]


class Following:
    """A stream that is read in the background."""

    def __init__(self, stream: AsyncIterator[LogLine]) -> None:
        self.lines: list[str] = []
        self._stream = stream
        self.task = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for line in self._stream:
            self.lines.append(line.text)

    async def until(self, text: str) -> None:
        async def look() -> bool:
            if self.task.done():
                self.task.result()
            return text in self.lines

        try:
            await eventually(look, what=text, seconds=60)
        except AssertionError as error:
            error.add_note(str(self.lines))
            raise

    async def end(self) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


async def test_logs_of_all_ranks_and_stages_are_merged_by_time(client: AsyncClient, api: FakeApi) -> None:
    api.write(PREPARE, (at(1), "rows"))
    api.write(FIRST, (at(2), "a"), (at(4, ".1"), "c"), (at(4, ".12"), "e"))
    api.write(SECOND, (at(3), "b"), (at(4, ".11"), "d"), (at(5), "f"))
    assert await texts(client.logs(NAME)) == [
        "prepare-1/0 rows",
        "train-1/0 a",
        "train-1/1 b",
        "train-1/0 c",
        "train-1/1 d",
        "train-1/0 e",
        "train-1/1 f",
    ]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (LogQuery(stage="prepare"), ["prepare-1/0 rows"]),
        (LogQuery(rank=1), ["train-1/1 b"]),
        (LogQuery(stage="train", attempt=2), []),
        (LogQuery(stage="train", tail=1), ["train-1/0 last", "train-1/1 b"]),
    ],
)
async def test_logs_are_chosen_by_stage_rank_attempt_and_tail(
    client: AsyncClient, api: FakeApi, query: LogQuery, expected: list[str]
) -> None:
    api.write(PREPARE, (at(1), "rows"))
    api.write(FIRST, (at(2), "a"), (at(3), "last"))
    api.write(SECOND, (at(4), "b"))
    assert await texts(client.logs(NAME, query)) == expected


async def test_logs_of_former_attempts_are_told_where_their_pods_still_are(
    client: AsyncClient, api: FakeApi, world: World
) -> None:
    async def fail_and_restart() -> None:
        world.finish_pods(Stage.TRAIN, exit_code=1)
        kept = [dict(pod) for pod in world.pods(Stage.TRAIN)]
        await world.after(30)
        await world.after(30)
        world.run_pods(Stage.TRAIN, 2)
        for pod in kept:
            world.kube.put(pod)

    await _work(api, fail_and_restart())
    api.write(FIRST, (at(2), "first try"))
    api.write(f"{NAME}-train-2-0-x", (at(9), "second try"))
    found = await texts(client.logs(NAME, LogQuery(stage="train", rank=0)))
    assert found == ["train-1/0 first try", "train-2/0 second try"]


async def test_pod_whose_log_cannot_be_read_is_named_and_the_others_are_told(client: AsyncClient, api: FakeApi) -> None:
    api.write(FIRST, (at(2), "a"))
    notes: list[str] = []
    query = LogQuery(stage="train")
    assert await texts(client.logs(NAME, query, on_note=notes.append)) == ["train-1/0 a"]
    assert [note.split(":")[0] for note in notes] == [SECOND]
    assert "waiting to start: ContainerCreating" in notes[0]


async def test_logs_of_an_unknown_run_and_forbidden_logs_are_errors(client: AsyncClient, api: FakeApi) -> None:
    with pytest.raises(RunNotFound, match="did you mean demo"):
        await texts(client.logs("demos"))
    words = 'pods is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "team"'
    api.fail(403, words, path="/log")
    for follow in (False, True):
        with pytest.raises(Forbidden, match="jane may not get pods/log in namespace team; the cluster's role view"):
            await asyncio.wait_for(texts(client.logs(NAME, follow=follow)), 60)


async def test_followed_logs_go_on_with_lines_pods_and_attempts_to_come(
    client: AsyncClient, api: FakeApi, world: World
) -> None:
    api.write(FIRST, (at(1), "old"))
    it = Following(client.logs(NAME, LogQuery(stage="train"), follow=True))
    await it.until("old")
    api.write(FIRST, (at(2), "new"))
    await it.until("new")
    api.write(SECOND, (at(3), "late container"))
    await it.until("late container")

    async def restart() -> None:
        world.finish_pods(Stage.TRAIN, exit_code=1)
        await world.after(30)
        await world.after(30)
        world.run_pods(Stage.TRAIN, 2)

    await _work(api, restart())
    api.write(f"{NAME}-train-2-0-x", (at(9), "second attempt"))
    await it.until("second attempt")
    await it.end()
    assert it.lines == ["old", "new", "late container", "second attempt"]


async def test_followed_logs_repeat_and_lose_nothing_when_the_stream_breaks(client: AsyncClient, api: FakeApi) -> None:
    api.write(FIRST, (at(1), "one"), (at(2), "two"), (at(2), "two again"))
    it = Following(client.logs(NAME, LogQuery(rank=0, stage="train"), follow=True))
    await it.until("two again")
    for number in range(3):
        api.cut()
        api.write(FIRST, (at(2), f"same instant {number}"), (at(3 + number), f"later {number}"))
        await it.until(f"later {number}")
    await it.end()
    expected = ["one", "two", "two again"]
    assert it.lines[:3] == expected
    assert sorted(it.lines) == sorted(set(it.lines))
    assert {f"later {number}" for number in range(3)} <= set(it.lines)


async def test_followed_logs_end_with_the_run_and_have_its_last_words(
    client: AsyncClient, api: FakeApi, world: World
) -> None:
    api.write(FIRST, (at(1), "begin"))
    it = Following(client.logs(NAME, follow=True))
    await it.until("begin")

    async def finish() -> None:
        await world.to_evaluation(seconds=100)
        world.complete(Stage.EVALUATE)
        api.logs[f"{NAME}-evaluate-1-0-x"] = [(at(8), "score")]
        api.logs[FIRST].append((at(7), "done"))
        await world.settle()

    await _work(api, finish())
    api.fail(503, "shutting down", path="/pods", times=3)
    await asyncio.wait_for(it.task, 60)
    assert it.lines == ["begin", "done", "score"]


async def test_following_the_logs_of_one_attempt_ends_with_that_attempt(
    client: AsyncClient, api: FakeApi, world: World
) -> None:
    api.write(FIRST, (at(1), "begin"))
    it = Following(client.logs(NAME, LogQuery(stage="train", attempt=1), follow=True))
    await it.until("begin")

    async def fail() -> None:
        world.finish_pods(Stage.TRAIN, exit_code=1)
        await world.after(30)

    await _work(api, fail())
    await asyncio.wait_for(it.task, 60)
    run = world.kube.objects[KIND, NAMESPACE, NAME]
    assert not any(each["type"] == "Failed" and each["status"] == "True" for each in run["status"]["conditions"])


def test_time_stamps_are_read_with_any_fraction_and_offset() -> None:
    origin = Origin(stage="train", attempt=1, rank=0, pod="p", uid="u")
    cursor = Cursor(origin)
    line = cursor.take(b"2026-01-01T02:00:00.5+02:00 hello \xff\r")
    assert line is not None
    assert (line.time, line.text) == ("2026-01-01T00:00:00.500Z", "hello \ufffd")
    kubelets = cursor.take(b"failed to try resolving symlinks")
    assert kubelets is not None
    assert (kubelets.nanos, kubelets.text) == (line.nanos, "failed to try resolving symlinks")


async def _work(api: FakeApi, work: Any) -> None:
    """Let the cluster work, in the server's own thread."""
    await asyncio.wrap_future(api.submit(work))
