"""Digesting takes whatever the API server can store, however odd: one strange pod must not stop the operator."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.domain.observe import digest_node, digest_pod
from support.objects import stored_child, stored_node


def pod(**fields: Any) -> dict[str, Any]:
    return stored_child("Pod", "demo-train-1-0", uid="u", **fields)


def asking(**quantities: str) -> dict[str, Any]:
    return {"resources": {"requests": {"nvidia.com/gpu": quantities["gpus"]}}}


@pytest.mark.parametrize(("label", "rank"), [("3", 3), ("abc", 0), ("-1", 0), ("²", 0), ("", 0)])
def test_rank_is_read_from_its_label_and_is_nought_for_nonsense(label: str, rank: int) -> None:
    raw = pod()
    raw["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = label
    facts = digest_pod(raw)
    assert facts is not None
    assert facts.rank == rank


@pytest.mark.parametrize(("quantity", "gpus"), [("2", 2), ("1k", 1_000), ("1Ki", 1_024), ("500m", 0), ("1e3", 0)])
def test_gpus_are_counted_as_the_api_server_writes_quantities(quantity: str, gpus: int) -> None:
    facts = digest_pod(pod(spec={"containers": [asking(gpus=quantity)]}))
    assert facts is not None
    assert facts.gpus == gpus


def test_gpus_of_sidecars_add_up_and_those_of_init_steps_only_raise_the_maximum() -> None:
    spec = {
        "initContainers": [{**asking(gpus="1"), "restartPolicy": "Always"}, asking(gpus="4")],
        "containers": [asking(gpus="2"), {}],
    }
    facts = digest_pod(pod(spec=spec))
    assert facts is not None
    assert facts.gpus == 5


def test_bound_pod_counts_from_its_creation_when_the_condition_has_no_time() -> None:
    facts = digest_pod(
        pod(
            metadata={**pod()["metadata"], "creationTimestamp": "2026-01-01T00:00:00Z"},
            spec={"nodeName": "node-1"},
            status={"phase": "Running", "conditions": [{"type": "PodScheduled", "status": "True"}]},
        )
    )
    assert facts is not None
    assert facts.scheduled_at == facts.created_at


def test_empty_pod_is_pending() -> None:
    facts = digest_pod(pod())
    assert facts is not None
    assert (facts.phase, facts.node, facts.scheduled_at, facts.gpus) == ("Pending", None, None, 0)


@pytest.mark.parametrize("change", [{"rft.dev/attempt": "one"}, {"rft.dev/stage": "lunch"}])
def test_pod_with_labels_that_name_no_attempt_is_none_of_ours(change: dict[str, str]) -> None:
    raw = pod()
    raw["metadata"]["labels"].update(change)
    assert digest_pod(raw) is None


def test_node_offers_its_devices_alone() -> None:
    raw = stored_node()
    raw["status"]["allocatable"] = {"cpu": "2", "memory": "4Gi", "nvidia.com/gpu": "8", "example.com/slice": "2k"}
    assert digest_node(raw).gpus == {"nvidia.com/gpu": 8, "example.com/slice": 2_000}
