"""Digesting takes whatever the API server can store, however odd: one strange pod must not stop the operator."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.api.ledger import WasteReason
from rft_operator.domain.facts import PodFacts
from rft_operator.domain.failure import classify_pod
from rft_operator.domain.observe import digest_node, digest_pod
from rft_operator.domain.waste import AttemptLife, intervals
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


def waiting(*, trainer: str, sidecar: str | None, phase: str = "Pending") -> PodFacts:
    """A bound pod with a container that a webhook has put before the trainer's."""

    def state(reason: str | None) -> dict[str, Any]:
        running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
        return running if reason is None else {"waiting": {"reason": reason, "message": f"{reason} it is"}}

    facts = digest_pod(
        pod(
            spec={"nodeName": "node-1"},
            status={
                "phase": phase,
                "conditions": [{"type": "PodScheduled", "status": "True"}],
                "containerStatuses": [{"name": "trainer", "state": state(trainer)}],
                "initContainerStatuses": [{"name": "proxy", "state": state(sidecar)}],
            },
        )
    )
    assert facts is not None
    return facts


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("ErrImagePull", "ImagePullBackOff"),
        ("CreateContainerConfigError", "ContainerConfigError"),
        ("CrashLoopBackOff", "CrashLoopBackOff"),
    ],
)
def test_pod_says_which_container_holds_it_up_when_it_is_not_the_trainers(reason: str, word: str) -> None:
    facts = waiting(trainer="PodInitializing", sidecar=reason)
    trouble = classify_pod(facts)
    assert trouble is not None
    assert trouble.reason == word
    assert f"{reason}: {reason} it is" in trouble.message
    assert "has put the container proxy into the pod" in trouble.message
    assert "trainer.image" not in trouble.message
    life = AttemptLife()
    (wasted,) = intervals(facts, start=0, end=60, life=life, silent_since=None)
    assert wasted.reason is WasteReason.BACK_OFF


@pytest.mark.parametrize("sidecar", [None, "PodInitializing", "ContainerCreating"])
def test_pod_that_only_starts_is_in_no_trouble(sidecar: str | None) -> None:
    facts = waiting(trainer="PodInitializing", sidecar=sidecar)
    assert classify_pod(facts) is None
    assert facts.waiting_reason == "PodInitializing"


def test_trainers_own_trouble_comes_before_a_sidecars() -> None:
    facts = waiting(trainer="ImagePullBackOff", sidecar="CrashLoopBackOff")
    assert (facts.waiting_container, facts.waiting_reason) == ("trainer", "ImagePullBackOff")
    trouble = classify_pod(facts)
    assert trouble is not None
    assert "Check podTemplate.image, the chart's value trainer.image, and the image pull secrets." in trouble.message


def test_sidecar_that_crashes_beside_a_running_trainer_holds_nothing_up() -> None:
    facts = waiting(trainer="PodInitializing", sidecar="CrashLoopBackOff", phase="Running")
    assert classify_pod(facts) is None


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
