"""Helm installs, upgrades, rolls back and uninstalls the chart on a real API server; runs survive all of it."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.api_server import BUDGET_CRD, CRD, EVERY_CRD, ApiServer, forget_crds
from support.builders import resource
from support.helm import CHART, NAMESPACE, RELEASE, ROOT, Helm, older_chart
from support.polling import eventually

TEAM = "charts-team"
KINDS = "deployment,service,configmap,serviceaccount,networkpolicy,role,rolebinding,clusterrole,clusterrolebinding"
OURS = f"app.kubernetes.io/instance={RELEASE}"
RENDERED = ROOT / "helm" / "rendered" / "rft-operator-local.yaml"


@pytest.fixture(scope="module")
def team(bare_server: ApiServer) -> Iterator[str]:
    """A user's namespace."""
    bare_server.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TEAM}})
    try:
        yield TEAM
    finally:
        bare_server.kubectl("delete", "ns", TEAM, NAMESPACE, "--ignore-not-found", "--timeout=60s")


@pytest.fixture
def cluster(bare_server: ApiServer, team: str) -> Iterator[ApiServer]:
    """The API server, which holds nothing of ours after the test, also when that fails; its namespaces stay."""
    try:
        yield bare_server
    finally:
        if bare_server.kubectl("get", "crd", CRD, check=False).returncode == 0:
            bare_server.kubectl("delete", "rft", "--all", "-n", team, "--timeout=30s")
        bare_server.kubectl("delete", f"{KINDS},pdb", "-A", "-l", OURS, "--ignore-not-found")
        bare_server.kubectl("delete", "secrets", "-n", NAMESPACE, "-l", "owner=helm", "--ignore-not-found")
        forget_crds(bare_server, "-l", OURS)


@pytest.fixture
def helm(helm_program: Path, tmp_path: Path, cluster: ApiServer) -> Helm:
    """Helm on that API server."""
    return Helm(program=helm_program, home=tmp_path, kubeconfig=cluster.kubeconfig)


def read(cluster: ApiServer, *what: str) -> Any:
    return json.loads(cluster.kubectl("get", *what, "-o", "json").stdout)


def names(cluster: ApiServer) -> set[str]:
    """Return kind/name of everything the release made, wherever it is."""
    items = read(cluster, f"{KINDS},crd", "-A", "-l", OURS)["items"]
    return {f"{item['kind']}/{item['metadata']['name']}" for item in items}


def operator(cluster: ApiServer) -> Any:
    return read(cluster, "deployment", RELEASE, "-n", NAMESPACE)


def crd_columns(cluster: ApiServer) -> list[str]:
    columns = read(cluster, "crd", CRD)["spec"]["versions"][0]["additionalPrinterColumns"]
    return [column["name"] for column in columns]


def apply_run(cluster: ApiServer) -> str:
    """Apply a run; return its uid."""
    cluster.kubectl("wait", "--for=create", "--timeout=30s", f"crd/{CRD}")
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{CRD}")
    cluster.create(resource("kept", namespace=TEAM))
    return run_uid(cluster)


def run_uid(cluster: ApiServer) -> str:
    return str(read(cluster, "rft", "kept", "-n", TEAM)["metadata"]["uid"])


def test_install_makes_everything_and_says_what_comes_next(helm: Helm, cluster: ApiServer) -> None:
    done = helm.run("install", RELEASE, CHART, "--create-namespace")
    assert f"kubectl --namespace {NAMESPACE} rollout status deployment/{RELEASE}" in done.stdout
    assert "No prices are set" in done.stdout
    assert "the CRDs, the runs and the budgets stay" in done.stdout
    found = names(cluster)
    assert found == {
        *(f"{kind}/{RELEASE}" for kind in ("Deployment", "Service", "ServiceAccount", "NetworkPolicy")),
        *(f"{kind}/{RELEASE}" for kind in ("Role", "RoleBinding")),
        *(f"{kind}/{NAMESPACE}-{RELEASE}" for kind in ("Role", "RoleBinding")),  # reads the nodes' leases
        f"ConfigMap/{RELEASE}-prices",
        *(f"CustomResourceDefinition/{name}" for name in EVERY_CRD),
        *(f"{kind}/{NAMESPACE}-{RELEASE}" for kind in ("ClusterRole", "ClusterRoleBinding")),
        *(f"ClusterRole/{NAMESPACE}-{RELEASE}-{part}" for part in ("view", "edit", "budgets")),
    }
    apply_run(cluster)
    assert "kept" in cluster.kubectl("get", "rft", "-A").stdout


