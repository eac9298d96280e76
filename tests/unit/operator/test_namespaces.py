"""A watched namespace that cannot be read, for it was deleted with the operator's Role, holds up none of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from rft_operator.errors import Rejected
from rft_operator.runtime.kube_client import KubeClient
from rft_operator.runtime.namespaces import LEFT_OUT, Namespaces, look
from support.fake_kube import FakeKube
from support.polling import eventually
from support.running import Operator


class Guarded:
    """A fake cluster whose answers to lists in some namespaces are refusals."""

    def __init__(self, kube: FakeKube) -> None:
        self.closed: dict[str, int] = {}
        """Namespace -> status."""
        self._list = kube.list
        kube.list = self.list  # type: ignore[method-assign]

    async def list(self, *, kind: str, namespace: str | None = None, label_selector: str | None = None) -> Any:
        status = self.closed.get(namespace or "")
        if status is not None:
            raise Rejected(f"list {kind}: {status}: no", status=status)
        return await self._list(kind=kind, namespace=namespace, label_selector=label_selector)


async def looked(kube: FakeKube, *names: str) -> Namespaces:
    return await look(cast(KubeClient, kube), names)


async def test_whole_cluster_is_watched_without_a_question_when_no_namespace_is_named() -> None:
    kube = FakeKube(lambda: 0)
    Guarded(kube).closed = {"": 403}
    assert await looked(kube) == Namespaces(readable=(), barred=())


async def test_namespace_that_cannot_be_read_is_told_from_those_that_can() -> None:
    kube = FakeKube(lambda: 0)
    Guarded(kube).closed = {"gone": 403}
    for names in (("gone", "a", "b"), ("a", "gone", "b"), ("a", "b", "gone")):
        assert await looked(kube, *names) == Namespaces(readable=("a", "b"), barred=("gone",))


@pytest.mark.parametrize(("closed", "names"), [({"a": 403, "b": 403}, ("a", "b")), ({"a": 404}, ("a", "b"))])
async def test_refusal_that_is_not_one_namespaces_is_told_as_it_is(
    closed: dict[str, int], names: tuple[str, ...]
) -> None:
    kube = FakeKube(lambda: 0)
    Guarded(kube).closed = closed
    with pytest.raises(Rejected):
        await looked(kube, *names)


async def until(holds: Callable[[], bool]) -> None:
    async def look() -> bool:
        return holds()

    await eventually(look, what="it", every_seconds=0.005)


async def ended(it: Operator) -> None:
    """Lead until the lead ends by itself."""
    await asyncio.wait_for(it.runtime.lead(), 20)


@pytest.mark.parametrize(
    ("barred", "closed"),
    [((), {"team-b": 403}), (("team-b",), {})],
    ids=["one went", "one came back"],
)
async def test_operator_starts_anew_when_other_namespaces_can_be_read(
    barred: tuple[str, ...], closed: dict[str, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rft_operator.runtime.app.random.uniform", lambda *_: 0.01)
    watched = tuple(name for name in ("team-a", "team-b") if name not in barred)
    it = Operator(watch_namespaces=watched, sweep_seconds=1)
    it.runtime.barred = barred
    guarded = Guarded(it.kube)
    guarded.closed = dict.fromkeys(barred, 403)
    waiting = asyncio.create_task(ended(it))
    await until(lambda: it.runtime.leading)
    guarded.closed = closed
    await waiting
    assert f"starting anew: namespaces that cannot be read now: {'team-b' if closed else 'none'}" in caplog.text
    assert not it.runtime.leading


async def test_standby_whose_namespace_went_does_not_lead_without_it_but_starts_anew() -> None:
    it = Operator(watch_namespaces=("team-a", "team-b"))
    Guarded(it.kube).closed = {"team-b": 403}
    await ended(it)
    assert it.sample("rft_last_sweep_timestamp_seconds") == 0


async def test_operator_goes_on_with_the_others_while_a_namespace_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rft_operator.runtime.app.random.uniform", lambda *_: 0.01)
    it = Operator(watch_namespaces=("team-a",), sweep_seconds=1)
    it.runtime.barred = ("team-b",)
    guarded = Guarded(it.kube)
    guarded.closed = {"team-b": 403}
    async with it.leading():
        await until(lambda: caplog.text.count(LEFT_OUT) >= 2)
        assert it.sample("rft_leader") == 1
        guarded.closed = {"team-a": 403, "team-b": 403}  # no namespace's matter: the API server's, or our account's
        await until(lambda: "a sweep failed" in caplog.text)
