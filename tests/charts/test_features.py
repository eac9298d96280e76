"""What the chart makes when a feature is switched on, and what it says when it cannot: monitoring, teams, extras."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rft_operator import smoke
from support.helm import APIS, CHART, HOOK, NAMESPACE, RELEASE, Helm, Manifest, container_of, kinds, pod_of, the

CI = CHART / "ci"


def test_pod_monitor_scrapes_the_metrics_port_and_lets_the_runs_own_labels_win(helm: Helm) -> None:
    monitor = the(helm.objects(CI / "monitoring-values.yaml"), "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["relabelings"][0]["targetLabel"] == "node"
    assert endpoint["metricRelabelings"][0]["action"] == "drop"
    assert {key: endpoint[key] for key in ("port", "interval", "scrapeTimeout", "honorLabels")} == {
        "port": "metrics",
        "interval": "15s",
        "scrapeTimeout": "10s",
        "honorLabels": True,
    }
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"podMonitor": {"enabled": True}}, "podMonitor.enabled needs the PodMonitor CRD"),
        ({"prometheusRule": {"enabled": True}}, "prometheusRule.enabled needs the PrometheusRule CRD"),
        (
            {"nodePool": {"queueName": "gpus"}},
            "without it leave nodePool empty and write spec.scheduling into each run",
        ),
        (
            {"teamBudgets": [{"name": "a", "namespace": "b", "limitUSD": 1}], "crds": {"enabled": False}},
            "apply the chart's files/rft.dev_finetunebudgets.yaml first, or set crds.enabled to true",
        ),
    ],
)
def test_feature_is_refused_with_a_remedy_when_the_cluster_does_not_know_its_kind(
    helm: Helm, values: Manifest, words: str
) -> None:
    done = helm.template(more=values, check=False)
    assert done.returncode != 0
    assert words in done.stderr


def test_rules_are_those_of_the_plain_file_but_for_what_the_values_say(helm: Helm) -> None:
    made = the(helm.objects(CI / "monitoring-values.yaml"), "PrometheusRule")
    *groups, added = made["spec"]["groups"]
    plain = yaml.safe_load((CHART / "files" / "rules.yaml").read_text(encoding="utf-8"))["groups"]
    for group in plain:
        group["rules"] = [rule for rule in group["rules"] if rule.get("alert") != "RftPriceOld"]
        for rule in group["rules"]:
            if "alert" in rule:
                rule["labels"]["team"] = "platform"
                page = f"{rule['alert']}.html"
                rule["annotations"]["runbook_url"] = f"https://docs.example.com/rft/{page}"
    assert groups == plain
    assert [rule["alert"] for rule in added["rules"]] == ["TooDear"]
    assert made["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize(
    ("operator", "ledger", "sweep", "steps"),
    [
        ({}, 120, 1_800, "10m"),
        ({"progressWriteSeconds": 300, "sweepSeconds": 3_600}, 600, 14_400, "10m"),
        ({"progressWriteSeconds": 3_600}, 7_200, 1_800, "3600s"),
    ],
    ids=["default", "seldom", "hourly"],
)
def test_alerts_are_as_patient_as_the_operator_is_told_to_be(
    helm: Helm, operator: Manifest, ledger: int, sweep: int, steps: str
) -> None:
    made = the(helm.objects(more={"prometheusRule": {"enabled": True}, "operator": operator}), "PrometheusRule")
    found = {rule.get("alert"): rule["expr"] for group in made["spec"]["groups"] for rule in group["rules"]}
    assert f" > {ledger} and on " in found["RftLedgerStale"]
    assert f" > {sweep} and on " in found["RftSweepOld"]
    assert f"reasoning_finetune_train_steps_total[{steps}]" in found["RftHeldWithoutStep"]


@pytest.mark.parametrize(("days", "told_after"), [(None, 30), (365, 30), (20, 16), (1, 0.8)])
def test_price_is_told_to_be_old_before_it_starts_nothing_any_more(
    helm: Helm, days: int | None, told_after: float
) -> None:
    made = the(helm.objects(more={"prometheusRule": {"enabled": True}, "pricesMaxAgeDays": days}), "PrometheusRule")
    found = {rule.get("alert"): rule["expr"] for group in made["spec"]["groups"] for rule in group["rules"]}
    assert found["RftPriceOld"].endswith(f" > {int(told_after * 86_400)}")


def test_alert_that_is_not_there_cannot_be_switched_off(helm: Helm) -> None:
    values = {"prometheusRule": {"enabled": True, "disabled": ["RftNothing"]}}
    done = helm.template(more=values, apis=APIS, check=False)
    assert done.returncode != 0
    assert 'there is no alert "RftNothing"; the alerts are RftForecastOverLimit, ' in done.stderr


def dashboards_of(objects: list[Manifest]) -> list[Manifest]:
    return [each for each in objects if each["kind"] == "ConfigMap" and "-dashboard-" in each["metadata"]["name"]]


def test_dashboards_reach_grafana_unchanged_where_its_sidecar_looks(helm: Helm) -> None:
    made = dashboards_of(helm.objects(CI / "monitoring-values.yaml"))
    shipped = {path.name: path.read_text(encoding="utf-8") for path in (CHART / "files" / "dashboards").iterdir()}
    found = {name: text for each in made for name, text in each["data"].items()}
    assert found == {name: text.rstrip("\n") for name, text in shipped.items()}
    assert len(found) == 3
    for each in made:
        meta = each["metadata"]
        assert meta["labels"].items() >= {"grafana_dashboard": "1", "release": "grafana"}.items()
        assert (meta["namespace"], meta["annotations"]) == ("monitoring", {"grafana_folder": "Finetunes"})
    (other, *_) = dashboards_of(helm.objects(CI / "dashboards-values.yaml"))
    assert other["metadata"]["labels"]["dashboards.example.com/load"] == "yes"
    assert other["metadata"]["namespace"] == NAMESPACE
    assert dashboards_of(helm.objects()) == []


def test_defaults_of_the_node_pool_hold_for_the_watched_namespaces(helm: Helm) -> None:
    policy = the(helm.objects(CI / "nodepool-values.yaml"), "MutatingAdmissionPolicy")["spec"]
    (names,) = policy["matchConstraints"]["namespaceSelector"]["matchExpressions"]
    assert names["values"] == ["team-a"]
    everywhere = the(helm.objects(more={"nodePool": {"queueName": "gpus"}}), "MutatingAdmissionPolicy")["spec"]
    assert "namespaceSelector" not in everywhere["matchConstraints"]
    assert "/spec/scheduling/queueName" in everywhere["mutations"][0]["jsonPatch"]["expression"]
    assert "tolerations" not in everywhere["mutations"][0]["jsonPatch"]["expression"]
    older = helm.template(
        more={"nodePool": {"queueName": "gpus"}}, apis=["admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy"]
    )
    assert "apiVersion: admissionregistration.k8s.io/v1beta1" in older.stdout


def test_team_budgets_are_made_in_their_namespaces_and_stay(helm: Helm) -> None:
    made = [each for each in helm.objects(CI / "teambudgets-values.yaml") if each["kind"] == "FinetuneBudget"]
    assert [(each["metadata"]["namespace"], each["metadata"]["name"]) for each in made] == [
        ("team-a", "monthly"),
        ("team-a", "interns"),
    ]
    assert made[0]["spec"] == {"limitUSD": 2_000, "window": "month", "warnAtPercent": [50, 80]}
    assert made[1]["spec"] == {
        "limitUSD": "150.50",
        "selector": {"matchLabels": {"example.com/owner": "intern"}},
    }
    assert all(each["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"} for each in made)


def test_team_budgets_of_millions_stay_whole_numbers(helm: Helm) -> None:
    budget = {"name": "a", "namespace": "b", "limitUSD": 250_000_000}
    made = the(helm.objects(more={"teamBudgets": [budget]}), "FinetuneBudget")
    assert made["spec"] == {"limitUSD": 250_000_000}
    assert isinstance(made["spec"]["limitUSD"], int)


def test_team_budgets_of_a_first_install_come_after_all_else_and_once_their_kind_is_served(helm: Helm) -> None:
    budget = {"name": "a", "namespace": "b", "limitUSD": 1}
    text = helm.template(more={"teamBudgets": [budget]}).stdout
    made = [each for each in yaml.safe_load_all(text) if each]
    hooks = {
        each["kind"]: each for each in made if "post-install" in each["metadata"].get("annotations", {}).get(HOOK, "")
    }
    assert set(hooks) == {"NetworkPolicy", "Job", "FinetuneBudget"}
    weights = [int(hooks[kind]["metadata"]["annotations"].get("helm.sh/hook-weight", 0)) for kind in hooks]
    assert weights == sorted(weights)
    assert hooks["FinetuneBudget"]["metadata"]["annotations"] == {
        "helm.sh/resource-policy": "keep",
        "helm.sh/hook": "post-install,post-upgrade",
        "helm.sh/hook-delete-policy": "hook-failed",
        "meta.helm.sh/release-name": RELEASE,
        "meta.helm.sh/release-namespace": NAMESPACE,
    }
    assert hooks["Job"]["spec"]["template"]["spec"]["containers"][0]["command"][-1] == "FinetuneBudget"


def test_team_budget_is_refused_when_it_is_there_twice(helm: Helm) -> None:
    budget = {"name": "a", "namespace": "b", "limitUSD": 1}
    done = helm.template(more={"teamBudgets": [budget, budget]}, apis=APIS, check=False)
    assert done.returncode != 0
    assert 'teamBudgets: the budget "b/a" is there twice' in done.stderr


def test_team_budget_is_refused_where_the_operator_does_not_watch(helm: Helm) -> None:
    budget = {"name": "a", "namespace": "team-b", "limitUSD": 1}
    for apis in ((), APIS):
        values = {"teamBudgets": [budget], "watchNamespaces": ["team-a", "team-c"]}
        done = helm.template(more=values, apis=apis, check=False)
        assert done.returncode != 0
        assert 'the budget "team-b/a" would bound nothing: the operator watches only team-a, team-c' in done.stderr
    watched = helm.objects(more={"teamBudgets": [budget], "watchNamespaces": ["team-a", "team-b"]})
    assert the(watched, "FinetuneBudget")["metadata"]["namespace"] == "team-b"


def test_name_of_a_priority_class_that_nobody_makes_is_refused(helm: Helm) -> None:
    done = helm.template(more={"priorityClass": {"name": "mine"}}, check=False)
    assert done.returncode != 0
    assert "name a class that exists with priorityClassName" in done.stderr


@pytest.mark.parametrize(
    ("keep", "drain", "words"),
    [
        (True, True, "`helm uninstall --timeout 30m` first suspends all running finetunes"),
        (True, False, "Before you uninstall, suspend running finetunes or let them end"),
        (False, True, "`helm uninstall` deletes all runs and budgets with the CRDs; their bills are closed first."),
        (False, False, "Before you uninstall, delete all runs (kubectl delete rft --all --all-namespaces)"),
    ],
)
def test_notes_say_what_an_uninstall_does(helm: Helm, keep: bool, drain: bool, words: str) -> None:
    values = f"crds.keep={json.dumps(keep)},uninstall.drain={json.dumps(drain)}"
    assert words in helm.run("install", RELEASE, CHART, "--dry-run=client", "--set", values).stdout


def test_extras_reach_the_pod_and_the_cluster(helm: Helm) -> None:
    objects = helm.objects(CI / "extras-values.yaml")
    spec, container = pod_of(objects)["spec"], container_of(objects)
    assert container["envFrom"] == [{"configMapRef": {"name": "proxy"}}]
    assert container["volumeMounts"][-1]["mountPath"] == "/etc/ssl/company"
    assert spec["volumes"][-1] == {"name": "authorities", "configMap": {"name": "authorities"}}
    assert [each["name"] for each in spec["containers"]] == ["operator", "proxy"]
    assert the(objects, "ConfigMap", f"{RELEASE}-extra")["metadata"]["namespace"] == NAMESPACE
    assert the(objects, "ConfigMap", f"{RELEASE}-text")["metadata"]["namespace"] == NAMESPACE


def test_operator_gets_the_priority_class_that_the_chart_makes(helm: Helm) -> None:
    objects = helm.objects(CI / "extras-values.yaml")
    made = the(objects, "PriorityClass")
    assert (made["value"], made["preemptionPolicy"]) == (500_000, "Never")
    assert pod_of(objects)["spec"]["priorityClassName"] == made["metadata"]["name"] == f"{NAMESPACE}-{RELEASE}"
    both = {"priorityClass": {"create": True}, "priorityClassName": "other"}
    done = helm.template(more=both, check=False)
    assert done.returncode != 0
    assert "set only one of them" in done.stderr


def test_disruption_budget_can_be_changed_and_left_out(helm: Helm) -> None:
    budget = the(helm.objects(CI / "extras-values.yaml"), "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 2
    off = {"replicaCount": 2, "podDisruptionBudget": {"enabled": False}}
    assert "PodDisruptionBudget" not in kinds(helm.objects(more=off))


def test_helm_test_asks_the_service_and_needs_no_right(helm: Helm, values_file: Path) -> None:
    hooks = [each for each in helm.hooks(values_file) if each["metadata"]["annotations"][HOOK] == "test"]
    pod, service = the(hooks, "Job")["spec"]["template"], the(helm.objects(values_file), "Service")
    spec = pod["spec"]
    (container,) = spec["containers"]
    host = f"{service['metadata']['name']}.{NAMESPACE}.svc"
    assert container["command"] == ["python", "-m", "rft_operator.smoke", host]
    assert container["image"] == container_of(helm.objects(values_file))["image"]
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    assert spec["securityContext"] == pod_of(helm.objects(values_file))["spec"]["securityContext"]
    selector = service["spec"]["selector"].items()
    assert not selector <= pod["metadata"]["labels"].items(), "the Service would send requests to the test"
    ports = {each["name"]: each["port"] for each in service["spec"]["ports"]}
    assert ports == {"metrics": smoke.METRICS_PORT, "progress": smoke.PROGRESS_PORT}
