"""The operator and a whole run from the built images, in namespaces that enforce the pod security level restricted."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

from rft_local.cluster import Cluster, ClusterOptions, start
from rft_local.tools import binary
from rft_operator.metrics import Metrics
from rft_operator.runtime.kube_client import KubeClient
from support.api_server import ApiServer
from support.finetune import SHORT, Finetune, Product
from support.helm import CHART, NAMESPACE, Helm
from support.local_machine import can_run_nodes
from support.pod_history import PodHistory

PREFIX = os.environ.get("RFT_IMAGES_PREFIX", "rft.images")
TAG = os.environ.get("RFT_IMAGES_TAG", "dev")
ENFORCE = "pod-security.kubernetes.io/enforce=restricted"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(3_600),
    pytest.mark.skipif(not can_run_nodes(), reason="nodes need root on Linux"),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes with the images in their container runtimes."""
    folder = Path(os.environ["RFT_IMAGES"])
    name = f"images-{uuid.uuid4().hex[:6]}"
    found = start(ClusterOptions(name=name, nodes=2, state=tmp_path_factory.mktemp("images") / "state"))
    try:
        for image in ("operator", "trainer"):
            found.load_image(folder / f"{image}.tar")
        yield found
    finally:
        found.down()


@pytest.fixture(scope="module")
def product(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The operator, installed by Helm into a namespace that enforces restricted."""
    server = ApiServer(kubeconfig=cluster.kubeconfig, program=binary("kubectl"))
    history = PodHistory(server.program, server.kubeconfig)
    helm = Helm(program=binary("helm"), home=tmp_path_factory.mktemp("helm"), kubeconfig=cluster.kubeconfig)
    values = helm.home / "images.yaml"
    image = {"repository": f"{PREFIX}/operator", "tag": TAG, "pullPolicy": "Never"}
    trainer = {"image": f"{PREFIX}/trainer:{TAG}", "pullPolicy": "Never"}
    values.write_text(yaml.safe_dump({"image": image, "trainer": trainer}), encoding="utf-8")
    server.kubectl("create", "namespace", NAMESPACE)
    server.kubectl("label", "namespace", NAMESPACE, ENFORCE)
    found = Product(server=server, history=history, cluster=cluster, helm=helm)
    try:
        found.install(CHART, "--values", str(values))
        yield found
    finally:
        history.close()


@pytest.fixture
async def kube(product: Product) -> AsyncIterator[KubeClient]:
    """A client of the cluster."""
    async with KubeClient(await product.server.configuration(), Metrics()) as found:
        yield found


async def test_whole_run_works_from_the_built_images_when_its_namespace_enforces_restricted(
    product: Product, kube: KubeClient
) -> None:
    namespace = f"images-{uuid.uuid4().hex[:6]}"
    await kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    product.server.kubectl("label", "namespace", namespace, ENFORCE)
    run = Finetune(product=product, kube=kube, namespace=namespace)
    run.apply(**SHORT, timeouts={"pendingSeconds": 900, "startupSeconds": 900})
    status = await run.until_complete(seconds=1_800)
    assert status.evaluation is not None
    assert status.evaluation.results[0].questions == 20
    images = run.kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.containers[*].image}").split()
    assert set(images) == {f"{PREFIX}/trainer:{TAG}"}
    mounted = run.kubectl("get", "pods", "-o", "jsonpath={.items[*].spec.volumes[*].hostPath.path}")
    assert mounted == "", "nothing of the host is in them"
    await run.delete()
