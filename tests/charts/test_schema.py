"""The chart's schema: a typing error or a wrong type is refused before anything is installed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from rft_operator.api.scheduling import Toleration
from rft_operator.api.team import TeamSpec, Window
from rft_operator.api.texts import LabelKey, LabelValue
from rft_operator.config import Config
from rft_operator.domain.prices import Entry, Match
from support.helm import CHART, Helm, container_of

PRICE = {"name": "a", "match": {"zone": "z"}, "usdPerHour": "1.50"}
BUDGET = {"name": "a", "namespace": "b", "limitUSD": 10}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown value": ({"replicas": 2}, "replicas"),
    "unknown nested value": ({"image": {"tags": "1"}}, "tags"),
    "misplaced value": ({"crds": {"install": True}}, "install"),
    "unknown operator setting": ({"operator": {"worker": 4}}, "worker"),
    "text for a number": ({"replicaCount": "2"}, "/replicaCount"),
    "no replicas": ({"replicaCount": 0}, "/replicaCount"),
    "text for a switch": ({"networkPolicy": {"enabled": "yes"}}, "/networkPolicy/enabled"),
    "text for a list": ({"watchNamespaces": "team-a"}, "/watchNamespaces"),
    "namespace twice": ({"watchNamespaces": ["team-a", "team-a"]}, "/watchNamespaces"),
    "no namespace name": ({"watchNamespaces": ["Team_A"]}, "/watchNamespaces/0"),
    "short digest": ({"image": {"digest": "sha256:abc"}}, "/image/digest"),
    "no repository": ({"image": {"repository": ""}}, "/image/repository"),
    "no trainer image": ({"trainer": {"image": ""}}, "/trainer/image"),
    "unknown pull policy": ({"trainer": {"pullPolicy": "Sometimes"}}, "/trainer/pullPolicy"),
    "pull secret as text": ({"imagePullSecrets": ["registry"]}, "/imagePullSecrets/0"),
    "unknown log format": ({"operator": {"logFormat": "xml"}}, "/operator/logFormat"),
    "too many workers": ({"operator": {"workers": 257}}, "/operator/workers"),
    "number as an environment value": ({"extraEnv": [{"name": "A", "value": 1}]}, "/extraEnv/0/value"),
    "number as a label": ({"podLabels": {"a": 1}}, "/podLabels/a"),
    "unknown resource list": ({"resources": {"request": {"cpu": 1}}}, "request"),
    "unknown toleration effect": ({"tolerations": [{"effect": "Never"}]}, "/tolerations/0/effect"),
    "no interval": ({"podMonitor": {"interval": "often"}}, "/podMonitor/interval"),
    "unknown default of the pool": ({"nodePool": {"selector": {}}}, "selector"),
    "toleration of no effect in the pool": (
        {"nodePool": {"tolerations": [{"effect": "Never"}]}},
        "/nodePool/tolerations/0/effect",
    ),
    "toleration in the pool that no run may have: a value that nothing is compared with": (
        {"nodePool": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}},
        "/nodePool/tolerations/0/value",
    ),
    "toleration in the pool that no run may have: no key": (
        {"nodePool": {"tolerations": [{"value": "b"}]}},
        "/nodePool/tolerations/0': missing property 'key'",
    ),
    "toleration in the pool that no run may have: a time for what is not ended": (
        {"nodePool": {"tolerations": [{"key": "a", "effect": "NoSchedule", "tolerationSeconds": 5}]}},
        "/nodePool/tolerations/0/effect",
    ),
    "label in the pool that no run may have": (
        {"nodePool": {"nodeSelector": {"pool": "a b"}}},
        "/nodePool/nodeSelector/pool",
    ),
    "class in the pool that no run may have": (
        {"nodePool": {"priorityClassName": "High_Up"}},
        "/nodePool/priorityClassName",
    ),
    "no timeout": ({"podMonitor": {"scrapeTimeout": "soon"}}, "/podMonitor/scrapeTimeout"),
    "unknown rule value": ({"prometheusRule": {"disable": []}}, "disable"),
    "runbooks at a path": ({"prometheusRule": {"runbookBaseUrl": "docs/runbooks"}}, "/prometheusRule/runbookBaseUrl"),
    "no name of an alert": ({"prometheusRule": {"disabled": ["nothing"]}}, "/prometheusRule/disabled/0"),
    "number as a label's value": ({"dashboards": {"labelValue": 1}}, "/dashboards/labelValue"),
    "budget without a limit": ({"teamBudgets": [{"name": "a", "namespace": "b"}]}, "limitUSD"),
    "budget of a float": ({"teamBudgets": [{**BUDGET, "limitUSD": 1.5}]}, "/teamBudgets/0/limitUSD"),
    "budget in another currency": ({"teamBudgets": [{**BUDGET, "currency": "EUR"}]}, "/teamBudgets/0/currency"),
    "budget of no window": ({"teamBudgets": [{**BUDGET, "window": "year"}]}, "/teamBudgets/0/window"),
    "unknown budget key": ({"teamBudgets": [{**BUDGET, "limit": 1}]}, "limit"),
    "too high a priority": ({"priorityClass": {"value": 2_000_000_000}}, "/priorityClass/value"),
    "mount at a relative path": (
        {"extraVolumeMounts": [{"name": "a", "mountPath": "etc"}]},
        "/extraVolumeMounts/0/mountPath",
    ),
    "disruption in words": ({"podDisruptionBudget": {"maxUnavailable": "one"}}, "/podDisruptionBudget/maxUnavailable"),
    "unknown price key": ({"prices": [{**PRICE, "usd": 1}]}, "usd"),
    "unknown match key": ({"prices": [{**PRICE, "match": {"instance": "p5"}}]}, "instance"),
    "price that fits every node": ({"prices": [{**PRICE, "match": {}}]}, "/prices/0/match"),
    "price in words": ({"prices": [{**PRICE, "usdPerHour": "$1.50"}]}, "/prices/0/usdPerHour"),
    "price as a float": ({"prices": [{**PRICE, "usdPerHour": 1.5}]}, "/prices/0/usdPerHour"),
    "negative price": ({"prices": [{**PRICE, "usdPerHour": -1}]}, "/prices/0/usdPerHour"),
    "shared by nobody": ({"prices": [{**PRICE, "basis": "gpu", "gpusPerNode": 8}]}, "/prices/0/basis"),
    "free by accident": ({"prices": [{**PRICE, "usdPerHour": "0.00"}]}, "free"),
    "free at a price": ({"prices": [{**PRICE, "free": True}]}, "/prices/0/free"),
    "price of a billion": ({"prices": [{**PRICE, "usdPerHour": 1_000_000_000}]}, "/prices/0/usdPerHour"),
    "budget of a billion": ({"teamBudgets": [{**BUDGET, "limitUSD": 1_000_000_000}]}, "/teamBudgets/0/limitUSD"),
    "day that no month has": ({"prices": [{**PRICE, "asOf": "2026-08-41"}]}, "/prices/0/asOf"),
    "price without a name": ({"prices": [{"match": {"zone": "z"}, "usdPerHour": 1}]}, "name"),
    "day in words": ({"prices": [{**PRICE, "asOf": "August 2026"}]}, "/prices/0/asOf"),
    "start without a time zone": ({"prices": [{**PRICE, "effectiveFrom": "2026-01-01T00:00:00"}]}, "effectiveFrom"),
}


@pytest.mark.parametrize(("values", "words"), BAD.values(), ids=BAD.keys())
def test_schema_refuses_and_names_the_value_when_it_is_wrong(helm: Helm, values: dict[str, Any], words: str) -> None:
    done = helm.template(more=values, check=False)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr
    assert words in done.stderr


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["RFT_LOG_LEVEL"], "extraEnv: the chart sets RFT_LOG_LEVEL itself; use the value operator.logLevel"),
        (["RFT_METRICS_PORT"], "extraEnv: RFT_METRICS_PORT is the chart's to settle"),
        (["HTTPS_PROXY", "HTTPS_PROXY"], "extraEnv: HTTPS_PROXY is there twice"),
    ],
    ids=["has a value", "the chart's own", "twice"],
)
def test_variable_is_refused_when_it_would_be_there_twice(helm: Helm, names: list[str], words: str) -> None:
    done = helm.template(more={"extraEnv": [{"name": name, "value": "x"} for name in names]}, check=False)
    assert done.returncode != 0
    assert words in done.stderr


def test_every_setting_of_the_operator_is_refused_among_the_users_variables(helm: Helm) -> None:
    settings = {f"RFT_{field.name.upper()}" for field in dataclasses.fields(Config)}
    assert {each["name"] for each in container_of(helm.objects())["env"]} < settings
    for name in settings:
        done = helm.template(more={"extraEnv": [{"name": name, "value": "x"}]}, check=False)
        assert "extraEnv: " in done.stderr
        assert name in done.stderr


def test_schema_knows_every_value_and_no_other() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = _schema()
    assert set(schema["properties"]) - {"global"} == set(values)
    for name, part in schema["properties"].items():
        if "properties" in part and name != "affinity":
            assert set(part["properties"]) == set(values[name]), name
            assert part["additionalProperties"] is False


def test_schema_knows_every_key_of_a_price_that_the_operator_knows() -> None:
    row = _schema()["properties"]["prices"]["items"]
    assert set(row["properties"]) == {field.alias for field in Entry.model_fields.values()}
    assert set(row["properties"]["match"]["properties"]) == {field.alias for field in Match.model_fields.values()}


def test_schema_bounds_the_pool_as_the_resource_bounds_its_runs() -> None:
    """Else the API server writes a default into a run and refuses the run for it."""
    definitions = _schema()["definitions"]
    assert definitions["labelKey"]["pattern"] == _pattern(LabelKey)
    assert definitions["labelValue"]["pattern"] == _pattern(LabelValue)
    assert set(definitions["toleration"]["properties"]) == {field.alias for field in Toleration.model_fields.values()}


def _pattern(of: Any) -> str:
    schema = TypeAdapter(of).json_schema()
    return str(schema["pattern"])


def test_schema_knows_every_key_of_a_team_budget_that_the_operator_knows() -> None:
    row = _schema()["properties"]["teamBudgets"]["items"]
    fields = {field.alias for field in TeamSpec.model_fields.values()}
    assert set(row["properties"]) == fields | {"name", "namespace"}
    assert set(row["properties"]["window"]["enum"]) == set(Window)


def _schema() -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    return schema
