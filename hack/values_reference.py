"""Writes the table of values into the chart's README: names and defaults from values.yaml, meanings from the schema.

Usage: python hack/values_reference.py [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[1] / "helm" / "rft-operator"
README = CHART / "README.md"
BEGIN, END = "<!-- values: written by `make generate` -->\n", "<!-- end of values -->\n"
OPAQUE = {"resources", "podSecurityContext", "securityContext"}
"""Values that are one Kubernetes object: their parts are not ours to describe."""
LONGEST_DEFAULT = 40


def leaves(values: dict[str, Any], schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield name, default and meaning of each value, in the order of values.yaml."""
    for key, value in values.items():
        part = schema["properties"][key]
        if isinstance(value, dict) and value and key not in OPAQUE:
            yield from leaves(value, part, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value, part["description"]


def shown(value: Any) -> str:
    """Return a default as it stands in the table."""
    if value in ("", None):
        return ""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"`{text}`" if len(text) <= LONGEST_DEFAULT else "see values.yaml"


def table() -> str:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    rows = [f"| `{name}` | {shown(value)} | {meaning} |" for name, value, meaning in leaves(values, schema)]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows, ""])


def main(arguments: list[str]) -> int:
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    fresh = f"{before}{BEGIN}{table()}{END}{after}"
    if fresh == text:
        return 0
    if "--check" in arguments:
        sys.stderr.write(f"error: {README} differs from the chart's values; run: make generate\n")
        return 1
    README.write_text(fresh, encoding="utf-8")
    sys.stdout.write(f"wrote {README}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