async def test_operator_pod_is_admitted_when_its_namespace_enforces_restricted(helm: Helm, cluster: ApiServer) -> None:
    helm.run("install", RELEASE, CHART, "--create-namespace", "--set", "replicaCount=0", "--skip-schema-validation")
    level = "pod-security.kubernetes.io/enforce"
    cluster.kubectl("label", "--overwrite", "ns", NAMESPACE, f"{level}=restricted")
    try:
        helm.run("upgrade", RELEASE, CHART, "--reset-values")

        async def admitted() -> list[Any]:
            return list(read(cluster, "pods", "-n", NAMESPACE, "-l", OURS)["items"])

        pods = await eventually(admitted, what="the operator's pod to be admitted", every_seconds=0.5)
        assert pods[0]["spec"]["securityContext"]["runAsUser"] == 65_532
        refused = cluster.kubectl("run", "root", "--image=none", "-n", NAMESPACE, "--dry-run=server", check=False)
        assert "violates PodSecurity" in refused.stderr
    finally:
        cluster.kubectl("label", "ns", NAMESPACE, f"{level}-")


def test_upgrade_leaves_the_pods_alone_when_only_prices_change(helm: Helm, cluster: ApiServer) -> None:
    helm.run("install", RELEASE, CHART, "--create-namespace")
    before = operator(cluster)["metadata"]["generation"]
    helm.run("upgrade", RELEASE, CHART, "--values", CHART / "ci" / "prices-values.yaml")
    data = read(cluster, "configmap", f"{RELEASE}-prices", "-n", NAMESPACE)["data"]
    assert "p5-on-demand" in data["prices.yaml"]
    assert operator(cluster)["metadata"]["generation"] == before


def test_rollback_brings_the_former_operator_back(helm: Helm, cluster: ApiServer) -> None:
    helm.run("install", RELEASE, CHART, "--create-namespace")
    helm.run("upgrade", RELEASE, CHART, "--set", "image.tag=9.9.9", "--set", "replicaCount=2")
    assert operator(cluster)["spec"]["template"]["spec"]["containers"][0]["image"] == "rft-operator:9.9.9"
    assert read(cluster, "pdb", "-n", NAMESPACE)["items"]
    helm.run("rollback", RELEASE, "1")
    assert operator(cluster)["spec"]["template"]["spec"]["containers"][0]["image"] == "rft-operator:0.1.0"
    assert operator(cluster)["spec"]["replicas"] == 1
    assert not read(cluster, "pdb", "-n", NAMESPACE)["items"]
    history = json.loads(helm.run("history", RELEASE, "-o", "json").stdout)
    assert [entry["status"] for entry in history] == ["superseded", "superseded", "deployed"]


def test_upgrade_and_rollback_change_the_crd_and_keep_the_runs(helm: Helm, cluster: ApiServer, tmp_path: Path) -> None:
    helm.run("install", RELEASE, older_chart(tmp_path), "--create-namespace")
    uid = apply_run(cluster)
    old = crd_columns(cluster)
    assert "Progress" not in old
    helm.run("upgrade", RELEASE, CHART)
    assert "Progress" in crd_columns(cluster)
    assert run_uid(cluster) == uid
    helm.run("rollback", RELEASE, "1")
    assert crd_columns(cluster) == old
    assert run_uid(cluster) == uid


def test_uninstall_leaves_the_crds_and_the_runs_and_nothing_else(helm: Helm, cluster: ApiServer) -> None:
    helm.run("install", RELEASE, CHART, "--create-namespace")
    uid = apply_run(cluster)
    helm.run("uninstall", RELEASE, "--wait", "--no-hooks")  # nothing can run here
    assert names(cluster) == {f"CustomResourceDefinition/{name}" for name in EVERY_CRD}
    assert run_uid(cluster) == uid


def test_install_takes_kept_runs_over_when_it_is_repeated(helm: Helm, cluster: ApiServer) -> None:
    helm.run("install", RELEASE, CHART, "--create-namespace")
    uid = apply_run(cluster)
    helm.run("uninstall", RELEASE, "--wait", "--no-hooks")  # nothing can run here
    helm.run("install", RELEASE, CHART)
    assert f"Deployment/{RELEASE}" in names(cluster)
    assert run_uid(cluster) == uid


