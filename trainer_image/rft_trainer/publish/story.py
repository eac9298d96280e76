"""What there is to tell of a finished run: read from its folder, never made up.

Invariant: a file that is absent or broken means that its part is not told; only the model itself must be there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from rft_trainer.errors import BadInputError
from rft_trainer.files import read_json
from rft_trainer.hub import MODEL_CARD, RECORD
from rft_trainer.paths import CARD_FILE, RunPaths

EXPORT_MARKER = "rft-export.json"
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*\n", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Story:
    """A run, as far as it is known."""

    export: Path
    step: int
    card: Mapping[str, Any]
    """The run card."""
    results: Mapping[str, Any] | None = None
    """``results.json``, if it is of this very model."""
    protocol: Mapping[str, Any] | None = None
    evaluated_on: str | None = None
    """Date of the results."""
    benchmark_commits: Mapping[str, str] = field(default_factory=dict)
    """The hub's commit of the questions, by benchmark."""
    cost: Mapping[str, Any] = field(default_factory=dict)
    """``spentUSD``, ``gpuHours`` and ``byStage`` of the resource's status; empty where it is not known."""
    license: str | None = None
    """That of the base model."""
    silent_because: str | None = None
    """Why there are results that are not told."""

    @property
    def run(self) -> Mapping[str, Any]:
        """The run's configuration."""
        found = self.card.get("run")
        return found if isinstance(found, dict) else {}

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.run.get("name", "model"))


def read_story(paths: RunPaths, *, cost: Mapping[str, Any] | None = None) -> Story:
    """Read a run's folder; raises :class:`BadInputError` where no whole model is in it."""
    marker = read_json(paths.export / EXPORT_MARKER)
    if not isinstance(marker, dict) or not any(paths.export.glob("*.safetensors")):
        raise BadInputError(f"{paths.export}: holds no exported model; train first, or name a run's folder")
    step = int(marker["step"])
    results_file = paths.evaluation / "results.json"
    results, protocol = read_json(results_file), read_json(paths.evaluation / "protocol.json")
    silent = None
    if isinstance(results, dict) and results.get("model") != f"step-{step}":
        silent = f"the scores at hand are of {results.get('model')}, and the model is of step {step}"
    whole = isinstance(results, dict) and silent is None
    return Story(
        export=paths.export,
        step=step,
        card=_mapping(read_json(paths.export / CARD_FILE)),
        results=results if whole else None,
        protocol=_mapping(protocol) if whole else None,
        evaluated_on=_date(results_file) if whole else None,
        benchmark_commits=_commits(paths.data / "benchmarks"),
        cost=cost or {},
        license=_license(paths.model / MODEL_CARD),
        silent_because=silent,
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _date(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).date().isoformat()


def _commits(folder: Path) -> dict[str, str]:
    found = {each.parent.name: read_json(each) for each in sorted(folder.glob(f"*/{RECORD}"))}
    return {
        name: str(record["commit"]) for name, record in found.items() if isinstance(record, dict) and "commit" in record
    }


def _license(readme: Path) -> str | None:
    try:
        match = _FRONT_MATTER.match(readme.read_text(encoding="utf-8"))
        found = yaml.safe_load(match[1]) if match is not None else None
    except (OSError, ValueError, yaml.YAMLError):
        return None
    value = found.get("license") if isinstance(found, dict) else None
    return value if isinstance(value, str) else None
