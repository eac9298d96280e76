"""Resources and cluster objects for tests, with every default in one place."""

from __future__ import annotations

import copy
from typing import Any

NAMESPACE = "team"
NAME = "demo"
UID = "0f0e0d0c-0000-4000-8000-000000000001"

SPEC: dict[str, Any] = {
    "model": {"uri": "init://tiny-qwen2"},
    "dataset": {"uri": "gym://chain_sum", "format": "s1", "maxSamples": 100},
    "training": {"globalBatchSize": 2, "microBatchSize": 1},
    "resources": {"nodes": 2, "gpusPerNode": 1},
    "budget": {"limitUSD": 10, "usdPerGpuHour": "3.60"},
    "checkpoint": {"graceSeconds": 60},
    "evaluation": {
        "gpus": 1,
        "maxSeconds": 600,
        "benchmarks": [{"name": "sums", "uri": "gym://chain_sum?seed=9", "limit": 100, "maxTokens": 64}],
    },
}


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with the nested values of ``change``; None removes a key."""
    out = copy.deepcopy(base)
    for key, value in change.items():
        if value is None:
            out.pop(key, None)
        elif isinstance(value, dict) and isinstance(out.get(key), dict):
            out[key] = merged(out[key], value)
        else:
            out[key] = copy.deepcopy(value)
    return out


def resource(name: str = NAME, *, namespace: str = NAMESPACE, **change: Any) -> dict[str, Any]:
    """Return a ReasoningFinetune as a user applies it."""
    return {
        "apiVersion": "rft.dev/v1alpha1",
        "kind": "ReasoningFinetune",
        "metadata": {"name": name, "namespace": namespace},
        "spec": merged(SPEC, change),
    }


def node(name: str = "node-1", *, gpus: int = 1, ready: bool = True, since: str | None = None) -> dict[str, Any]:
    """Return a Node with fake GPUs."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"node.kubernetes.io/instance-type": "rft-local"}},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus), "cpu": "2"},
            "conditions": [
                {
                    "type": "Ready",
                    "status": "True" if ready else "Unknown",
                    "lastTransitionTime": since or "2026-01-01T00:00:00Z",
                }
            ],
        },
    }
