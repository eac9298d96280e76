"""Probes: they prove progress, so a stuck operator is restarted and a working one is not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from rft_operator.runtime.probes import MISSED_SWEEPS, STUCK_SECONDS, Probes
from support.polling import eventually
from support.running import Operator


@contextlib.asynccontextmanager
async def probed(it: Operator) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(Probes(it.runtime).application())) as client:
        yield client


async def ask(it: Operator, path: str) -> tuple[int, str]:
    async with probed(it) as client:
        response = await client.get(path)
        return response.status, await response.text()


async def test_operator_lives_from_its_start_on() -> None:
    assert await ask(Operator(), "/livez") == (200, "ok\n")


async def test_operator_is_dead_when_its_event_loop_did_not_turn() -> None:
    it = Operator()
    it.runtime.alive_at = asyncio.get_running_loop().time() - STUCK_SECONDS - 5
    status, words = await ask(it, "/livez")
    assert status == 500
    assert "event loop has not turned for 35 s" in words


async def test_leader_is_dead_when_its_sweeps_stopped() -> None:
    it = Operator(sweep_seconds=100)
    it.runtime.leading = True
    now = asyncio.get_running_loop().time
    it.runtime.swept_at = now() - MISSED_SWEEPS * 100 + 50
    assert (await ask(it, "/livez"))[0] == 200
    it.runtime.swept_at = now() - MISSED_SWEEPS * 100 - 1
    status, words = await ask(it, "/livez")
    assert status == 500
    assert "401 s old" in words


async def test_leader_lives_when_the_api_servers_clock_is_set() -> None:
    it = Operator(sweep_seconds=100)
    async with it.leading():

        async def leads() -> bool:
            return it.runtime.leading

        await eventually(leads, what="the first sweep", every_seconds=0.001)
        it.kube.clock.observe(formatdate(it.kube.wall + 86_400, usegmt=True), sent=0.0, received=0.0)
        assert it.kube.clock.now() >= it.kube.wall + 86_400
        assert await ask(it, "/livez") == (200, "ok\n")


async def test_standby_lives_without_sweeps() -> None:
    assert (await ask(Operator(), "/livez"))[0] == 200


async def test_standby_is_ready() -> None:
    assert await ask(Operator(), "/readyz") == (200, "standing by\n")


async def test_elected_replica_is_not_ready_before_its_first_sweep_is_done() -> None:
    it = Operator()
    listing, go_on = it.kube.list, asyncio.Event()

    async def slow(**how: Any) -> Any:
        await go_on.wait()
        return await listing(**how)

    it.kube.list = slow  # type: ignore[method-assign]
    async with it.leading():
        await asyncio.sleep(0)
        assert (await ask(it, "/readyz"))[0] == 503
        go_on.set()

        async def leads() -> bool:
            return it.runtime.leading

        await eventually(leads, what="the first sweep", every_seconds=0.001)
        assert await ask(it, "/readyz") == (200, "leading\n")


async def test_metrics_are_served_in_prometheus_words() -> None:
    it = Operator()
    it.metrics.reconciles.labels("ok").inc(3)
    async with probed(it) as client:
        response = await client.get("/metrics")
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain")
        assert 'rft_reconciles_total{result="ok"} 3.0' in await response.text()
