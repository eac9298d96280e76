"""The whole product on a local cluster: three nodes with a GPU each, the operator as Helm installs it.

With USE_EXISTING_CLUSTER=1 on the cluster of the current kubeconfig, where the operator must be installed.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from rft_local.cluster import Cluster, ClusterOptions, start
from rft_local.tools import binary
from rft_operator.metrics import Metrics
from rft_operator.runtime.kube_client import KubeClient
from support.api_server import ApiServer, existing_server, uses_existing_cluster
from support.finetune import Finetune, Product
from support.helm import NAMESPACE, Helm
from support.local_machine import can_run_nodes, let_go_first
from support.pod_history import PodHistory


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is marked, and skipped where no node can run."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(900))
            if not uses_existing_cluster() and not can_run_nodes():
                item.add_marker(pytest.mark.skip(reason="nodes need root on Linux, or USE_EXISTING_CLUSTER=1"))


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The cluster with the operator on it, and a witness of all pods."""
    with existing() if uses_existing_cluster() else local(tmp_path_factory) as found:
        yield found


@contextlib.contextmanager
def existing() -> Iterator[Product]:
    """The cluster of the current kubeconfig."""
    server = existing_server()
    operator = server.kubectl("get", "deploy", "-A", "-l", "app.kubernetes.io/name=rft-operator", "-o", "name").stdout
    if not operator:
        pytest.fail("the operator is not on this cluster; install it with Helm first (README.md)", pytrace=False)
    history = PodHistory(server.program, None)
    try:
        yield Product(server=server, history=history, cluster=None)
    finally:
        history.close()


@contextlib.contextmanager
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A cluster of our own."""
    folder = tmp_path_factory.mktemp("e2e")
    name = f"e2e-{uuid.uuid4().hex[:6]}"
    cluster = start(ClusterOptions(name=name, nodes=3, state=folder / "state", audit=True))
    history: PodHistory | None = None
    try:
        let_go_first(cluster.layout)  # these tests are a chain, the longest of the suite
        server = ApiServer(kubeconfig=cluster.kubeconfig, program=binary("kubectl"))
        history = PodHistory(server.program, server.kubeconfig)
        helm = Helm(program=binary("helm"), home=folder / "helm", kubeconfig=cluster.kubeconfig)
        server.kubectl("create", "namespace", NAMESPACE)
        # The cluster's admission policy mounts folders of the host into the operator's pod.
        server.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged")
        product = Product(server=server, history=history, cluster=cluster, helm=helm)
        product.install()
        yield product
    finally:
        if history is not None:
            history.close()
        cluster.down()


@pytest.fixture
async def kube(product: Product) -> AsyncIterator[KubeClient]:
    """A client of the cluster."""
    async with KubeClient(await product.server.configuration(), Metrics()) as found:
        yield found


@pytest.fixture
def machines(product: Product) -> Cluster:
    """The machines below the cluster, for tests that break them."""
    if product.cluster is None:
        pytest.skip("breaks a machine or a process on it, which only the local cluster offers")
    return product.cluster


@pytest.fixture
async def finetune(product: Product, kube: KubeClient) -> AsyncIterator[Finetune]:
    """A run in a namespace of its own; not applied yet."""
    namespace = f"e2e-{uuid.uuid4().hex[:8]}"
    await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    run = Finetune(product=product, kube=kube, namespace=namespace)
    yield run
    # pytest shows this only for a test that failed.
    print(json.dumps(run.kubectl_json("get", "rft", "-o", "json"), indent=1))
    print(run.kubectl("get", "events", "--sort-by=.metadata.creationTimestamp"))
    try:
        await run.delete()
    finally:
        await kube.delete(kind="Namespace", namespace="", name=namespace)
