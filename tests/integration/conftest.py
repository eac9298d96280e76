"""Fixtures of tests against a real API server: one per session, a fresh namespace per test."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from rft_operator.errors import NotFound
from rft_operator.metrics import Metrics
from rft_operator.runtime.kube_client import KubeClient
from support.api_server import ApiServer, api_server


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses the API server carries the marker, so that nobody can forget it."""
    for item in items:
        if "server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.controlplane)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real API server with controllers and scheduler, without nodes, that serves the CRD."""
    with api_server(tmp_path_factory.mktemp("control-plane") / "state") as found:
        yield found


@pytest.fixture
async def kube(server: ApiServer) -> AsyncIterator[KubeClient]:
    """The operator's own client."""
    async with KubeClient(await server.configuration(), Metrics()) as found:
        yield found


@pytest.fixture
async def namespace(server: ApiServer, kube: KubeClient) -> AsyncIterator[str]:
    """A fresh namespace with its service account; its deletion is started, not waited for."""
    name = f"t-{uuid.uuid4().hex[:10]}"
    await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        server.kubectl("wait", "--for=create", "--timeout=30s", "-n", name, "serviceaccount/default")
        yield name
    finally:
        await _release(kube, name)
        await kube.delete(kind="Namespace", namespace="", name=name)


async def _release(kube: KubeClient, namespace: str) -> None:
    """Take the finalizers off what a test left behind: no operator runs any more to do it."""
    for kind in ("ReasoningFinetune", "Pod"):
        for item in await kube.list(kind=kind, namespace=namespace):
            meta = item["metadata"]
            if meta.get("finalizers"):
                # A custom resource is only written at a version; a pod may be written by its controllers in between.
                version = "" if kind == "Pod" else meta["resourceVersion"]
                with contextlib.suppress(NotFound):
                    await kube.set_finalizers(
                        kind=kind, namespace=namespace, name=meta["name"], finalizers=[], resource_version=version
                    )
