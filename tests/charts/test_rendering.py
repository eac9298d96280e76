"""What the chart renders: every feature, and what must hold whatever the values are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.parse import urlsplit

import pytest
import yaml

from rft_operator.config import Config
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.runtime.app import Runtime
from rft_operator.runtime.probes import Probes
from support.helm import CHART, NAMESPACE, RELEASE, Helm, Manifest, container_of, kinds, pod_of, the

CI = CHART / "ci"
CLUSTER_SCOPED = {
    *("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "PriorityClass"),
    *("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"),
    *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
}
NEEDS_APIS = ("monitoring", "nodepool", "teambudgets")
"""Features of which lint, which knows no further APIs, says no."""
DEFAULT_KINDS = [
    *(["ClusterRole"] * 4),
    *("ClusterRoleBinding", "ConfigMap", "CustomResourceDefinition", "CustomResourceDefinition"),
    *("Deployment", "NetworkPolicy", "Role", "Role", "RoleBinding", "RoleBinding", "Service", "ServiceAccount"),
]
FIXED_BY_THE_IMAGE = {"metrics_port", "progress_port", "leader_election"}
"""Settings that the chart leaves at the operator's own defaults."""


def environment_of(objects: list[Manifest]) -> dict[str, str]:
    """Return the container's environment as the kubelet would make it."""
    fields = {"metadata.namespace": NAMESPACE, "metadata.name": "rft-operator-5d8f-x"}
    return {
        each["name"]: each["value"] if "value" in each else fields[each["valueFrom"]["fieldRef"]["fieldPath"]]
        for each in container_of(objects)["env"]
    }


@pytest.mark.grader
def test_lint_finds_nothing_with_default_values(helm: Helm) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", CHART).stdout


@pytest.mark.grader
@pytest.mark.parametrize("name", [path.name for path in sorted(CI.iterdir()) if not path.name.startswith(NEEDS_APIS)])
def test_lint_finds_nothing_with_the_values_of_each_feature(helm: Helm, name: str) -> None:
    values_file = CI / name
    assert "0 chart(s) failed" in helm.run("lint", "--strict", CHART, "--values", values_file).stdout


def test_chart_names_labels_and_places_every_object_with_the_values_of_each_feature(
    helm: Helm, values_file: Path
) -> None:
    for each in helm.everything(values_file):
        meta = each["metadata"]
        if meta["name"].endswith(("-extra", "-text")):
            continue  # what an admin adds is named and labelled by the admin
        assert len(meta["name"]) <= 63 or each["kind"] in CLUSTER_SCOPED
        assert (meta.get("namespace") is None) == (each["kind"] in CLUSTER_SCOPED), each["kind"]
        assert (
            meta["labels"].items()
            >= {
                "app.kubernetes.io/instance": RELEASE,
                "app.kubernetes.io/managed-by": "Helm",
                "app.kubernetes.io/part-of": "rft-operator",
                "helm.sh/chart": "rft-operator-0.1.0",
            }.items()
        )
        assert all(len(value) <= 63 for value in meta["labels"].values())


def test_selectors_find_the_pods_with_the_values_of_each_feature(helm: Helm, values_file: Path) -> None:
    objects = helm.objects(values_file)
    labels = pod_of(objects)["metadata"]["labels"].items()
    deployment, service = the(objects, "Deployment"), the(objects, "Service")
    assert labels >= deployment["spec"]["selector"]["matchLabels"].items()
    assert labels >= service["spec"]["selector"].items()
    assert set(service["spec"]["selector"]) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    for kind, field in (
        ("NetworkPolicy", "podSelector"),
        ("PodMonitor", "selector"),
        ("PodDisruptionBudget", "selector"),
    ):
        for each in objects:
            if each["kind"] == kind:
                assert labels >= each["spec"][field]["matchLabels"].items()


def test_chart_renders_one_operator_for_the_whole_cluster_by_default(helm: Helm) -> None:
    objects = helm.objects()
    assert kinds(objects) == sorted(DEFAULT_KINDS)
    assert environment_of(objects)["RFT_WATCH_NAMESPACES"] == ""
    assert container_of(objects)["image"] == "rft-operator:0.1.0"


def test_operator_reads_every_setting_from_the_chart(helm: Helm) -> None:
    environment = environment_of(helm.objects(CI / "namespaced-values.yaml"))
    config = Config.from_environment(environment)
    assert config == Config(
        trainer_image="rft-trainer:0.1.0",
        namespace=NAMESPACE,
        pod_name="rft-operator-5d8f-x",
        watch_namespaces=("team-a", "team-b"),
        progress_url="https://rft-operator.rft-system.svc:8443",
        progress_secret="rft-operator-progress",
        prices_file=Path("/etc/rft/prices/prices.yaml"),
        workers=16,
        lease_name="rft-operator",
        log_format="json",
        log_level="INFO",
        image_pull_policy="IfNotPresent",
    )
    fields = {field.name for field in dataclasses.fields(Config)}
    assert {name.removeprefix("RFT_").lower() for name in environment} == fields - FIXED_BY_THE_IMAGE


