"""The table of values in the chart's README: names and defaults from values.yaml, meanings from the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

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


def table(chart: Path) -> str:
    """Return the table of a chart's values."""
    values = yaml.safe_load((chart / "values.yaml").read_text(encoding="utf-8"))
    schema = json.loads((chart / "values.schema.json").read_text(encoding="utf-8"))
    rows = [f"| `{name}` | {shown(value)} | {meaning} |" for name, value, meaning in leaves(values, schema)]
    return "\n".join(["| value | default | meaning |", "|---|---|---|", *rows, ""])


def outputs(root: Path) -> dict[Path, str]:
    """Return the chart's README with a fresh table."""
    chart = root / "helm" / "rft-operator"
    readme = chart / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    return {readme: f"{before}{BEGIN}{table(chart)}{END}{rest.split(END)[1]}"}
