"""The generated CRDs: up to date, bounded, described, and free of floats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest

from rft_operator.api.base import ApiModel
from rft_operator.api.crd import (
    RESOURCES,
    RUN,
    TEAM_BUDGET,
    CustomResource,
    custom_resource_definition,
    outputs,
    refusals,
)
from rft_operator.api.schema import Schema, structural
from rft_operator.api.spec import Spec
from rft_operator.api.status import Status
from rft_operator.api.texts import text

ROOT = Path(__file__).resolve().parents[3]
FILES = [f"rft.dev_{each.plural}.yaml" for each in RESOURCES]
both = pytest.mark.parametrize("resource", RESOURCES, ids=lambda each: each.plural)


def nodes(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Give every schema at and below ``path``."""
    yield path, schema
    for name, prop in schema.get("properties", {}).items():
        yield from nodes(prop, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "[*]")):
        if key in schema:
            yield from nodes(schema[key], path + mark)


def version(resource: CustomResource) -> Schema:
    found: Schema = custom_resource_definition(resource)["spec"]["versions"][0]
    return found


def top(resource: CustomResource) -> Schema:
    found: Schema = version(resource)["schema"]["openAPIV3Schema"]
    return found


def fields(resource: CustomResource) -> list[tuple[str, Schema]]:
    """Every schema of a resource with its path."""
    return [pair for part in ("spec", "status") for pair in nodes(top(resource)["properties"][part], part)]


def is_text(schema: Schema) -> bool:
    return schema.get("type") == "string" or "x-kubernetes-int-or-string" in schema


def unbounded(schema: Schema) -> bool:
    if is_text(schema):
        return not ({"maxLength", "enum"} & schema.keys()) and schema.get("format") != "date-time"
    if schema["type"] == "integer":
        return not {"minimum", "maximum"} <= schema.keys()
    if schema["type"] == "array":
        return "maxItems" not in schema
    return "additionalProperties" in schema and "maxProperties" not in schema