def test_uninstall_removes_the_crds_when_the_admin_asks_for_it(helm: Helm, cluster: ApiServer) -> None:
    helm.run("install", RELEASE, CHART, "--create-namespace", "--set", "crds.keep=false")
    helm.run("uninstall", RELEASE, "--wait", "--no-hooks")  # nothing can run here
    assert names(cluster) == set()


async def test_new_run_gets_the_defaults_of_the_node_pool_and_keeps_its_own(helm: Helm, cluster: ApiServer) -> None:
    pool = {
        "nodeSelector": {"example.com/pool": "gpu"},
        "tolerations": [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        ],
        "priorityClassName": "finetunes",
        "queueName": "gpus",
    }
    file = helm.home / "pool.yaml"
    file.write_text(yaml.safe_dump({"nodePool": pool}), encoding="utf-8")
    helm.run("install", RELEASE, CHART, "--create-namespace", "--values", file)
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{CRD}")
    own = {"nodeSelector": {"disk": "fast"}, "queueName": "own"}

    async def defaulted() -> bool:
        """The API server takes a policy up a moment after it was made."""
        tried = resource("tried", namespace=TEAM)
        done = cluster.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", manifest=tried, check=False)
        if "There can be a delay" in done.stderr:  # the CRD, too, is taken up a moment later
            return False
        assert done.returncode == 0, done.stderr
        return "queueName" in json.loads(done.stdout)["spec"].get("scheduling", {})

    try:
        await eventually(defaulted, what="the policy to be taken up", every_seconds=0.5)
        for name, scheduling in {"bare": None, "own": own}.items():
            change = {} if scheduling is None else {"scheduling": scheduling}
            cluster.create(resource(name, namespace=TEAM, **change))
        bare, mine = (read(cluster, "rft", name, "-n", TEAM)["spec"]["scheduling"] for name in ("bare", "own"))
        assert {key: bare[key] for key in pool} == pool
        assert {key: mine[key] for key in pool} == {**pool, **own}
    finally:
        helm.run("uninstall", RELEASE, "--no-hooks", "--wait")
    assert "No resources" in cluster.kubectl("get", "mutatingadmissionpolicies", "-l", OURS).stderr


async def test_run_that_names_its_own_price_is_refused_when_only_the_catalogue_counts(
    helm: Helm, cluster: ApiServer
) -> None:
    helm.run("install", RELEASE, CHART, "--create-namespace")
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"crd/{CRD}")
    priced = {"budget": {"limitUSD": 10, "usdPerGpuHour": "2.95"}}
    cluster.create(resource("before", namespace=TEAM, **priced))
    helm.run("upgrade", RELEASE, CHART, "--set", "allowOwnPrices=false")

    async def refused() -> str:
        """The API server takes a policy up a moment after it was made."""
        tried = resource("tried", namespace=TEAM, **priced)
        return cluster.kubectl("create", "--dry-run=server", "-f", "-", manifest=tried, check=False).stderr

    words = await eventually(refused, what="the policy to be taken up", every_seconds=0.5)
    assert "spec.budget.usdPerGpuHour: this cluster takes prices from its catalogue alone" in words
    plain = resource("plain", namespace=TEAM)
    plain["spec"]["budget"] = {"limitUSD": 10}
    cluster.create(plain)

    def patch(name: str, **budget: object) -> tuple[int, str]:
        words = json.dumps({"spec": {"budget": budget}})
        done = cluster.kubectl("patch", "rft", name, "-n", TEAM, "--type=merge", "-p", words, check=False)
        return done.returncode, done.stderr

    assert patch("before", limitUSD=20) == (0, "")
    assert patch("before", usdPerGpuHour="0.01")[0] == 1
    assert patch("plain", usdPerGpuHour="0.01")[0] == 1
    helm.run("uninstall", RELEASE, "--no-hooks", "--wait")
    assert "No resources" in cluster.kubectl("get", "validatingadmissionpolicies", "-l", OURS).stderr


