"""The whole product on a local cluster: three nodes with a GPU each, the operator as the chart installs it."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kubernetes.aio import client, config

from rft_local.cluster import Cluster, ClusterOptions, start
from rft_local.tools import binary
from rft_operator.metrics import Metrics
from rft_operator.runtime.kube_client import KubeClient
from support.finetune import Finetune, Product
from support.local_machine import can_run_nodes
from support.pod_history import PodHistory

ROOT = Path(__file__).resolve().parents[2]
RENDERED = ROOT / "helm" / "rendered" / "rft-operator-local.yaml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is marked, and skipped where no node can run."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(900))
            if not can_run_nodes():
                item.add_marker(pytest.mark.skip(reason="nodes need root on Linux"))


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The cluster with the operator on it, and a witness of all pods."""
    state = tmp_path_factory.mktemp("e2e") / "state"
    cluster = start(ClusterOptions(name=f"e2e-{uuid.uuid4().hex[:6]}", nodes=3, state=state))
    history: PodHistory | None = None
    try:
        install(cluster)
        history = PodHistory(binary("kubectl"), cluster.kubeconfig)
        yield Product(cluster=cluster, history=history)
    finally:
        if history is not None:
            history.close()
        cluster.down()


def install(cluster: Cluster) -> None:
    """Install the operator as `make demo` does without Helm."""
    kubectl = cluster.control_plane.kubectl
    kubectl("apply", "--server-side", "-f", str(RENDERED))
    kubectl("-n", "rft-system", "rollout", "status", "deployment/rft-operator", "--timeout=90s")


@pytest.fixture
async def kube(product: Product) -> AsyncIterator[KubeClient]:
    """A client of the cluster."""
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(product.cluster.kubeconfig), client_configuration=configuration)
    async with KubeClient(configuration, Metrics()) as found:
        yield found


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
