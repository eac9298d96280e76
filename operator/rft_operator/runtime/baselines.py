"""Writes the cache of base models' answers.

Invariant: whatever goes wrong here is written to the log and hinders no run.
"""

from __future__ import annotations

import logging

from rft_operator.domain.actions import KeepBaselines
from rft_operator.domain.baselines import is_ours, map_manifest
from rft_operator.errors import Conflict, KubeError, NotFound
from rft_operator.runtime.kube import JsonObject, Kube

TRIES = 3
log = logging.getLogger(__name__)


async def write_baselines(kube: Kube, action: KeepBaselines) -> None:
    """Add entries to a base model's ConfigMap; another run's that are written meanwhile are not lost."""
    where = {"namespace": action.namespace, "config_map": action.name}
    for _ in range(TRIES):
        try:
            existing: JsonObject | None = await kube.get(kind="ConfigMap", namespace=action.namespace, name=action.name)
        except NotFound:
            existing = None
        except KubeError as error:
            log.warning("base answers are not kept: %s", error, extra=where)
            return
        if existing is not None and not is_ours(existing):
            log.warning("base answers are not kept: a ConfigMap of this name is not the operator's", extra=where)
            return
        try:
            await kube.apply(map_manifest(action, existing))
        except Conflict:
            continue
        except KubeError as error:
            log.warning("base answers are not kept: %s", error, extra=where)
        return
    log.warning("base answers are not kept: others write at the same time", extra=where)
