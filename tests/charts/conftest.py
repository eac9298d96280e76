"""Fixtures of the chart's tests: the programs that grade it, and an API server that has never seen it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rft_local.cluster import ClusterOptions, start
from rft_local.tools import binary
from support.api_server import ApiServer
from support.helm import VALUES, Helm


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder carries the marker; those on an API server carry that one, too."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.charts)
            if "bare_server" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.controlplane)


@pytest.fixture(scope="session")
def helm_program() -> Path:
    """Helm 4, built once."""
    return binary("helm")


@pytest.fixture
def helm(helm_program: Path, tmp_path: Path) -> Helm:
    """Helm without a cluster."""
    return Helm(program=helm_program, home=tmp_path)


@pytest.fixture(scope="session")
def bare_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A control plane without nodes and without our CRD: the chart brings it."""
    state = tmp_path_factory.mktemp("charts") / "state"
    cluster = start(ClusterOptions(name=f"charts-{uuid.uuid4().hex[:8]}", nodes=0, state=state))
    try:
        yield ApiServer(kubeconfig=cluster.kubeconfig, program=binary("kubectl"))
    finally:
        cluster.down()


@pytest.fixture(params=VALUES, ids=lambda path: path.name.removesuffix("-values.yaml"))
def values_file(request: pytest.FixtureRequest) -> Path:
    """Each feature's values file."""
    found = request.param
    assert isinstance(found, Path)
    return found
