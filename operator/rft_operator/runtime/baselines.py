"""Writes the cache of base models' answers.

Invariant: whatever goes wrong here is written to the log and hinders no run.
"""

from __future__ import annotations

import logging
from dataclasses import replace

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
            existing = await _existing(kube, action)
            if not is_ours(existing):
                log.warning("base answers are not kept: a ConfigMap of this name is not the operator's", extra=where)
                return
            await kube.apply(map_manifest(action, existing))
        except (Conflict, NotFound):  # somebody made, changed or deleted it meanwhile
            continue
        except KubeError as error:
            log.warning("base answers are not kept: %s", error, extra=where)
        return
    log.warning("base answers are not kept: others write at the same time", extra=where)


async def _existing(kube: Kube, action: KeepBaselines) -> JsonObject:
    """Return the ConfigMap as it is, made empty if there is none.

    Of two runs that end at once both may find none: an apply that names no version would take the other's entries out.
    """
    try:
        return await kube.get(kind="ConfigMap", namespace=action.namespace, name=action.name)
    except NotFound:
        return await kube.create(map_manifest(replace(action, entries={}), None))
