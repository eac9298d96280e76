"""Events: one object per thing that happens, repeats counted, nothing the API server would refuse."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.errors import Conflict
from rft_operator.runtime.events import EventWriter
from support.builders import NAMESPACE
from support.fake_kube import FakeKube
from support.objects import stored_run


class Writing:
    """A fake API server and a writer of Events."""

    def __init__(self) -> None:
        self.kube = FakeKube(lambda: 0)
        self.writer = EventWriter(self.kube, instance="rft-operator-0")

    async def emit(self, message: str = "Attempt 1.", *, reason: str = "AttemptStarted", **run: Any) -> None:
        await self.writer.emit(regarding=stored_run(**run), type_="Normal", reason=reason, message=message)

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.kube.find("Event")


async def test_event_names_what_it_is_about_and_who_says_it() -> None:
    it = Writing()
    await it.emit()
    (event,) = it.events
    assert event["apiVersion"] == "events.k8s.io/v1"
    assert event["regarding"]["kind"] == "ReasoningFinetune"
    assert event["regarding"]["uid"] == stored_run()["metadata"]["uid"]
    assert event["metadata"]["namespace"] == NAMESPACE
    assert (event["type"], event["reason"], event["note"]) == ("Normal", "AttemptStarted", "Attempt 1.")
    assert (event["reportingController"], event["reportingInstance"]) == ("rft.dev/operator", "rft-operator-0")
    assert event["action"]
    assert "series" not in event


async def test_repeat_is_counted_and_makes_no_second_object() -> None:
    it = Writing()
    for _ in range(3):
        await it.emit()
    (event,) = it.events
    assert event["series"]["count"] == 3
    assert event["series"]["lastObservedTime"] >= event["eventTime"]


async def test_other_words_another_reason_or_another_resource_make_another_event() -> None:
    it = Writing()
    await it.emit()
    await it.emit("Attempt 2.")
    await it.emit(reason="Stalled")
    await it.emit(uid="another")
    assert len(it.events) == 4
    assert not [event for event in it.events if "series" in event]


@pytest.mark.parametrize("letter", ["x", "ü", "漢", "😀"])
async def test_note_fits_the_api_servers_bytes_when_a_message_is_long(letter: str) -> None:
    it = Writing()
    await it.emit("a" + letter * 2_000)
    note = it.events[0]["note"]
    assert 1_020 < len(note.encode()) <= 1_024
    assert set(note) == {"a", letter}


async def test_event_is_made_anew_when_it_expires_between_the_refusal_and_the_read() -> None:
    it = Writing()
    await it.emit()
    create = it.kube.create
    calls = []

    async def expire(manifest: Any) -> dict[str, Any]:
        calls.append(manifest)
        if len(calls) == 1:
            it.kube.event_objects.clear()
            raise Conflict("already exists", status=409)
        return await create(manifest)

    it.kube.create = expire  # type: ignore[method-assign]
    await it.emit()
    assert len(calls) == 2
    assert len(it.events) == 1
