"""The chart grants exactly what the operator uses: its whole repertoire is run under the chart's own ServiceAccount."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from kubernetes.aio import client

from rft_operator.api import GROUP, PLURAL
from rft_operator.domain.pods import status_path
from rft_operator.metrics import Metrics
from rft_operator.runtime.kube_client import KubeClient
from support.api_recorder import Recorder, Use, recording
from support.api_server import EVERY_CRD, ApiServer, forget_crds
from support.helm import CHART, NAMESPACE, RELEASE, Helm, Manifest, the
from support.kubelet import kubelets
from support.operator_process import OperatorProcess, free_port
from support.repertoire import live_every_kind_of_life
from support.rights import EVERYWHERE, grants, unused

GROUPS = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"]
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
RBAC = "rbac.authorization.k8s.io"
WRITE = ("create", "update", "patch", "delete", "deletecollection")
FORBIDDEN: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "secrets", ("list", "watch", *WRITE)),
    ("", "pods", ("create", "update", "delete", "deletecollection")),
    *(("", f"pods/{part}", ("get", *WRITE)) for part in ("exec", "attach", "portforward", "log", "status", "binding")),
    *(("", f"pods/{part}", WRITE) for part in ("eviction", "ephemeralcontainers", "resize")),
    *(("", resource, WRITE) for resource in ("nodes", "nodes/status", "nodes/proxy", "namespaces", "serviceaccounts")),
    *(("", resource, ("update", "delete")) for resource in ("services", "configmaps", "persistentvolumeclaims")),
    ("", "serviceaccounts/token", ("create",)),
    *((RBAC, f"{part}s", (*WRITE, "bind", "escalate")) for part in ("role", "clusterrole")),
    *((RBAC, f"{part}bindings", WRITE) for part in ("role", "clusterrole")),
    ("apiextensions.k8s.io", "customresourcedefinitions", ("get", "list", *WRITE)),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", WRITE),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", WRITE),
    *(("", resource, ("impersonate",)) for resource in ("users", "groups", "serviceaccounts")),
    *(("apps", resource, ("get", *WRITE)) for resource in ("deployments", "daemonsets", "statefulsets")),
    ("batch", "jobs", ("update", "deletecollection")),
    ("batch", "cronjobs", ("get", *WRITE)),
    ("rft.dev", "reasoningfinetunes", ("create", "update", "deletecollection")),
    ("rft.dev", "finetunebudgets", WRITE),
)
"""What no operator of ours needs, in no namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Installed:
    """The chart on the API server."""

    server: ApiServer
    objects: list[Manifest]
    team: str

    async def allowed(self, asked: Iterable[Use]) -> list[Use]:
        """Return what of all this the API server would allow to the operator's account."""
        async with client.ApiClient(await self.server.configuration()) as api:
            reviews = client.AuthorizationV1Api(api)

            async def may(use: Use) -> bool:
                resource, _, subresource = use.resource.partition("/")
                attributes = client.V1ResourceAttributes(
                    group=use.group,
                    resource=resource,
                    subresource=subresource or None,
                    verb=use.verb,
                    namespace=use.namespace,
                    name=use.name,
                )
                spec = client.V1SubjectAccessReviewSpec(resource_attributes=attributes, user=ACCOUNT, groups=GROUPS)
                answer = await reviews.create_subject_access_review(client.V1SubjectAccessReview(spec=spec))
                return bool(answer.status.allowed)

            asked = list(asked)
            answers = await asyncio.gather(*(may(use) for use in asked))
            return [use for use, yes in zip(asked, answers, strict=True) if yes]