@pytest.mark.parametrize("path", outputs(ROOT), ids=lambda path: "-".join(path.parts[-2:]))
def test_generated_file_is_what_the_models_say_when_it_is_committed(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == outputs(ROOT)[path]


@pytest.mark.parametrize("file", FILES)
def test_crd_of_the_chart_is_the_crd_to_the_byte(file: str) -> None:
    chart = ROOT / "helm" / "rft-operator" / "files" / file
    assert chart.read_bytes() == (ROOT / "crds" / file).read_bytes()


def test_folder_of_crds_holds_those_of_the_models_alone() -> None:
    assert sorted(path.name for path in (ROOT / "crds").iterdir()) == sorted(FILES)


@both
def test_field_is_bounded_when_it_is_in_the_schema(resource: CustomResource) -> None:
    assert [path for path, schema in fields(resource) if unbounded(schema)] == []


@both
def test_field_is_described_when_it_is_in_the_schema(resource: CustomResource) -> None:
    found = [(path, schema) for path, schema in fields(resource) if not path.endswith(("[]", "[*]"))]
    assert len(found) > (200 if resource is RUN else 30)
    assert [path for path, schema in found if not schema.get("description", "").strip()] == []


@both
def test_no_field_is_a_float(resource: CustomResource) -> None:
    kinds = {schema.get("type") for _, schema in fields(resource)}
    assert kinds == {"array", "boolean", "integer", "object", "string", None}
    assert all("x-kubernetes-int-or-string" in schema for _, schema in fields(resource) if schema.get("type") is None)


@both
def test_schema_is_structural_when_it_is_generated(resource: CustomResource) -> None:
    forbidden = {"$ref", "$defs", "title", "nullable", "anyOf", "allOf", "oneOf", "const", "patternProperties"}
    assert [path for path, schema in fields(resource) if forbidden & schema.keys()] == []
    assert [path for path, schema in fields(resource) if any(key.startswith("x-rft") for key in schema)] == []


@both
def test_list_says_how_its_items_merge_when_it_is_in_the_schema(resource: CustomResource) -> None:
    lists = {path: schema for path, schema in fields(resource) if schema.get("type") == "array"}
    found = {kind: set[str]() for kind in ("atomic", "map", "set")}
    for path, schema in lists.items():
        found[schema["x-kubernetes-list-type"]].add(path)
    assert found["map"] == {".".join(path) for path in resource.book.list_keys}
    assert found["set"] == {".".join(path) for path in resource.book.list_sets}
    for path in found["map"]:
        items = lists[path]["items"]
        for key in lists[path]["x-kubernetes-list-map-keys"]:
            assert key in items["required"] or "default" in items["properties"][key], path


@both
def test_rule_is_in_the_schema_when_it_is_written(resource: CustomResource) -> None:
    """A rule at a path that does not exist would be dropped without a word."""
    found = list(refusals(top(resource)))
    for path, rules in resource.book.rules.items():
        for rule in rules:
            where = ".".join(path).replace(".[]", "[]") + rule.field
            assert (where.removeprefix("."), rule.message) in found
    assert len(found) > sum(len(rules) for rules in resource.book.rules.values())


@both
def test_text_of_the_spec_has_no_bare_pattern(resource: CustomResource) -> None:
    assert [path for path, schema in fields(resource) if path.startswith("spec") and "pattern" in schema] == []


def test_generator_refuses_a_pattern_when_it_has_no_words_for_a_user() -> None:
    class Part(ApiModel):
        name: Annotated[str, text(8, pattern="^a$")]
        """Name."""

    with pytest.raises(ValueError, match=r"spec\.name: the pattern \^a\$ has no words"):
        structural(Part, "spec")


def test_generator_refuses_a_union_of_types_when_no_structural_schema_has_it() -> None:
    class Part(ApiModel):
        either: Annotated[str, text(8)] | bool
        """Either."""

    with pytest.raises(ValueError, match="union of 2 types"):
        structural(Part, "spec")


def test_default_of_the_schema_is_the_default_of_the_model_when_a_field_has_one() -> None:
    defaults = {path: schema["default"] for path, schema in fields(RUN) if "default" in schema}
    defaults = {path: value for path, value in defaults.items() if path.startswith("spec")}
    assert defaults["spec.budget.warnAtPercent"] == [50, 80]
    assert defaults["spec.resources"] == {}
    training = {path.removeprefix("spec.training.") for path in defaults if path.startswith("spec.training.")}
    adapters = {"lora.rank", "lora.alpha", "lora.dropout"}
    assert training - adapters == {"seed", "deepspeed"}, "a recipe could not know what the user wrote"


def test_quantity_is_read_as_text_when_it_is_a_whole_number() -> None:
    spec = Spec.model_validate(
        {
            "model": {"uri": "init://tiny-qwen2"},
            "dataset": {"uri": "hf://a/b", "format": "s1"},
            "budget": {"limitUSD": 1},
            "resources": {"cpu": 8},
        }
    )
    assert spec.resources.cpu == "8"


def test_team_budget_has_a_window_and_thresholds_when_none_are_written() -> None:
    defaults = {path: schema["default"] for path, schema in fields(TEAM_BUDGET) if "default" in schema}
    assert {path: value for path, value in defaults.items() if path.startswith("spec")} == {
        "spec.currency": "USD",
        "spec.window": "none",
        "spec.warnAtPercent": [50, 80],
    }


@both
def test_column_points_at_a_field_when_it_is_printed(resource: CustomResource) -> None:
    paths = {f".{path}" for path, _ in fields(resource)} | {".metadata.creationTimestamp"}
    assert {column["jsonPath"] for column in version(resource)["additionalPrinterColumns"]} <= paths


def test_status_of_a_newer_operator_is_read_after_a_rollback() -> None:
    condition = {
        "type": "Accepted",
        "status": "True",
        "reason": "Accepted",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    status = Status.model_validate({"conditions": [condition, {**condition, "type": "Sparkling"}], "sparkles": 3})
    assert [each.type for each in status.conditions] == ["Accepted"]
