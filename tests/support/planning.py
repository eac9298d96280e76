"""``rft plan`` as a user calls it, and a resource to plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result

from rft_operator.cli.main import main
from support.builders import merged

FILE: dict[str, Any] = {
    "apiVersion": "rft.dev/v1alpha1",
    "kind": "ReasoningFinetune",
    "metadata": {"name": "mine"},
    "spec": {
        "model": {"uri": "hf://Qwen/Qwen2.5-7B"},
        "dataset": {"uri": "hf://simplescaling/s1K", "format": "s1"},
        "training": {"globalBatchSize": 16},
        "resources": {"nodes": 1, "gpusPerNode": 8, "memory": "512Gi"},
        "scheduling": {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}},
        "budget": {"limitUSD": 100, "usdPerGpuHour": "2.95"},
        "checkpoint": {"graceSeconds": 300},
        "evaluation": {"benchmarks": [{"name": "sums", "uri": "pvc://any/rows.jsonl"}]},
    },
}
H100, A100 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-80GB"


def rft(*arguments: str, stdin: str = "") -> Result:
    """Call the command."""
    return CliRunner().invoke(main, ["plan", *arguments], input=stdin)


def plan(change: dict[str, Any] | None = None, *arguments: str) -> Result:
    """Plan the file with a changed spec."""
    return rft("-f", "-", *arguments, stdin=yaml.safe_dump(merged(FILE, {"spec": change or {}})))


def document(change: dict[str, Any] | None = None, *arguments: str) -> dict[str, Any]:
    """Plan the file with a changed spec and read the JSON."""
    found: dict[str, Any] = json.loads(plan(change, "-o", "json", *arguments).stdout)
    return found


def refused(result: Result) -> str:
    """Return the words of a refusal."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    return result.stderr


def catalogue(folder: Path, *entries: dict[str, Any]) -> str:
    """Write a price catalogue; return its path."""
    file = folder / "prices.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "prices": list(entries)}))
    return str(file)
