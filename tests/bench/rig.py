"""Everything around the operator: the control plane, the CRDs, a priced node, an account, namespaces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from bench.api import Api, until
from bench.process import MeasuredOperator
from rft_local.cluster import Cluster, ClusterOptions, start
from rft_local.control_plane import AGENT
from rft_operator.api import BUDGET_KIND, KIND
from rft_operator.runtime.kinds import path_of
from support.builders import node
from support.operator_process import free_port

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT / "crds"
OPERATOR_NAMESPACE = "rft-system"
ACCOUNT = "rft-operator"
NODE = "bench-node"
NODE_LEASE_NAMESPACE = "kube-node-lease"
RENEW_SECONDS = 3.0
SWEEP_SECONDS = 3_600
MERGE = {"Content-Type": "application/merge-patch+json"}
PRICES = """\
version: 1
currency: USD
prices:
- name: bench
  match: {instanceType: rft-local}
  usdPerHour: "3.60"
"""


class Rig:
    """A control plane that waits for an operator."""

    def __init__(self, cluster: Cluster, api: Api, folder: Path) -> None:
        self.api = api
        self._cluster = cluster
        self._folder = folder

    def pids(self) -> dict[str, int]:
        """Return the control plane's processes by name."""
        return {name: record.pid for name, record in self._cluster.processes.records().items()}

    async def prepare(self, namespaces: list[str]) -> None:
        """Create what the operator and the resources need."""
        await self._define()
        for name in (OPERATOR_NAMESPACE, *namespaces):
            await self._create("Namespace", None, {"metadata": {"name": name}})
        await self._add_node()
        await self._make_account()
        (self._folder / "prices.yaml").write_text(PRICES, encoding="utf-8")

    async def _create(self, kind: str, namespace: str | None, body: dict[str, Any]) -> dict[str, Any]:
        return await self.api.call("POST", path_of(kind, namespace), body)

    async def _define(self) -> None:
        for path in sorted(CRDS.iterdir()):
            crd = yaml.safe_load(path.read_text(encoding="utf-8"))
            await self.api.call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)

        async def served() -> bool:
            answers = [
                await self.api.call("GET", path_of(kind, None), allow=(404, 429)) for kind in (KIND, BUDGET_KIND)
            ]
            return all(answers)

        await until(served, what="the API server to serve the custom resources", seconds=30)

    async def _add_node(self) -> None:
        made = node(NODE, gpus=8)
        await self._create("Node", None, made)
        await self.api.call("PATCH", f"{path_of('Node', None, NODE)}/status", {"status": made["status"]}, headers=MERGE)
        lease = {"metadata": {"name": NODE}, "spec": {"holderIdentity": NODE, "leaseDurationSeconds": 40}}
        await self._create("Lease", NODE_LEASE_NAMESPACE, lease)

    async def keep_node_ready(self) -> None:
        """Renew the node's Lease until cancelled."""
        while True:
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            path = path_of("Lease", NODE_LEASE_NAMESPACE, NODE)
            await self.api.call("PATCH", path, {"spec": {"renewTime": now}}, headers=MERGE)
            await asyncio.sleep(RENEW_SECONDS)

    async def _make_account(self) -> None:
        rbac = "rbac.authorization.k8s.io"
        accounts = f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/serviceaccounts"
        await self.api.call("POST", accounts, {"metadata": {"name": ACCOUNT}})
        binding = {
            "metadata": {"name": ACCOUNT},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": OPERATOR_NAMESPACE}],
        }
        await self.api.call("POST", f"/apis/{rbac}/v1/clusterrolebindings", binding)
        answer = await self.api.call("POST", f"{accounts}/{ACCOUNT}/token", {"spec": {"expirationSeconds": 24 * 3_600}})
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "bench",
                    "cluster": {"server": self.api.server, "certificate-authority": self.api.authority},
                }
            ],
            "users": [{"name": "bench", "user": {"token": answer["status"]["token"]}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
            "current-context": "bench",
        }
        kubeconfig = self._folder / "operator.kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(json.dumps(config), encoding="utf-8")

    def operator(self) -> MeasuredOperator:
        """Return an operator to start, with the chart's settings where they matter."""
        port = free_port()
        environment = {
            "KUBECONFIG": str(self._folder / "operator.kubeconfig"),
            "RFT_TRAINER_IMAGE": "rft-trainer:bench",
            "RFT_NAMESPACE": OPERATOR_NAMESPACE,
            "RFT_POD_NAME": "bench",
            "RFT_PROGRESS_URL": f"https://127.0.0.1:{port}",
            "RFT_PROGRESS_PORT": str(port),
            "RFT_PRICES_FILE": str(self._folder / "prices.yaml"),
            "RFT_LOG_FORMAT": "json",
            "RFT_SWEEP_SECONDS": str(SWEEP_SECONDS),
        }
        return MeasuredOperator(environment=environment, log=self._folder / "operator.log")


@asynccontextmanager
async def rig(folder: Path, namespaces: list[str]) -> AsyncIterator[Rig]:
    """Start a control plane; end it and everything of it on the way out."""
    cluster = await asyncio.to_thread(start, ClusterOptions(name="bench", nodes=0, state=folder / "cluster"))
    try:
        cluster.processes.kill(AGENT)
        async with Api(cluster.kubeconfig) as api:
            made = Rig(cluster, api, folder)
            await made.prepare(namespaces)
            renewal = asyncio.create_task(made.keep_node_ready())
            try:
                yield made
            finally:
                renewal.cancel()
                with suppress(asyncio.CancelledError):
                    await renewal
    finally:
        await asyncio.to_thread(cluster.down)
