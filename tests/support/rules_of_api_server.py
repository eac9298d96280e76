"""The API server's rules that :mod:`support.fake_kube` keeps, as functions of objects."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from rft_operator.api import BUDGET_KIND, KIND
from rft_operator.api.crd import RESOURCES, custom_resource_definition
from rft_operator.api.schema import Schema
from rft_operator.errors import Conflict, NotFound, Rejected
from support.json_copy import copied

Object = dict[str, Any]

WITH_STATUS = frozenset({KIND, BUDGET_KIND, "Job", "Pod", "PersistentVolumeClaim", "Node"})
"""Kinds whose status is a subresource: no other write reaches it."""
WITH_GENERATION = frozenset({KIND, BUDGET_KIND, "Job"})
IMMUTABLE = {"Job": ("completions", "completionMode", "template")}
"""Fields of the spec that never change."""
DEFAULT_GRACE_SECONDS = 30
DATE_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})")


def check_version(obj: Mapping[str, Any], version: str) -> None:
    """Refuse a write that rests on another version."""
    if version and obj["metadata"]["resourceVersion"] != version:
        raise Conflict("the object has been modified", status=409)


def check_finalizers(obj: Mapping[str, Any], finalizers: Sequence[str]) -> None:
    """Refuse a new finalizer on an object that is being deleted."""
    meta = obj["metadata"]
    if meta.get("deletionTimestamp") and set(finalizers) - set(meta.get("finalizers") or ()):
        raise Rejected("no new finalizers can be added if the object is being deleted", status=422)


def check_uid(obj: Mapping[str, Any], uid: str) -> None:
    """Refuse a write to another object of this name."""
    if obj["metadata"]["uid"] != uid:
        raise NotFound("metadata.uid: field is immutable", status=404)


def check_deadline(pod: Mapping[str, Any], uid: str, seconds: int) -> None:
    """Refuse the deadline of another pod, and one that is raised: it can only be set or lowered."""
    check_uid(pod, uid)
    old = pod["spec"].get("activeDeadlineSeconds")
    if old is not None and seconds > old:
        raise Rejected(f"spec.activeDeadlineSeconds: must be less than or equal to previous value {old}", status=422)


def check_immutable(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse a change of what never changes."""
    if old.get("immutable") and new.get("data") != old.get("data"):
        raise Rejected("data: field is immutable when `immutable` is set", status=422)
    for field in IMMUTABLE.get(old["kind"], ()):
        if new["spec"].get(field) != old["spec"].get(field):
            raise Rejected(f"spec.{field}: field is immutable", status=422)


@cache
def _schema(kind: str) -> Schema:
    resource = next(each for each in RESOURCES if each.kind == kind)
    root: Schema = custom_resource_definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return root


def check_schema(obj: Mapping[str, Any]) -> None:
    """Refuse spec and status with a field that the CRD does not know, or a value beyond its bounds."""
    for part in ("spec", "status"):
        if part in obj:
            _check_known(obj[part], _schema(obj["kind"])["properties"][part], part)


def _check_known(value: Any, schema: Schema, where: str) -> None:
    if isinstance(value, list):
        for item in value:
            _check_known(item, schema["items"], f"{where}[]")
        if len(value) > schema.get("maxItems", len(value)):
            raise Rejected(f".{where}: must have at most {schema['maxItems']} items", status=422)
    elif isinstance(value, str):
        _check_text(value, schema, where)
    elif isinstance(value, int) and not isinstance(value, bool):
        if not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            raise Rejected(f".{where}: {value} is beyond its bounds", status=422)
    elif isinstance(value, dict) and "properties" in schema:
        for key, inner in value.items():
            if key not in schema["properties"]:
                raise Rejected(f".{where}.{key}: field not declared in schema", status=500)
            _check_known(inner, schema["properties"][key], f"{where}.{key}")


def _check_text(value: str, schema: Schema, where: str) -> None:
    if len(value) > schema.get("maxLength", len(value)):
        raise Rejected(f".{where}: may not be more than {schema['maxLength']} bytes", status=422)
    if "pattern" in schema and re.search(schema["pattern"], value) is None:
        raise Rejected(f".{where}: {value!r} should match {schema['pattern']!r}", status=422)
    if "enum" in schema and value not in schema["enum"]:
        raise Rejected(f".{where}: Unsupported value: {value!r}", status=422)
    if schema.get("format") == "date-time" and DATE_TIME.fullmatch(value) is None:
        raise Rejected(f".{where}: {value!r} must be of type date-time", status=422)


def without_status(manifest: Mapping[str, Any]) -> Object:
    """Return what a write to the object itself takes of a manifest."""
    taken = copied(dict(manifest))
    if taken["kind"] in WITH_STATUS:
        taken.pop("status", None)
    return taken


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> Object:
    """Return ``old`` with every field of ``new``; maps are merged, lists replaced."""
    out = dict(old)
    for key, value in new.items():
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def dropped(old: Mapping[str, Any], last: Mapping[str, Any], new: Mapping[str, Any]) -> Object:
    """Return ``old`` without the fields that were applied last time and are not any more."""
    out = dict(old)
    for key, value in last.items():
        if key not in out:
            continue
        if isinstance(value, dict) and isinstance(out[key], dict):
            rest = dropped(out[key], value, new.get(key) or {})
            if rest or key in new:
                out[key] = rest
            else:
                del out[key]
        elif key not in new:
            del out[key]
    return out


def same(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Return whether a write changes nothing; an empty map or list of metadata is as good as none."""

    def plain(obj: Mapping[str, Any]) -> Object:
        meta = {key: value for key, value in obj["metadata"].items() if value and key != "resourceVersion"}
        return {**obj, "metadata": meta}

    return plain(old) == plain(new)


def set_generation(old: Mapping[str, Any] | None, new: Object) -> None:
    """Count the versions of the spec."""
    if new["kind"] not in WITH_GENERATION:
        return
    if old is None:
        new["metadata"].setdefault("generation", 1)
    else:
        changed = old.get("spec") != new.get("spec")
        new["metadata"]["generation"] = old["metadata"]["generation"] + changed


def grace_seconds(obj: Mapping[str, Any]) -> int:
    """Return how far in the future a deletionTimestamp lies: a pod that runs on a node is given its grace."""
    ended = (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    if obj["kind"] != "Pod" or not obj["spec"].get("nodeName") or ended:
        return 0
    grace: int = obj["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
    return grace


def selects(selector: str, labels: Mapping[str, str]) -> bool:
    """Return whether a selector of one ``key=value`` fits."""
    key, equals, value = selector.partition("=")
    plain = equals and "," not in selector
    assert plain, f"the fake knows selectors of the form key=value, not {selector!r}"
    return labels.get(key) == value