def test_ports_and_probes_are_those_of_the_operator(helm: Helm) -> None:
    objects = helm.objects()
    container = container_of(objects)
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    config = Config(trainer_image="any")
    assert ports == {"metrics": config.metrics_port, "progress": config.progress_port}
    service = {each["name"]: (each["port"], each["targetPort"]) for each in the(objects, "Service")["spec"]["ports"]}
    assert service == {name: (port, name) for name, port in ports.items()}
    application = Probes(cast("Runtime", SimpleNamespace())).application()
    served = {resource.canonical for resource in application.router.resources()}
    probes = [container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert [probe["path"] for probe in probes] == ["/readyz", "/livez", "/readyz"]
    assert {probe["path"] for probe in probes} <= served
    assert {probe["port"] for probe in probes} == {"metrics"}
    url = urlsplit(environment_of(objects)["RFT_PROGRESS_URL"])
    assert (url.hostname, url.port) == (
        f"{the(objects, 'Service')['metadata']['name']}.{NAMESPACE}.svc",
        ports["progress"],
    )


def test_pod_is_locked_down_by_default(helm: Helm) -> None:
    objects = helm.objects()
    spec, container = pod_of(objects)["spec"], container_of(objects)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert min(spec["securityContext"][key] for key in ("runAsUser", "runAsGroup", "fsGroup")) > 10_000
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]["limits"]) == set(container["resources"]["requests"])
    assert the(objects, "ServiceAccount")["automountServiceAccountToken"] is False


def test_operator_outlives_its_own_shutdown(helm: Helm) -> None:
    assert pod_of(helm.objects())["spec"]["terminationGracePeriodSeconds"] >= 45


def test_roles_replace_the_cluster_role_when_namespaces_are_named(helm: Helm) -> None:
    objects = helm.objects(CI / "namespaced-values.yaml")
    cluster = the(objects, "ClusterRole", f"{NAMESPACE}-{RELEASE}")
    assert {name for rule in cluster["rules"] for name in rule["resources"]} == {"nodes", "tokenreviews"}
    roles = {(each["metadata"]["namespace"], each["metadata"]["name"]) for each in objects if each["kind"] == "Role"}
    assert roles == {
        ("team-a", "rft-operator-runs"),
        ("team-b", "rft-operator-runs"),
        (NAMESPACE, RELEASE),
        ("kube-node-lease", f"{NAMESPACE}-{RELEASE}"),
    }
    for each in objects:
        if each["kind"].endswith("RoleBinding"):
            assert each["subjects"] == [{"kind": "ServiceAccount", "name": RELEASE, "namespace": NAMESPACE}]
    every = next(each["rules"] for each in helm.objects() if each["metadata"]["name"] == f"{NAMESPACE}-{RELEASE}")
    role = next(each for each in objects if each["metadata"].get("namespace") == "team-a" and each["kind"] == "Role")
    assert [rule for rule in every if rule not in cluster["rules"]] == role["rules"]


