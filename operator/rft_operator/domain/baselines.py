"""The base model's answers, kept in a ConfigMap beside the runs, so that a namespace pays for them once.

Invariant: one ConfigMap for each base model of a namespace, with at most so many entries and bytes, the oldest first to
go. It is a cache: losing it costs one more measurement and nothing else. Pods only read it; what a pod hands on has
passed the contract's bounds, and a later pod checks again that an entry fits its questions. Who can write it, or run a
finetune in the namespace, can make later comparisons of that namespace wrong: it is as trusted as the namespace.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from rft_operator.api.evaluation import Baseline
from rft_operator.api.spec import Spec
from rft_operator.api.training import Model
from rft_operator.domain.actions import KeepBaselines
from rft_operator.domain.draft import Draft
from rft_operator.domain.facts import LABEL_MANAGED_BY, MANAGED_BY
from rft_trainer.contract import BASELINES_DIRECTORY, Stage
from rft_trainer.stage_results import BaseAnswers, KeptBaseAnswers

LABEL_CACHE = "rft.dev/cache"
CACHE = "baselines"
MOST_ENTRIES = 128
MOST_BYTES = 262_144
"""A quarter of what a ConfigMap may hold."""
VOLUME = "rft-baselines"


def map_name(model: Model) -> str:
    """Return the name of the ConfigMap of a base model."""
    digest = hashlib.sha256(f"{model.uri}@{model.revision or ''}".encode()).hexdigest()
    return f"rft-baseline-{digest[:16]}"


def keep_baselines(draft: Draft, answers: Sequence[BaseAnswers]) -> None:
    """Plan to keep what a run hands on."""
    if not answers:
        return
    meta = draft.view.resource.metadata
    kept = [KeptBaseAnswers(measured_by=meta.name, measured_at=draft.now_text, answers=each) for each in answers]
    entries = {each.answers.key: each.model_dump_json(by_alias=True, exclude_none=True) for each in kept}
    draft.actions.append(
        KeepBaselines(
            namespace=meta.namespace,
            name=map_name(draft.spec.model),
            model=f"{draft.spec.model.uri}@{draft.spec.model.revision or ''}".removesuffix("@"),
            entries=entries,
        )
    )


def is_ours(existing: Mapping[str, Any]) -> bool:
    """Return whether a ConfigMap of this name is our cache, and not somebody's own."""
    labels = existing["metadata"].get("labels") or {}
    return labels.get(LABEL_MANAGED_BY) == MANAGED_BY and labels.get(LABEL_CACHE) == CACHE


def map_manifest(action: KeepBaselines, existing: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the ConfigMap with the new entries, and with as many of the former ones as there is room for."""
    former = dict((existing or {}).get("data") or {})
    metadata: dict[str, Any] = {
        "name": action.name,
        "namespace": action.namespace,
        "labels": {LABEL_MANAGED_BY: MANAGED_BY, LABEL_CACHE: CACHE},
        "annotations": {"rft.dev/model": action.model},
    }
    if existing is not None:
        metadata["resourceVersion"] = existing["metadata"]["resourceVersion"]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "data": _bounded({**former, **action.entries}),
    }


def mounts(spec: Spec, stage: Stage) -> list[dict[str, Any]]:
    """Return where an evaluation finds the cache."""
    wanted = stage in (Stage.EVALUATE, Stage.SCORE) and _measures(spec)
    return [{"name": VOLUME, "mountPath": BASELINES_DIRECTORY, "readOnly": True}] if wanted else []


def volumes(spec: Spec, stage: Stage) -> list[dict[str, Any]]:
    """Return the cache's volume; it is empty where nothing is kept yet."""
    source = {"name": map_name(spec.model), "optional": True}
    return [{"name": VOLUME, "configMap": source}] if mounts(spec, stage) else []


def _measures(spec: Spec) -> bool:
    return spec.evaluation is not None and spec.evaluation.baseline is Baseline.MEASURE


def _bounded(entries: Mapping[str, str]) -> dict[str, str]:
    """Return the newest entries that fit; what nobody can read takes no room."""
    found: list[tuple[str, str, str]] = []
    for key, text in entries.items():
        try:
            kept = KeptBaseAnswers.model_validate_json(text)
        except ValidationError:
            continue
        if kept.answers.key == key:
            found.append((kept.measured_at, key, text))
    room, chosen = MOST_BYTES, {}
    for _, key, text in sorted(found, reverse=True)[:MOST_ENTRIES]:
        room -= len(key) + len(text)
        if room < 0:
            break
        chosen[key] = text
    return dict(sorted(chosen.items()))
