"""What ``rft plan`` reads: a manifest, a price catalogue, a model's ``config.json``; and what it says of bad ones.

Invariant: every refusal names the field, its value and what to write instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from rft_operator.api import GROUP, KIND, VERSION
from rft_operator.api.cel import INT_OR_TEXT
from rft_operator.api.spec import Spec
from rft_operator.api.texts import INT_OR_TEXT as INT_OR_TEXT_MARK
from rft_operator.api.texts import REMEDY
from rft_operator.domain.architectures import MODEL_UNKNOWN, ModelShape, known_model, shape_of_config
from rft_operator.domain.documents import documents
from rft_operator.domain.estimate_data import DEFAULT_SPREAD, DataShape, known_data
from rft_operator.domain.facts import NodeFacts
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.rates import Rate, rate_of_node, rate_of_pool
from rft_operator.errors import InvalidResource

DATA_UNKNOWN = "DatasetUnknown"
MOST_PROBLEMS = 8
_UNION_PARTS = frozenset({"int", "str"})


def read_manifest(text: str) -> tuple[str, Spec]:
    """Return name and spec of the one ReasoningFinetune in a YAML text; raises InvalidResource."""
    try:
        there = documents(text)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that no calendar has
        raise InvalidResource("InvalidSpec", f"the file is no YAML: {error}") from error
    except RecursionError as error:
        raise InvalidResource("InvalidSpec", "the file is no resource: it is nested too deeply") from error
    found = [each for each in there if isinstance(each, dict) and each.get("kind") == KIND]
    if len(found) != 1:
        kinds = ", ".join(str(each.get("kind")) if isinstance(each, dict) else repr(each) for each in there[:4])
        msg = f"the file must hold one resource of kind {KIND}, but holds {len(found)} (kinds: {kinds or 'none'})"
        raise InvalidResource("InvalidSpec", msg)
    manifest = found[0]
    if manifest.get("apiVersion") != f"{GROUP}/{VERSION}":
        msg = f"apiVersion is {manifest.get('apiVersion')!r}; write {GROUP}/{VERSION}"
        raise InvalidResource("InvalidSpec", msg)
    metadata = manifest.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    try:
        return str(name or "finetune"), Spec.model_validate(manifest.get("spec") or {})
    except ValidationError as error:
        raise InvalidResource("InvalidSpec", "\n".join(_problems(error))) from error


def _problems(error: ValidationError) -> list[str]:
    """Return a line for each field that is wrong."""
    remedies = dict(_remedies(Spec.model_json_schema(by_alias=True)))
    lines: dict[str, str] = {}
    for each in error.errors(include_url=False):
        place = _place(each["loc"])
        words = remedies.get(str(each.get("ctx", {}).get("pattern"))) or remedies.get(place.rsplit(".", 1)[-1])
        if each["type"] == "missing":
            words = "is missing; add it"
        elif each["type"] == "extra_forbidden":
            words = "is no field of this resource; remove it, or see docs/reference/api.md for its right name"
        else:
            words = f"is {_short(each['input'])}: {words or each['msg'].removeprefix('Value error, ')}"
        lines.setdefault(place, f"{place} {words}")
    return [*lines.values()][:MOST_PROBLEMS]


def _remedies(node: Any) -> Iterator[tuple[str, str]]:
    """Yield each pattern of a schema, and each field that may be a number or text, with its words for a user."""
    if isinstance(node, dict):
        if REMEDY in node and isinstance(node.get("pattern"), str):
            yield node["pattern"], node[REMEDY]
        for name, field in node.get("properties", {}).items():
            kinds = [each.get(INT_OR_TEXT_MARK) for each in (field, *field.get("anyOf", ()))]
            yield from ((name, INT_OR_TEXT[kind][1].message) for kind in kinds if kind is not None)
        for child in node.values():
            yield from _remedies(child)
    elif isinstance(node, list):
        for child in node:
            yield from _remedies(child)


def _place(location: Sequence[int | str]) -> str:
    path = "spec"
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in _UNION_PARTS and "[" not in part and "(" not in part:
            path += f".{part}"
    return path


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_catalogue(path: Path | None) -> tuple[PriceCatalogue, tuple[str, ...]]:
    """Return the catalogue of a file with the problems of its entries; raises InvalidResource, PriceCatalogueError."""
    return (PriceCatalogue(), ()) if path is None else PriceCatalogue.parse(_text_of(path, option="--prices"))


def _text_of(path: Path, *, option: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidResource("Unreadable", f"{option} {path}: cannot be read: {error}") from error


def find_rate(spec: Spec, catalogue: PriceCatalogue, *, has_prices: bool, at: int) -> Rate:
    """Return the price of a GPU-hour; raises InvalidResource when nobody names one: no price, no plan."""
    price, selector, resource = spec.budget.usd_per_gpu_hour, spec.scheduling.node_selector, spec.resources.gpu_resource
    rate = rate_of_pool((), node_selector=selector, gpu_resource=resource, spec_price=price, catalogue=catalogue, at=at)
    if rate is None:
        # A price per node is shared by the GPUs of a node, as many as a pod asks for.
        node = NodeFacts(name="", labels=selector, gpus={resource: spec.resources.gpus_per_node}, ready=True)
        rate = rate_of_node(node, gpu_resource=resource, spec_price=None, catalogue=catalogue, at=at)
    if rate is None:
        reason = (
            f"no entry of the catalogue, or no unique one, fits spec.scheduling.nodeSelector {dict(selector)}"
            if has_prices
            else "no catalogue is given (--prices FILE)"
        )
        stale = catalogue.stale(at=at)
        if stale:
            reason += f" ({', '.join(stale[:4])}: older than the catalogue's maxAgeDays, renew its asOf)"
        msg = (
            f"PriceUnknown: spec.budget.usdPerGpuHour is not set, and {reason}. Set spec.budget.usdPerGpuHour, or give "
            "a catalogue with an entry for the labels of spec.scheduling.nodeSelector."
        )
        raise InvalidResource("PriceUnknown", msg)
    return rate


def find_model(spec: Spec, *, config: Path | None) -> ModelShape:
    """Return the shape of the base model; raises InvalidResource when it is not known."""
    uri = spec.model.uri
    if config is not None:
        return _of_config(config, option="--config")
    local = Path(uri.removeprefix("file://")) / "config.json"
    if uri.startswith("file://") and local.is_file():
        return _of_config(local, option="spec.model.uri")
    known = known_model(uri)
    if known is None:
        msg = (
            f"spec.model.uri is {uri!r}, a model that this version does not know. Give its config.json: --config FILE "
            "(for a hub model it is in the repository's list of files)."
        )
        raise InvalidResource(MODEL_UNKNOWN, msg)
    return known


def _of_config(path: Path, *, option: str) -> ModelShape:
    try:
        config = json.loads(_text_of(path, option=option))
    except ValueError as error:
        raise InvalidResource(MODEL_UNKNOWN, f"{option} {path}: is no JSON: {error}") from error
    if not isinstance(config, Mapping):
        raise InvalidResource(MODEL_UNKNOWN, f"{option} {path}: is no JSON object; give the model's config.json")
    return shape_of_config(config, name=str(config.get("_name_or_path") or path.absolute().parent.name))


def find_data(spec: Spec, *, rows: int | None, mean_tokens: int | None) -> DataShape:
    """Return the shape of the dataset, what is given by hand first; raises InvalidResource when it is not known."""
    uri, limit = spec.dataset.uri, spec.dataset.max_samples
    known = known_data(uri, max_samples=limit)
    count = rows if rows is not None else known.rows if known is not None else limit
    mean = mean_tokens if mean_tokens is not None else known.mean_tokens if known is not None else None
    missing = [
        remedy
        for value, remedy in ((count, "--rows N (or set spec.dataset.maxSamples)"), (mean, "--mean-tokens N"))
        if value is None
    ]
    if count is None or mean is None:
        msg = (
            f"spec.dataset.uri is {uri!r}, a dataset that this version does not know. Say how many rows it has and how "
            f"many tokens a row has on average, prompt included: {' and '.join(missing)}."
        )
        raise InvalidResource(DATA_UNKNOWN, msg)
    if limit is not None:
        count = min(count, limit)
    if known is not None and mean_tokens is None:
        source = known.source if rows is None else f"{known.source}; rows as given"
        return DataShape(
            rows=count,
            mean_tokens=mean,
            spread=known.spread,
            longest_tokens=known.longest_tokens,
            source=source,
        )
    return DataShape(rows=count, mean_tokens=mean, spread=DEFAULT_SPREAD, source="as given")
