"""Kubernetes' JSON schemas for kubeconform, from the wheel kubernetes-validate: no network is asked.

The wheel's schemas refer to each other by the absolute path ``/api/...`` and carry an ``$id`` on the network, which
kubeconform would follow; both are taken out of a copy.
"""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

LOCATION = "{{.NormalizedKubernetesVersion}}-local{{.StrictSuffix}}/{{.ResourceKind}}{{.KindSuffix}}.json"


def write_schemas(folder: Path, *, version: str) -> None:
    """Write the strict schemas of a Kubernetes version into ``folder``."""
    name = f"v{version}-local-strict"
    (folder / name).mkdir(parents=True)
    for source in (files("kubernetes_validate") / "kubernetes-json-schema" / name).iterdir():
        schema: dict[str, Any] = json.loads(source.read_text(encoding="utf-8"))
        schema.pop("$id", None)
        text = json.dumps(schema).replace('"$ref": "/api/', '"$ref": "')
        (folder / name / source.name).write_text(text, encoding="utf-8")
