"""Fixtures of tests of the running operator: nodes of the test's own, runs, operators."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio import client
from kubernetes.aio.config import kube_config

from rft_operator.config import Config
from rft_operator.runtime.kube_client import KubeClient
from support.api_server import ApiServer
from support.kubelet import Kubelet, kubelets
from support.live_run import LiveRun
from support.operator_process import OperatorProcess, free_port
from support.operator_thread import OperatorThread, Settings, operating
from support.pod_history import PodHistory


@pytest.fixture(scope="session")
def history(server: ApiServer) -> Iterator[PodHistory]:
    """A witness of all pods."""
    assert server.kubeconfig is not None
    found = PodHistory(server.program, server.kubeconfig)
    yield found
    found.close()


@pytest.fixture
async def core(server: ApiServer) -> AsyncIterator[client.CoreV1Api]:
    """A client for what only kubelets and users do."""
    async with client.ApiClient(await server.configuration()) as api:
        yield client.CoreV1Api(api)


@pytest.fixture
async def kubelet(
    request: pytest.FixtureRequest, server: ApiServer, core: client.CoreV1Api, kube: KubeClient, namespace: str
) -> AsyncIterator[Kubelet]:
    """Kubelets of the namespace's own nodes: two, or as many as a parameter says."""
    if server.kubeconfig is None:
        pytest.skip("plays the kubelets, so the cluster must have none")
    async with kubelets(core, kube, namespace=namespace, nodes=getattr(request, "param", 2)) as found:
        yield found


@pytest.fixture
def run(kube: KubeClient, namespace: str) -> LiveRun:
    """A run that is not applied yet."""
    return LiveRun(kube, namespace)


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    """A file of prices, which names none."""
    file = tmp_path / "prices.yaml"
    file.write_text("version: 1\nprices: []\n", encoding="utf-8")
    return file


@pytest.fixture
def settings(server: ApiServer, namespace: str, prices: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of operators that see the test's namespace alone, sweep each second and restart at once."""
    if server.kubeconfig is not None:
        # kopf reads the variable at each start, the client library when it is imported.
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
        monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(server.kubeconfig))

    def make(name: str = "operator-1", **change: Any) -> Config:
        port = free_port()
        values: dict[str, Any] = {
            "trainer_image": "rft-trainer:test",
            "namespace": namespace,
            "pod_name": name,
            "watch_namespaces": (namespace,),
            "progress_url": f"https://127.0.0.1:{port}",
            "progress_port": port,
            "metrics_port": free_port(),
            "prices_file": prices,
            "sweep_seconds": 1,
            "expected_startup_seconds": 0,
            "progress_write_seconds": 600,
            "restart_backoff_seconds": 0,
        }
        return Config(**{**values, **change})

    return make


@pytest.fixture
async def operator(settings: Settings, kubelet: Kubelet) -> AsyncIterator[OperatorThread]:
    """An operator that leads, in this process."""
    async with operating(settings()) as found:
        yield found


@pytest.fixture
def spawn(server: ApiServer, tmp_path: Path) -> Callable[[Config], OperatorProcess]:
    """Operators as ``python -m rft_operator``."""

    def make(config: Config) -> OperatorProcess:
        environment = {
            "KUBECONFIG": str(server.kubeconfig),
            "RFT_TRAINER_IMAGE": config.trainer_image,
            "RFT_NAMESPACE": config.namespace,
            "RFT_POD_NAME": config.pod_name,
            "RFT_WATCH_NAMESPACES": ",".join(config.watch_namespaces),
            "RFT_PRICES_FILE": str(config.prices_file),
            "RFT_RESTART_BACKOFF_SECONDS": str(config.restart_backoff_seconds),
            "RFT_LEADER_ELECTION": str(config.leader_election),
        }
        return OperatorProcess(environment=environment, log=tmp_path / f"{config.pod_name}.log")

    return make
