"""Every bound of the schema, and a spec that is just beyond it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

from rft_operator.api.schema import Schema

Tokens = tuple[str, ...]
NOT_A_TEXT = "~ ~"
"""Matches none of the patterns."""


class Beyond(NamedTuple):
    """A value beyond a bound of the field at a path of the schema."""

    tokens: Tokens
    value: Any
    words: str
    """What the API server says of it."""


def beyond(schema: Schema, tokens: Tokens = ()) -> Iterator[Beyond]:
    """Give a value beyond each bound of a schema and of everything below it."""
    for value, words in [*_scalars(schema), *_collections(schema)]:
        yield Beyond(tokens, value, words)
    for name, prop in schema.get("properties", {}).items():
        yield from beyond(prop, (*tokens, name))
    if "items" in schema:
        yield from beyond(schema["items"], (*tokens, "[]"))
    if "additionalProperties" in schema:
        yield from beyond(schema["additionalProperties"], (*tokens, "*"))


def _scalars(schema: Schema) -> Iterator[tuple[Any, str]]:
    kind = schema.get("type")
    if kind == "integer":
        yield schema["minimum"] - 1, f"should be greater than or equal to {schema['minimum']}"
        yield schema["maximum"] + 1, f"should be less than or equal to {schema['maximum']}"
        yield "3", 'must be of type integer: "string"'
    elif kind == "boolean":
        yield "yes", 'must be of type boolean: "string"'
    elif "enum" in schema:
        yield NOT_A_TEXT, f'Unsupported value: "{NOT_A_TEXT}": supported values: "{schema["enum"][0]}"'
    elif "maxLength" in schema:
        yield "9" * (schema["maxLength"] + 1), f"may not be more than {schema['maxLength']} bytes"
        rules = schema.get("x-kubernetes-validations")
        if rules:
            yield NOT_A_TEXT, rules[0]["message"]


def _collections(schema: Schema) -> Iterator[tuple[Any, str]]:
    most, pairs = schema.get("maxItems"), schema.get("maxProperties")
    if most is not None:
        # Items that no rule of the list itself refuses: the answer must be about their number.
        yield [_item(schema["items"], index) for index in range(most + 1)], f"must have at most {most} items"
        yield "x", 'must be of type array: "string"'
    elif pairs is not None:
        yield {f"key-{index}": "x" for index in range(pairs + 1)}, f"must have at most {pairs} items"
    elif "properties" in schema:
        yield "x", 'must be of type object: "string"'


def _item(schema: Schema, index: int) -> Any:
    if "properties" not in schema:
        return index + 1
    return {"name": f"name-{index}"} if "name" in schema["properties"] else {}


def placed(spec: dict[str, Any], tokens: Tokens, value: Any) -> tuple[dict[str, Any], str] | None:
    """Return the spec with the value at the path, and the field as the API server names it; None if it has no such
    field. In a list the first item that has the rest of the path is changed."""
    if not tokens:
        return value, ""
    head, rest = tokens[0], tokens[1:]
    keys: list[Any] = list(range(len(spec))) if head == "[]" else list(spec)[:1] if head == "*" else [head]
    for key in keys:
        if head not in ("[]", "*") and key not in spec:
            return None
        inner = placed(spec[key], rest, value)
        if inner is not None:
            changed = copy.deepcopy(spec)
            changed[key] = inner[0]
            return changed, (f".{head}" if head not in ("[]", "*") else f"[{key}]") + inner[1]
    return None