def test_disruption_budget_keeps_a_replica_when_there_are_two(helm: Helm) -> None:
    objects = helm.objects(CI / "replicas-values.yaml")
    assert the(objects, "Deployment")["spec"]["replicas"] == 2
    assert the(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    assert pod_of(objects)["spec"]["topologySpreadConstraints"][0]["maxSkew"] == 1


def test_digest_wins_over_the_tag(helm: Helm) -> None:
    image = container_of(helm.objects(CI / "digest-values.yaml", more={"image": {"tag": "1.2.3"}}))["image"]
    assert image == f"registry.example.com/rft-operator@sha256:{'0123456789abcdef' * 4}"


def test_pull_secrets_reach_the_pod(helm: Helm) -> None:
    assert pod_of(helm.objects(CI / "pullsecrets-values.yaml"))["spec"]["imagePullSecrets"] == [
        {"name": "registry-login"}
    ]


def test_operator_understands_every_price_of_the_chart(helm: Helm) -> None:
    data = the(helm.objects(CI / "prices-values.yaml"), "ConfigMap")["data"]
    catalogue, problems = PriceCatalogue.parse(data["prices.yaml"])
    assert problems == ()
    assert [entry.name for entry in catalogue.entries] == ["p5-on-demand", "research-pool", "lab"]
    assert catalogue.entries[0].as_of == "2026-08-01"
    assert (catalogue.entries[1].basis, catalogue.entries[1].gpus_per_node) == ("node", 4)


def test_empty_catalogue_is_one_that_the_operator_understands(helm: Helm) -> None:
    catalogue, problems = PriceCatalogue.parse(the(helm.objects(), "ConfigMap")["data"]["prices.yaml"])
    assert (catalogue.entries, problems) == ((), ())


def test_prices_are_refused_when_a_name_is_used_twice(helm: Helm) -> None:
    row = {"name": "twin", "match": {"zone": "a"}, "usdPerHour": 1}
    done = helm.template(more={"prices": [row, row]}, check=False)
    assert done.returncode != 0
    assert 'prices: the name "twin" is used twice' in done.stderr


def test_price_without_a_day_is_refused_when_prices_can_be_too_old(helm: Helm) -> None:
    rows = [{"name": name, "match": {"zone": name}, "usdPerHour": 1, "asOf": "2026-08-01"} for name in ("a", "b")]
    free = {"name": "lab", "match": {"zone": "lab"}, "usdPerHour": 0, "free": True}
    made = helm.objects(more={"prices": [*rows, free], "pricesMaxAgeDays": 90})
    catalogue, problems = PriceCatalogue.parse(the(made, "ConfigMap")["data"]["prices.yaml"])
    assert (len(catalogue.entries), catalogue.max_age_seconds, problems) == (3, 90 * 86_400, ())
    del rows[1]["asOf"]
    done = helm.template(more={"prices": rows, "pricesMaxAgeDays": 90}, check=False)
    assert done.returncode != 0
    assert 'prices: "b" has no asOf, and pricesMaxAgeDays asks how old it is' in done.stderr


def test_pods_stay_when_only_prices_change(helm: Helm) -> None:
    assert pod_of(helm.objects()) == pod_of(helm.objects(CI / "prices-values.yaml"))


def test_network_policy_is_left_out_when_it_is_off(helm: Helm) -> None:
    assert "NetworkPolicy" in kinds(helm.objects())
    assert "NetworkPolicy" not in kinds(helm.objects(CI / "openports-values.yaml"))


def test_own_labels_stay_when_users_give_the_same_ones(helm: Helm) -> None:
    objects = helm.objects(CI / "names-values.yaml")
    labels = pod_of(objects)["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "finetune"
    assert labels["app.kubernetes.io/instance"] == RELEASE
    assert labels["sidecar"] == "no"
    assert all(each["metadata"]["labels"]["team"] == "machine-learning" for each in objects)
    assert pod_of(objects)["metadata"]["annotations"] == {"example.com/note": "yes"}
    assert the(objects, "ServiceAccount")["metadata"]["name"] == "finetune-account"
    assert pod_of(objects)["spec"]["serviceAccountName"] == "finetune-account"
    secret, url = (environment_of(objects)[f"RFT_PROGRESS_{part}"] for part in ("SECRET", "URL"))
    assert len(secret) <= 63
    assert the(objects, "Service")["metadata"]["name"] in url


def test_nothing_of_the_account_is_made_when_the_admin_brings_it(helm: Helm) -> None:
    objects = helm.objects(CI / "own-account-values.yaml")
    assert kinds(objects) == ["ConfigMap", "Deployment", "NetworkPolicy", "Service"]
    assert pod_of(objects)["spec"]["serviceAccountName"] == "existing"


def test_missing_account_name_is_refused_when_none_is_made(helm: Helm) -> None:
    done = helm.template(more={"serviceAccount": {"create": False}}, check=False)
    assert done.returncode != 0
    assert "serviceAccount.name is needed" in done.stderr


def test_scheduling_and_settings_reach_the_pod(helm: Helm) -> None:
    objects = helm.objects(CI / "scheduling-values.yaml")
    spec = pod_of(objects)["spec"]
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert spec["tolerations"][0]["key"] == "dedicated"
    assert spec["priorityClassName"] == "system-cluster-critical"
    assert list(spec["affinity"]) == ["nodeAffinity"]
    assert not spec["securityContext"].keys() & {"runAsUser", "runAsGroup", "fsGroup"}
    environment = environment_of(objects)
    assert environment["HTTPS_PROXY"] == "http://proxy.example.com:3128"
    config = Config.from_environment(environment)
    assert (config.workers, config.log_level, config.log_format) == (4, "DEBUG", "text")
    definitions = [each for each in objects if each["kind"] == "CustomResourceDefinition"]
    assert len(definitions) == 2
    assert not [each for each in definitions if "helm.sh/resource-policy" in each["metadata"].get("annotations", {})]
    assert [each["metadata"]["name"] for each in objects if each["kind"] == "ClusterRole"] == [f"{NAMESPACE}-{RELEASE}"]


def test_admins_environment_reaches_the_operator_and_what_comes_before_and_after_it(helm: Helm) -> None:
    more = {"extraEnv": [{"name": "A", "value": "b"}], "extraEnvFrom": [{"secretRef": {"name": "proxy"}}]}
    first_install = yaml.safe_load_all(helm.template(CI / "teambudgets-values.yaml", more=more).stdout)
    found = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]["containers"][0]
        for each in first_install
        if each and each["kind"] in ("Deployment", "Job") and not each["metadata"]["name"].endswith("-test")
    }
    assert len(found) >= 3, "the operator, what waits for its kinds, and what lets go at an uninstall"
    for name, container in found.items():
        assert {"name": "A", "value": "b"} in container["env"], name
        assert container["envFrom"] == [{"secretRef": {"name": "proxy"}}], name
