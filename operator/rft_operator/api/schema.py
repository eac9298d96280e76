"""pydantic models to a structural OpenAPI schema, as the API server wants it.

Invariant: the result has no ``$ref``, no ``title`` and no ``null``; each field has a description, and each string, list
and map a bound (the cost of CEL rules is estimated from the bounds). A pattern of the spec becomes a rule with words.
What stands in status is one value to its single writer: managed fields list it as a whole, not field by field.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from rft_operator.api.cel import INT_OR_TEXT, Path, Rule, keys_rule, pattern_rule
from rft_operator.api.texts import INT_OR_TEXT as INT_OR_TEXT_MARK
from rft_operator.api.texts import REMEDY

Schema = dict[str, Any]

DROPPED = ("title", "discriminator")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rulebook:
    """What the models of a resource cannot say themselves, by path."""

    rules: Mapping[Path, Sequence[Rule]] = dataclasses.field(default_factory=dict)
    list_keys: Mapping[Path, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    """Lists whose items have an identity (x-kubernetes-list-type: map)."""
    list_sets: frozenset[Path] = frozenset()


def structural(model: type[BaseModel], root: str, book: Rulebook | None = None) -> Schema:
    """Return the structural schema of a model that stands at ``root`` (``spec`` or ``status``)."""
    raw = model.model_json_schema(by_alias=True)
    schema = _inline(raw, raw.get("$defs", {}))
    _fill_defaults(schema, model)
    return _finish(schema, (root,), book or Rulebook())


def _inline(node: Any, definitions: Schema) -> Any:
    """Replace references by what they refer to; what stands beside a reference wins."""
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: value for key, value in node.items() if key != "$defs"}
    reference = node.pop("$ref", None)
    if reference is not None:
        target = copy.deepcopy(definitions[reference.rsplit("/", 1)[1]])
        return _inline({**target, **node}, definitions)
    return {key: _inline(value, definitions) for key, value in node.items()}


def _fill_defaults(schema: Schema, model: type[BaseModel]) -> None:
    """Write the defaults that pydantic makes by a factory: the API server only sees what is in the schema."""
    for name, field in model.model_fields.items():
        prop = schema["properties"][field.alias or name]
        if field.default_factory is not None:
            value = field.get_default(call_default_factory=True, validated_data={})
            if isinstance(value, BaseModel):
                prop["default"] = {}
                _fill_defaults(prop, type(value))
            elif value and isinstance(value, list):
                prop["default"] = value
            continue
        nested = _model_of(field.annotation)
        if nested is not None and "properties" in _object_of(prop):
            _fill_defaults(_object_of(prop), nested)


def _model_of(annotation: Any) -> type[BaseModel] | None:
    """Return the model in ``Model``, ``Model | None`` or ``list[Model]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_of(part) for part in getattr(annotation, "__args__", ()))
    return next((each for each in found if each is not None), None)


def _object_of(prop: Schema) -> Schema:
    """Return the object's schema inside an optional or a list."""
    if "anyOf" in prop:
        return _object_of(next(each for each in prop["anyOf"] if each.get("type") != "null"))
    items: Schema = prop.get("items", prop)
    return items if items is prop else _object_of(items)


def _finish(node: Schema, path: Path, book: Rulebook) -> Schema:
    node = _without_null(node)
    for key in DROPPED:
        node.pop(key, None)
    if node.get("additionalProperties") in (False, True):
        del node["additionalProperties"]
    if node.get("default", ...) is None:
        del node["default"]
    if "const" in node:
        node["enum"] = [node.pop("const")]
    rules = [*_rules_of_texts(node, path), *book.rules.get(path, ())]
    if rules:
        node["x-kubernetes-validations"] = [rule.to_wire() for rule in rules]
    if "properties" in node:
        if path[0] == "status" and len(path) > 1:
            # Half of each object would be managed fields, and a status write cost the API server a seventh more.
            node["x-kubernetes-map-type"] = "atomic"
        node["properties"] = {name: _finish(child, (*path, name), book) for name, child in node["properties"].items()}
    if "items" in node:
        node["items"] = _finish(node["items"], (*path, "[]"), book)
        _list_type(node, path, book)
    if isinstance(node.get("additionalProperties"), dict):
        node["additionalProperties"] = _finish(node["additionalProperties"], (*path, "*"), book)
    return node


def _rules_of_texts(node: Schema, path: Path) -> list[Rule]:
    """Take the patterns out of a schema and return them as rules that speak to a user."""
    found = []
    kind = node.pop(INT_OR_TEXT_MARK, None)
    if kind is not None:
        node["maxLength"], rule = INT_OR_TEXT[kind]
        found.append(rule)
    keys = node.pop("propertyNames", {})
    if REMEDY in keys:
        # pydantic writes the pattern of the keys as a patternProperties, which no structural schema has.
        ((pattern, node["additionalProperties"]),) = node.pop("patternProperties").items()
        found.append(keys_rule(pattern, keys[REMEDY]))
    remedy = node.pop(REMEDY, None)
    if remedy is not None:
        found.append(pattern_rule(node.pop("pattern"), remedy))
    elif path[0] == "spec" and "pattern" in node:
        msg = f"{'.'.join(path)}: the pattern {node['pattern']} has no words for a user"
        raise ValueError(msg)
    return found


def _without_null(node: Schema) -> Schema:
    """Collapse ``anyOf: [X, null]`` to X; an optional field is one that is not required."""
    node = dict(node)
    if "anyOf" not in node:
        return node
    options = [each for each in node.pop("anyOf") if each.get("type") != "null"]
    if len(options) != 1:
        msg = f"a union of {len(options)} types has no structural schema: {options}"
        raise ValueError(msg)
    return _without_null({**options[0], **node})


def _list_type(node: Schema, path: Path, book: Rulebook) -> None:
    if path in book.list_keys:
        node["x-kubernetes-list-type"] = "map"
        node["x-kubernetes-list-map-keys"] = list(book.list_keys[path])
    elif path in book.list_sets:
        node["x-kubernetes-list-type"] = "set"
    else:
        node["x-kubernetes-list-type"] = "atomic"
