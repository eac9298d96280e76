"""The operator's process: exit codes, signals, and what is left behind when it stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web
from kubernetes.aio import config as kube_config

from rft_operator.__main__ import amain, main
from rft_operator.errors import ConfigError
from support.operator_process import free_port
from support.polling import eventually
from support.web_api import Request, WebApi, serve

LEASE_PATH = "/apis/coordination.k8s.io/v1/namespaces/rft-system/leases/rft-operator"


class Cluster:
    """What the process needs of an API server: empty lists and one Lease."""

    def __init__(self) -> None:
        self.api = WebApi([self.answer])
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.missing_crd = "none"

    async def answer(self, request: Request) -> web.StreamResponse:
        if "/leases" in request.path:
            return self._lease(request)
        if self.missing_crd in request.path:
            return web.json_response({"message": "404 page not found"}, status=404)
        return web.json_response({"items": [], "metadata": {}})

    def _lease(self, request: Request) -> web.Response:
        if request.method == "GET" and self.lease is None:
            return web.json_response({"message": "not found"}, status=404)
        if request.method in ("POST", "PUT"):
            self.version += 1
            written = json.loads(request.body)
            self.lease = {**written, "metadata": {**written["metadata"], "resourceVersion": str(self.version)}}
        return web.json_response(self.lease)

    @property
    def holder(self) -> str | None:
        return self.lease["spec"]["holderIdentity"] if self.lease is not None else None

    async def has_holder(self) -> bool:
        return bool(self.holder)


class Watches:
    """Takes kopf's place: as kopf, it takes the signals for itself, says that it is ready, and runs until told."""

    def __init__(self) -> None:
        self.running = False
        self.end = asyncio.Event()

    async def operator(self, *, stop_flag: asyncio.Event, ready_flag: asyncio.Event, **_: Any) -> None:
        self.running = True
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.end.set)
        ready_flag.set()
        waiting = [asyncio.create_task(flag.wait()) for flag in (stop_flag, self.end)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        self.running = False


@pytest.fixture(autouse=True)
def process_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the operator sets for its whole process must not outlive a test."""
    monkeypatch.setattr("gc.freeze", lambda: None)
    monkeypatch.setattr("gc.set_threshold", lambda *_: None)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def use_kubeconfig(folder: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "x", "cluster": {"server": url}}],
        "users": [{"name": "x", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "current-context": "x",
    }
    file = folder / "kubeconfig"
    file.write_text(json.dumps(content))
    for name in [name for name in os.environ if name.startswith("RFT_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(kube_config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    monkeypatch.setenv("RFT_TRAINER_IMAGE", "rft.local/trainer:dev")
    monkeypatch.setenv("RFT_METRICS_PORT", "0")
    monkeypatch.setenv("RFT_POD_NAME", "me")


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    it = Cluster()
    async with serve(it.api) as url:
        use_kubeconfig(tmp_path, url, monkeypatch)
        yield it


@pytest.fixture
async def watches(monkeypatch: pytest.MonkeyPatch) -> Watches:
    it = Watches()
    monkeypatch.setattr(kopf, "operator", it.operator)
    return it


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_operator_stops_cleanly_and_releases_the_lease_at_a_signal(
    cluster: Cluster, watches: Watches, number: signal.Signals
) -> None:
    running = asyncio.create_task(amain())
    await eventually(cluster.has_holder, what="the lease")
    assert cluster.holder == "me"
    os.kill(os.getpid(), number)
    assert await asyncio.wait_for(running, timeout=20) == 0
    assert cluster.holder == ""
    assert not watches.running
    assert not watches.end.is_set()


async def test_operator_asks_to_be_restarted_when_the_watches_end(cluster: Cluster, watches: Watches) -> None:
    running = asyncio.create_task(amain())
    await eventually(cluster.has_holder, what="the lease")
    watches.end.set()
    assert await asyncio.wait_for(running, timeout=20) == 1
    assert cluster.holder == ""


async def test_operator_asks_to_be_restarted_when_it_lost_the_lease(cluster: Cluster, watches: Watches) -> None:
    running = asyncio.create_task(amain())
    await eventually(cluster.has_holder, what="the lease")
    assert cluster.lease is not None
    cluster.lease["spec"]["holderIdentity"] = "another"
    assert await asyncio.wait_for(running, timeout=20) == 1
    assert cluster.holder == "another"
    assert not watches.running


async def test_operator_runs_without_a_lease_when_elections_are_off(
    cluster: Cluster, watches: Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFT_LEADER_ELECTION", "false")
    running = asyncio.create_task(amain())

    async def swept() -> bool:
        return any("/pods" in request.path for request in cluster.api.requests)

    await eventually(swept, what="the first sweep")
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, timeout=20) == 0
    assert cluster.lease is None


async def test_standby_follows_the_prices_which_it_may_have_to_charge_at_any_time(
    cluster: Cluster, watches: Watches, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cluster.lease = {"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "another"}}
    prices, port = tmp_path / "prices.yaml", free_port()
    prices.write_text("version: 1\nprices: [{name: a}]\n")
    monkeypatch.setattr("rft_operator.runtime.app.TICK_SECONDS", 0.01)
    monkeypatch.setenv("RFT_PRICES_FILE", str(prices))
    monkeypatch.setenv("RFT_METRICS_PORT", str(port))
    running = asyncio.create_task(amain())

    def shows(line: str) -> Callable[[], Awaitable[bool]]:
        async def shown() -> bool:
            with contextlib.suppress(aiohttp.ClientError):
                async with aiohttp.request("GET", f"http://127.0.0.1:{port}/metrics") as answer:
                    return line in (await answer.text()).splitlines()
            return False

        return shown

    await eventually(shows("rft_price_catalogue_problems 1.0"), what="the wrong price")
    prices.write_text("version: 1\nprices: []\n")
    await eventually(shows("rft_price_catalogue_problems 0.0"), what="the corrected catalogue")
    assert cluster.holder == "another"
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, timeout=20) == 0


@pytest.mark.parametrize(
    ("plural", "kind"), [("reasoningfinetunes", "ReasoningFinetune"), ("finetunebudgets", "FinetuneBudget")]
)
async def test_operator_does_not_start_without_its_crds(cluster: Cluster, plural: str, kind: str) -> None:
    cluster.missing_crd = plural
    with pytest.raises(ConfigError, match=f"{kind} is not installed: install the Helm chart"):
        await asyncio.wait_for(amain(), timeout=20)


async def test_connection_that_asks_for_nothing_is_closed(
    cluster: Cluster, watches: Watches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rft_operator.__main__.IDLE_SECONDS", 0.2)
    port = free_port()
    monkeypatch.setenv("RFT_METRICS_PORT", str(port))
    running = asyncio.create_task(amain())
    await eventually(cluster.has_holder, what="the lease")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await asyncio.wait_for(reader.read(), timeout=20) == b"", "many of them would use up the memory"
    writer.close()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(running, timeout=20) == 0


async def test_port_that_is_taken_is_named(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("RFT_METRICS_PORT", str(port))
        with pytest.raises(ConfigError, match=f"RFT_METRICS_PORT={port}: cannot listen there"):
            await asyncio.wait_for(amain(), timeout=20)


def test_exit_code_is_two_when_a_setting_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_kubeconfig(tmp_path, "http://127.0.0.1:1", monkeypatch)
    monkeypatch.setenv("RFT_WORKERS", "none")
    assert main() == 2
    assert capsys.readouterr().err.startswith("error: RFT_WORKERS='none'")


def test_exit_code_is_one_when_the_api_server_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_kubeconfig(tmp_path, "http://127.0.0.1:1", monkeypatch)
    assert main() == 1
    assert "error: the API server cannot be used: list ReasoningFinetune" in capsys.readouterr().err


def test_exit_code_is_two_when_there_is_no_kubeconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_kubeconfig(tmp_path, "http://127.0.0.1:1", monkeypatch)
    (tmp_path / "kubeconfig").unlink()
    assert main() == 2
    assert "KUBECONFIG" in capsys.readouterr().err