async def test_team_budgets_come_with_the_first_install_and_stay_when_they_are_taken_out_and_when_the_chart_goes(
    helm: Helm, cluster: ApiServer
) -> None:
    budget = {"name": "monthly", "namespace": TEAM, "limitUSD": 2_000, "window": "month"}
    file = helm.home / "budgets.yaml"
    file.write_text(yaml.safe_dump({"teamBudgets": [budget]}), encoding="utf-8")
    install = asyncio.create_task(
        asyncio.to_thread(helm.run, "install", RELEASE, CHART, "--create-namespace", "--values", file)
    )
    await run_hook(cluster, f"{RELEASE}-teambudgets")
    await install
    uid = read(cluster, BUDGET_CRD, "monthly", "-n", TEAM)["metadata"]["uid"]
    file.write_text(yaml.safe_dump({"teamBudgets": [{**budget, "limitUSD": 3_000}]}), encoding="utf-8")
    helm.run("upgrade", RELEASE, CHART, "--values", file)
    changed = read(cluster, BUDGET_CRD, "monthly", "-n", TEAM)
    assert (changed["metadata"]["uid"], changed["spec"]["limitUSD"]) == (uid, 3_000)
    helm.run("upgrade", RELEASE, CHART, "--reset-values")
    helm.run("uninstall", RELEASE, "--no-hooks", "--wait")
    assert read(cluster, BUDGET_CRD, "monthly", "-n", TEAM)["metadata"]["uid"] == uid


async def run_hook(cluster: ApiServer, job: str) -> None:
    """Do what the pod of a hook's Job does, as a node would; this cluster has none."""
    which = ("-n", NAMESPACE, "-l", f"batch.kubernetes.io/job-name={job}")

    async def made() -> list[Any]:
        return list(read(cluster, "pods", *which)["items"])

    (pod,) = await eventually(made, what="the hook's pod", seconds=60, every_seconds=0.5)
    command = pod["spec"]["containers"][0]["command"]
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *command[1:]],
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "FinetuneBudget is served" in done.stdout
    status = json.dumps({"status": {"phase": "Succeeded"}})
    name = pod["metadata"]["name"]
    cluster.kubectl("patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", status)


def test_install_fails_and_names_the_namespace_when_a_watched_one_is_missing(helm: Helm, cluster: ApiServer) -> None:
    values = ("--create-namespace", "--set", f"watchNamespaces={{{TEAM},nowhere}}")
    done = helm.run("install", RELEASE, CHART, *values, check=False)
    assert done.returncode != 0
    assert 'namespaces "nowhere" not found' in done.stderr


def test_committed_rendering_can_be_applied_to_a_fresh_cluster_and_again(cluster: ApiServer) -> None:
    wanted = sum(1 for each in yaml.safe_load_all(RENDERED.read_text(encoding="utf-8")) if each)
    for _ in range(2):
        done = cluster.kubectl("apply", "--server-side", "-f", RENDERED)
        assert done.stdout.count("serverside-applied") == wanted
    apply_run(cluster)
    assert operator(cluster)["spec"]["template"]["spec"]["containers"][0]["image"] == "rft.local/operator:dev"


async def test_view_edit_and_admin_of_a_namespace_reach_its_runs_and_budgets(helm: Helm, cluster: ApiServer) -> None:
    helm.run("install", RELEASE, CHART, "--create-namespace")
    users = {"reader": "view", "writer": "edit", "owner": "admin"}
    for user, role in users.items():
        cluster.kubectl("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "-n", TEAM)

    async def may(user: str, verb: str, kind: str = CRD) -> bool:
        asked = ("auth", "can-i", verb, kind, "-n", TEAM, f"--as={user}")
        return cluster.kubectl(*asked, check=False).stdout.strip() == "yes"

    # A controller of the cluster merges our rules into its roles.
    await eventually(lambda: may("writer", "delete"), what="the roles to be merged", every_seconds=0.5)
    await eventually(lambda: may("owner", "patch", BUDGET_CRD), what="the roles to be merged", every_seconds=0.5)
    assert [await may("reader", verb) for verb in ("get", "list", "watch", "create", "delete")] == [True] * 3 + [
        False
    ] * 2
    assert [await may("writer", verb) for verb in ("get", "create", "patch")] == [True] * 3
    assert [await may("writer", verb, BUDGET_CRD) for verb in ("get", "create", "patch")] == [True, False, False]
