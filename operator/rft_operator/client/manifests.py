"""What users hand in: YAML, mappings or typed models; and the manifests that they become.

Invariant: only what the user wrote is sent, so that defaults and recipes keep their effect and nobody owns fields that
he did not set; what the API server itself writes is left out, so that the output of ``get -o yaml`` can be applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml
from pydantic import ValidationError

from rft_operator.api import API_VERSION, BUDGET_KIND, KIND
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.spec import Spec
from rft_operator.domain.documents import documents
from rft_operator.domain.partial import read_partly
from rft_operator.errors import InvalidResource, Refused

Source: TypeAlias = str | Path | Mapping[str, Any] | Spec | ReasoningFinetune
"""YAML as text, a file, a manifest, a spec (which needs a name), or a run as it was read."""
OURS = (KIND, BUDGET_KIND)
SERVERS_METADATA = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink")
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def manifests(source: Source, *, namespace: str, name: str | None = None) -> list[dict[str, Any]]:
    """Return what a source holds, each in its namespace; raises Refused with what to write instead."""
    return [_clean(each, namespace=namespace) for each in _documents(source, name=name)]


def one_manifest(source: Source, *, namespace: str, name: str | None = None) -> dict[str, Any]:
    """Return the one run that a source holds; raises Refused."""
    found = manifests(source, namespace=namespace, name=name)
    if [each["kind"] for each in found] != [KIND]:
        kinds = ", ".join(each["kind"] for each in found)
        raise Refused(f"one {KIND} is expected, but there are: {kinds or 'none'}")
    return found[0]


def parsed(raw: Mapping[str, Any]) -> ReasoningFinetune:
    """Return a run as it was read; raises InvalidResource for one of another version's schema."""
    try:
        return ReasoningFinetune.parse(dict(raw))
    except ValidationError as error:
        raise InvalidResource("Unreadable", _misfit(raw, error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A run as far as this version can read it."""

    run: ReasoningFinetune
    trouble: str
    """What cannot be read; empty where all can."""
    bill_known: bool


def shown(raw: Mapping[str, Any]) -> Shown:
    """Return a run to look at: one of another version's schema does not hide the others, nor what is plain of it."""
    try:
        return Shown(run=ReasoningFinetune.parse(dict(raw)), trouble="", bill_known=True)
    except ValidationError:
        found = read_partly(raw)
        return Shown(run=found.resource, trouble=_misfit(raw, found.words), bill_known=found.ledger_known)


def _misfit(raw: Mapping[str, Any], what: object) -> str:
    meta = raw.get("metadata") or {}
    return f"{meta.get('namespace')}/{meta.get('name')} does not fit this version of rft: {what}"


def billed(raw: Mapping[str, Any]) -> ReasoningFinetune:
    """Return a run whose ledger can be read, whatever else cannot; raises InvalidResource."""
    found = shown(raw)
    if not found.bill_known:
        raise InvalidResource("Unreadable", f"{found.trouble}. Its bill cannot be read: use the version that wrote it")
    return found.run


def _documents(source: Source, *, name: str | None) -> list[dict[str, Any]]:
    if isinstance(source, Spec):
        if name is None:
            raise Refused("a spec has no name of its own; give name=")
        return [_of_spec(source, {"name": name})]
    if isinstance(source, ReasoningFinetune):
        meta = source.metadata
        labels = {"labels": dict(meta.labels)} if meta.labels else {}
        return [_of_spec(source.spec, {"name": name or meta.name, "namespace": meta.namespace, **labels})]
    if isinstance(source, Mapping):
        return _flat([dict(source)])
    text = _read(source) if isinstance(source, Path) else source
    try:
        return _flat(documents(text))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Refused(f"the file is no YAML: {error}") from error


def _of_spec(spec: Spec, metadata: dict[str, Any]) -> dict[str, Any]:
    wire = spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True)
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": wire}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(f"{path} cannot be read: {error}") from error


def _flat(documents: list[Any]) -> list[dict[str, Any]]:
    """Take lists apart and refuse what is none of ours."""
    found: list[dict[str, Any]] = []
    for each in documents:
        if not isinstance(each, dict):
            raise Refused(f"a document of the file is {type(each).__name__}, not a resource; see examples/")
        if each.get("kind") == "List" or str(each.get("kind")) in {f"{kind}List" for kind in OURS}:
            found += _flat(list(each.get("items") or ()))
        else:
            found.append(each)
    if not found:
        raise Refused(f"there is no resource in the file; it needs one of kind {KIND}")
    return found


def _clean(raw: dict[str, Any], *, namespace: str) -> dict[str, Any]:
    kind, meta = raw.get("kind"), raw.get("metadata")
    if kind not in OURS:
        raise Refused(f"kind is {kind!r}; rft applies {' and '.join(OURS)}, kubectl apply takes the rest")
    if raw.get("apiVersion") != API_VERSION:
        raise Refused(f"apiVersion is {raw.get('apiVersion')!r}; write {API_VERSION}")
    if not isinstance(meta, Mapping) or not isinstance(meta.get("name"), str) or not meta["name"]:
        raise Refused("metadata.name is missing; give the resource a name")
    kept = {key: value for key, value in meta.items() if key not in SERVERS_METADATA}
    notes = {key: value for key, value in (meta.get("annotations") or {}).items() if key != LAST_APPLIED}
    kept.pop("annotations", None)
    head = {"apiVersion": API_VERSION, "kind": kind}
    metadata = {**kept, "namespace": kept.get("namespace") or namespace, **({"annotations": notes} if notes else {})}
    return {**head, "metadata": metadata, "spec": raw.get("spec") or {}}
