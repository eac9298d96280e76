"""What pods read under ``/rft/config``: what gives the run its meaning from the run, what may change from the attempt.

The run's ConfigMap never changes. What may change while a run lives is taken as it is when an attempt is made:
``spec.timeouts``, which users edit, and the authority of the progress server, which is another one where the operator
was installed anew: reports that nobody hears would end each attempt as one that hangs.
Invariant: a path comes from one of the two; the API server refuses a volume with two sources of one path.
"""

from __future__ import annotations

from typing import Any

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.facts import Settings, child_name
from rft_operator.domain.resolve import CA_KEY, DEEPSPEED_KEY, RUN_KEY, RunSnapshot
from rft_trainer.contract import RunConfig, Stage

HOSTFILE_KEY = "hostfile"


def config_sources(
    resource: ReasoningFinetune, snapshot: RunSnapshot, settings: Settings, *, stage: Stage, attempt: int
) -> list[dict[str, Any]]:
    """Return the sources of the projected volume."""
    own = attempt_data(resource, snapshot, settings, stage=stage, attempt=attempt)
    shared = [RUN_KEY, DEEPSPEED_KEY, *([CA_KEY] if settings.progress_url is not None else [])]
    name = resource.metadata.name
    sources = [_source(child_name(name, "run"), [key for key in shared if key not in own])]
    return [*sources, _source(child_name(name, stage.value, attempt), list(own))] if own else sources


def attempt_data(
    resource: ReasoningFinetune, snapshot: RunSnapshot, settings: Settings, *, stage: Stage, attempt: int
) -> dict[str, str]:
    """Return what an attempt's own ConfigMap holds; nothing: it needs none."""
    data: dict[str, str] = {}
    if stage is Stage.TRAIN:
        data[HOSTFILE_KEY] = _hostfile(resource, attempt)
        data[RUN_KEY] = _with_timeouts(snapshot.config, resource).model_dump_json(indent=1)
    trusted = settings.progress_ca if settings.progress_url is not None else None
    if trusted is not None and trusted != snapshot.progress_ca:
        data[CA_KEY] = trusted
    return data


def _hostfile(resource: ReasoningFinetune, attempt: int) -> str:
    """Return DeepSpeed's hostfile, in the order of the ranks."""
    name, resources = resource.metadata.name, resource.spec.resources
    job, domain = child_name(name, "train", attempt), child_name(name, "train")
    return "".join(f"{job}-{rank}.{domain} slots={resources.gpus_per_node}\n" for rank in range(resources.nodes))


def _with_timeouts(config: RunConfig, resource: ReasoningFinetune) -> RunConfig:
    it = resource.spec.timeouts
    waits = {
        "pending_seconds": it.pending_seconds,
        "startup_seconds": it.startup_seconds,
        "stall_seconds": it.stall_seconds,
    }
    return config.model_copy(update=waits)


def _source(name: str, keys: list[str]) -> dict[str, Any]:
    return {"configMap": {"name": name, "items": [{"key": key, "path": key} for key in keys]}}