@pytest.fixture(params=["cluster", "namespaced"], scope="module")
def installed(
    request: pytest.FixtureRequest, bare_server: ApiServer, helm_program: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """The chart in both modes, on a cluster that is left as it was."""
    home = tmp_path_factory.mktemp("helm")
    server, team = bare_server, f"rights-{uuid.uuid4().hex[:8]}"
    server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": team}})
    helm = Helm(program=helm_program, home=home, kubeconfig=server.kubeconfig)
    values = home / "mode.yaml"
    watched = [team] if request.param == "namespaced" else []
    # The operator runs beside the cluster; its pod must not wait on the nodes of a test.
    values.write_text(json.dumps({"watchNamespaces": watched, "nodeSelector": {"nobody": "here"}}), encoding="utf-8")
    try:
        helm.run("install", RELEASE, CHART, "--create-namespace", "--values", values)
        server.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", *EVERY_CRD)
        yield Installed(server=server, objects=helm.objects(values), team=team)
    finally:
        for kind in ("reasoningfinetune", "pod"):
            for name in server.kubectl("get", kind, "-n", team, "-o", "name", check=False).stdout.split():
                server.kubectl("patch", name, "-n", team, "--type=merge", "-p", '{"metadata":{"finalizers":[]}}')
        helm.run("uninstall", RELEASE, "--wait", "--no-hooks", check=False)
        forget_crds(server, *EVERY_CRD)
        server.kubectl("delete", "pods", "--all", "-n", team, "--force", "--wait=false")
        server.kubectl("delete", "ns", team, "--wait=false")
        server.kubectl("delete", "ns", NAMESPACE, "--ignore-not-found", "--timeout=60s")


async def test_account_may_do_nothing_of_what_no_operator_needs(installed: Installed) -> None:
    asked = [
        Use(group, resource, verb, namespace, None)
        for group, resource, verbs in FORBIDDEN
        for verb in verbs
        for namespace in (installed.team, "kube-system", None)
    ]
    assert await installed.allowed(asked) == []


async def test_account_reaches_only_the_watched_namespaces_when_some_are_named(installed: Installed) -> None:
    rows = [("", "secrets", "get"), ("batch", "jobs", "create"), ("", "pods", "list"), (GROUP, PLURAL, "patch")]
    here = [Use(*row, installed.team, "any") for row in rows]
    elsewhere = [Use(*row, "kube-system", "any") for row in rows]
    at_large = [
        Use("", "nodes", "list", None, None),
        Use("authentication.k8s.io", "tokenreviews", "create", None, None),
    ]
    cluster_wide = chart_environment(installed.objects)["RFT_WATCH_NAMESPACES"] == ""
    assert await installed.allowed([*here, *at_large]) == [*here, *at_large]
    assert await installed.allowed(elsewhere) == (elsewhere if cluster_wide else [])


@pytest.mark.slow
async def test_account_is_granted_exactly_what_the_operator_uses(installed: Installed, tmp_path: Path) -> None:
    configuration = await installed.server.configuration()
    async with (
        recording(configuration) as recorder,
        KubeClient(configuration, Metrics()) as kube,
        client.ApiClient(configuration) as api,
        kubelets(client.CoreV1Api(api), kube, namespace=installed.team, nodes=4) as kubelet,
    ):
        async with operator(installed, recorder, tmp_path) as progress_port:
            await live_every_kind_of_life(kube, kubelet, installed.team)
            await report_with_a_bad_token(installed.team, progress_port)
        granted = list(grants(installed.objects))
        assert recorder.refused == set()
        assert [use for use in recorder.uses if not any(grant.covers(use) for grant in granted)] == []
        assert unused(granted, recorder.uses) == set()


def test_unused_grant_is_seen(installed: Installed) -> None:
    """The oracle itself: of all rights but one used, the one is named."""
    every = list(grants(installed.objects))
    uses = [Use(g.group, g.resource, g.verb, None if g.scope == EVERYWHERE else g.scope, g.name) for g in every]
    extra = next(grant for grant in every if grant.verb == "delete")
    rest = [use for use in uses if (use.resource, use.verb) != (extra.resource, extra.verb)]
    assert {(grant.resource, grant.verb) for grant in unused(every, rest)} == {(extra.resource, extra.verb)}


# -- the operator ---------------------------------------------------------------------------------------------


@asynccontextmanager
async def operator(installed: Installed, recorder: Recorder, folder: Path) -> AsyncIterator[int]:
    """Run the operator under the chart's account and settings; give the port of its progress server."""
    token = installed.server.kubectl("create", "token", RELEASE, "-n", NAMESPACE).stdout.strip()
    kubeconfig = folder / "operator.kubeconfig"
    kubeconfig.write_text(json.dumps(kubeconfig_of(f"http://127.0.0.1:{recorder.port}", token)), encoding="utf-8")
    prices = the(installed.objects, "ConfigMap")["data"]["prices.yaml"]
    (folder / "prices.yaml").write_text(prices, encoding="utf-8")
    progress = free_port()
    environment = {
        **chart_environment(installed.objects),
        "KUBECONFIG": str(kubeconfig),
        "RFT_PRICES_FILE": str(folder / "prices.yaml"),
        "RFT_PROGRESS_URL": f"https://localhost:{progress}",
        "RFT_PROGRESS_PORT": str(progress),
        "RFT_RESTART_BACKOFF_SECONDS": "0",
        "RFT_SWEEP_SECONDS": "5",
    }
    async with OperatorProcess(environment=environment, log=folder / "operator.log") as process:
        try:
            await process.leading()
            yield progress
            await process.stop()
        finally:
            sys.stdout.write(process.words()[-20_000:])


def kubeconfig_of(server: str, token: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "proxy", "cluster": {"server": server}}],
        "users": [{"name": "account", "user": {"token": token}}],
        "contexts": [{"name": "here", "context": {"cluster": "proxy", "user": "account"}}],
        "current-context": "here",
    }


def chart_environment(objects: list[Manifest]) -> dict[str, str]:
    container = the(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    given = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    return {**given, "RFT_NAMESPACE": NAMESPACE}


async def report_with_a_bad_token(team: str, port: int) -> None:
    headers = {"Authorization": "Bearer nobody"}
    url = f"https://localhost:{port}{status_path(team, 'ended')}"
    async with aiohttp.ClientSession() as session, session.post(url, headers=headers, json={}, ssl=False) as answer:
        assert answer.status == 403
