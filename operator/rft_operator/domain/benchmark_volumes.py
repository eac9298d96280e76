"""Where pods find benchmark rows that are in ConfigMaps.

Invariant: only stages that read questions have them: Evaluate, Score, and Prepare, which keeps them out of training.
"""

from __future__ import annotations

from typing import Any

from rft_operator.api.spec import Spec
from rft_trainer.contract import CONFIG_MAPS_DIRECTORY, Stage

_READERS = frozenset({Stage.PREPARE, Stage.EVALUATE, Stage.SCORE})
_SCHEME = "configmap://"


def row_config_maps(spec: Spec) -> list[str]:
    """Return the names of the ConfigMaps, each once."""
    benchmarks = spec.evaluation.benchmarks if spec.evaluation is not None else []
    uris = [each.uri for each in benchmarks if each.uri is not None and each.uri.startswith(_SCHEME)]
    return list(dict.fromkeys(uri.removeprefix(_SCHEME).split("/", 1)[0] for uri in uris))


def mounts(spec: Spec, stage: Stage) -> list[dict[str, Any]]:
    """Return a mount for each of them."""
    if stage not in _READERS:
        return []
    return [
        {"name": f"rft-rows-{index}", "mountPath": f"{CONFIG_MAPS_DIRECTORY}/{name}", "readOnly": True}
        for index, name in enumerate(row_config_maps(spec))
    ]


def volumes(spec: Spec, stage: Stage) -> list[dict[str, Any]]:
    """Return a volume for each of them."""
    if stage not in _READERS:
        return []
    return [
        {"name": f"rft-rows-{index}", "configMap": {"name": name}} for index, name in enumerate(row_config_maps(spec))
    ]
