"""The operator with Roles in some namespaces: a namespace that is deleted takes none of the others with it."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from support.api_server import EVERY_CRD, ApiServer, forget_crds
from support.builders import resource
from support.helm import CHART, NAMESPACE, RELEASE, Helm
from support.operator_process import OperatorProcess
from support.polling import eventually


@pytest.fixture
def teams() -> tuple[str, str]:
    """Names of two namespaces; the first in the list is the one that goes."""
    unique = uuid.uuid4().hex[:8]
    return f"gone-{unique}", f"stays-{unique}"


@asynccontextmanager
async def installed(server: ApiServer, helm: Helm, teams: tuple[str, ...]) -> AsyncIterator[dict[str, str]]:
    """Install the chart for some namespaces; give the environment of an operator under its account."""
    for team in teams:
        server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": team}})
    values = helm.home / "teams.yaml"
    values.write_text(json.dumps({"watchNamespaces": list(teams), "nodeSelector": {"nobody": "here"}}))
    try:
        helm.run("install", RELEASE, CHART, "--create-namespace", "--values", values)
        server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", *EVERY_CRD)
        kubeconfig = helm.home / "operator.kubeconfig"
        raw = json.loads(server.kubectl("config", "view", "--raw", "-o", "json").stdout)
        token = server.kubectl("create", "token", RELEASE, "-n", NAMESPACE).stdout.strip()
        raw["users"] = [{"name": raw["users"][0]["name"], "user": {"token": token}}]
        kubeconfig.write_text(json.dumps(raw))
        yield {
            "KUBECONFIG": str(kubeconfig),
            "RFT_TRAINER_IMAGE": "rft-trainer:0.1.0",
            "RFT_NAMESPACE": NAMESPACE,
            "RFT_WATCH_NAMESPACES": ",".join(teams),
            "RFT_SWEEP_SECONDS": "5",
        }
    finally:
        helm.run("uninstall", RELEASE, "--wait", "--no-hooks", check=False)
        for name in server.kubectl("get", "rft", "-n", teams[-1], "-o", "name", check=False).stdout.split():
            server.kubectl("patch", name, "-n", teams[-1], "--type=merge", "-p", '{"metadata":{"finalizers":[]}}')
        forget_crds(server, *EVERY_CRD)
        server.kubectl("delete", "ns", *teams, NAMESPACE, "--ignore-not-found", "--wait=false")


async def test_operator_works_on_for_the_others_when_a_watched_namespace_is_deleted(
    bare_server: ApiServer, helm_program: Path, tmp_path: Path, teams: tuple[str, str]
) -> None:
    helm = Helm(program=helm_program, home=tmp_path, kubeconfig=bare_server.kubeconfig)
    gone, stays = teams
    async with installed(bare_server, helm, teams) as environment:
        log = tmp_path / "operator.log"
        async with OperatorProcess(environment=environment, log=log) as process:
            await process.leading()
            bare_server.kubectl("delete", "ns", gone, "--timeout=60s")
            assert await process.ended() == 1
        assert f"namespaces that cannot be read now: {gone}" in log.read_text()
        async with OperatorProcess(environment=environment, log=log) as process:
            await process.leading()
            bare_server.create(resource(namespace=stays))

            async def looked_at() -> bool:
                raw = json.loads(bare_server.kubectl("get", "rft", "-n", stays, "-o", "json").stdout)
                return bool(raw["items"][0].get("status"))

            await eventually(looked_at, what="a run of the other namespace to be looked at", every_seconds=0.3)
            await process.stop()
        assert f"a watched namespace cannot be read and is left out namespace={gone}" in log.read_text()
