"""The cache: never older than what it saw, never haunted by what is gone, no larger than the cluster."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.domain.facts import Key, PodPhase, Report
from rft_operator.runtime import cache as cache_module
from rft_operator.runtime.cache import Cache
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.objects import stored_child, stored_node, stored_run

KEY = Key(NAMESPACE, NAME)


def pod(
    name: str = "demo-train-1-0", *, uid: str = "pod-1", version: int = 1, phase: str = "Pending", **spec: Any
) -> Any:
    return stored_child("Pod", name, uid=uid, version=version, spec=spec, status={"phase": phase})


def report(step: int = 50, *, stage: Stage = Stage.TRAIN, attempt: int = 1) -> Report:
    return Report(
        stage=stage, attempt=attempt, received_at=0, percent=100, eta_seconds=0, metrics=(("step", str(step)),)
    )


def test_run_is_found_under_its_key_when_it_was_seen() -> None:
    cache = Cache()
    assert cache.put(stored_run()) == (KEY,)
    found = cache.resource(KEY)
    assert found is not None
    assert found["spec"] == stored_run()["spec"]
    assert list(cache.resources()) == [found]


def test_managed_fields_take_no_memory() -> None:
    cache = Cache()
    cache.put(stored_run(metadata={"managedFields": [{"manager": "kubectl"}]}))
    found = cache.resource(KEY)
    assert found is not None
    assert "managedFields" not in found["metadata"]


def test_older_version_is_ignored_when_a_newer_one_is_known() -> None:
    cache = Cache()
    cache.put(stored_run(version=10, status={"stage": "Training"}))
    assert cache.put(stored_run(version=9, status={"stage": "Pending"})) == ()
    assert cache.put(stored_run(version=10, status={"stage": "Pending"})) == ()
    found = cache.resource(KEY)
    assert found is not None
    assert found["status"] == {"stage": "Training"}


def test_older_version_of_a_child_is_ignored_when_a_newer_one_is_known() -> None:
    cache = Cache()
    cache.put(pod(version=100, phase="Running"))
    assert cache.put(pod(version=99, phase="Pending")) == ()
    known = cache.pod(KEY, "demo-train-1-0")
    assert known is not None
    assert known.phase is PodPhase.RUNNING


def test_child_wakes_its_run_only_when_something_that_counts_changed() -> None:
    cache = Cache()
    assert cache.put(pod(version=100)) == (KEY,)
    assert cache.put(pod(version=101)) == ()
    assert cache.put(pod(version=102, phase="Running")) == (KEY,)
    found = cache.pod(KEY, "demo-train-1-0")
    assert found is not None
    assert found.resource_version == "102"


def test_late_event_of_a_forerunner_does_not_replace_its_namesake() -> None:
    cache = Cache()
    cache.put(pod(uid="old", version=5))
    cache.put(pod(uid="new", version=8))
    assert cache.put(pod(uid="old", version=6, phase="Failed")) == ()
    assert cache.drop(pod(uid="old", version=7)) == ()
    known = cache.pod(KEY, "demo-train-1-0")
    assert known is not None
    assert known.uid == "new"


def test_late_event_of_a_deleted_run_does_not_replace_its_namesake() -> None:
    cache = Cache()
    cache.put(stored_run(uid="new", version=8))
    assert cache.put(stored_run(uid="old", version=6)) == ()
    assert cache.drop(stored_run(uid="old", version=7)) == ()
    found = cache.resource(KEY)
    assert found is not None
    assert found["metadata"]["uid"] == "new"


def test_deleted_object_stays_deleted_when_the_answer_to_a_write_comes_late() -> None:
    cache = Cache()
    for raw in (stored_run(version=3), pod(version=4)):
        cache.put(raw)
        assert cache.drop(raw) == (KEY,)
        late = {**raw, "metadata": {**raw["metadata"], "resourceVersion": "2"}}
        assert cache.put(late) == ()
    assert cache.resource(KEY) is None
    assert cache.known_keys() == ()


def test_memory_of_deletions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "TOMBSTONES_KEPT", 3)
    cache = Cache()
    for index in range(10):
        raw = pod(uid=f"uid-{index}")
        cache.put(raw)
        cache.drop(raw)
    assert len(cache._tombstones) == 3
    assert cache.put(pod(uid="uid-9")) == ()


def test_pod_is_seen_again_when_its_label_was_taken_off_and_put_on_again() -> None:
    cache = Cache()
    cache.put(pod(version=4))
    cache.drop(pod(version=5))  # the watch has a selector: to it, a pod without the label is deleted
    assert cache.put(pod(version=5)) == ()
    assert cache.put(pod(version=6)) == (KEY,)
    assert cache.put(pod(version=5)) == ()
    assert [each.resource_version for each in cache.children(KEY).pods] == ["6"]


def test_key_is_known_until_the_last_child_is_gone() -> None:
    cache = Cache()
    cache.put(stored_run())
    cache.put(pod())
    cache.drop(stored_run())
    assert cache.known_keys() == (KEY,)
    assert cache.drop(pod()) == (KEY,)
    assert cache.known_keys() == ()


def test_children_come_sorted_by_what_they_are() -> None:
    cache = Cache()
    cache.put(pod())
    cache.put(stored_child("Job", "demo-train-1", uid="job-1", spec={"parallelism": 2}))
    cache.put(stored_child("Service", "demo-train", uid="svc-1"))
    children = cache.children(KEY)
    assert [each.name for each in children.pods] == ["demo-train-1-0"]
    assert [each.parallelism for each in children.jobs] == [2]
    assert [each.name for each in children.objects] == ["demo-train"]


def test_strange_objects_are_left_out() -> None:
    cache = Cache()
    assert cache.put(stored_child("Pod", "stray", uid="u1", metadata={"labels": {"app": "web"}})) == ()
    assert cache.put(stored_child("ConfigMap", "stray", uid="u2", metadata={"labels": {}})) == ()
    assert cache.known_keys() == ()


def test_report_of_a_former_attempt_does_not_hide_that_of_the_present_one() -> None:
    cache = Cache()
    cache.put(stored_run())
    for stage, attempt in ((Stage.TRAIN, 2), (Stage.TRAIN, 1)):
        cache.put_report(KEY, report(stage=stage, attempt=attempt))
    assert cache.report(KEY) == report(stage=Stage.TRAIN, attempt=2)
    cache.put_report(KEY, report(stage=Stage.EVALUATE, attempt=1))
    assert cache.report(KEY) == report(stage=Stage.EVALUATE, attempt=1)


def test_report_of_a_deleted_run_is_not_found_by_its_namesake_when_a_claim_was_retained() -> None:
    cache = Cache()
    cache.put(stored_run(uid="first"))
    cache.put(stored_child("PersistentVolumeClaim", "demo-data", uid="claim"))
    cache.put_report(KEY, report())
    cache.drop(stored_run(uid="first"))
    assert cache.known_keys() == (KEY,)
    cache.put(stored_run(uid="second", version=9))
    assert cache.report(KEY) is None


def test_report_of_a_deleted_run_is_not_found_by_its_namesake_when_the_deletion_was_missed() -> None:
    cache = Cache()
    cache.put(stored_run(uid="first"))
    cache.put_report(KEY, report())
    cache.put(stored_run(uid="first", version=2))
    assert cache.report(KEY) == report()
    cache.put(stored_run(uid="second", version=9))
    assert cache.report(KEY) is None


def test_report_is_not_kept_when_nothing_is_known_of_the_run() -> None:
    cache = Cache()
    cache.put_report(KEY, report())
    assert cache.report(KEY) is None
    assert cache.known_keys() == ()


def test_heartbeat_of_a_node_wakes_nobody() -> None:
    cache = Cache()
    cache.put(stored_run())
    assert cache.put(stored_node(version=1)) == (KEY,)
    assert cache.put(stored_node(version=2)) == ()


def test_change_of_a_node_wakes_the_runs_on_it_and_those_that_wait() -> None:
    cache = Cache()
    for name, uid, place in (
        ("here", "u1", {"nodeName": "node-1"}),
        ("there", "u2", {"nodeName": "node-2"}),
        ("waits", "u3", {}),
    ):
        raw = stored_child("Pod", f"{name}-0", uid=uid, finetune=name, spec=place)
        cache.put(raw)
    cache.put(stored_run(name="new", uid="u4"))
    cache.put(stored_node(version=1))
    woken = cache.put(stored_node(version=2, ready=False, since="2026-01-01T00:00:00Z"))
    assert {key.name for key in woken} == {"here", "waits", "new"}
    assert {key.name for key in cache.drop(stored_node(version=3))} == {"here", "waits", "new"}
    assert cache.nodes() == ()


def test_node_does_not_go_back_to_an_older_version() -> None:
    cache = Cache()
    cache.put(stored_node(version=5, ready=False, since="2026-01-01T00:00:00Z"))
    cache.put(stored_node(version=4))
    assert [each.ready for each in cache.nodes()] == [False]


def test_what_a_list_lacks_is_dropped_when_it_was_known_before() -> None:
    cache = Cache()
    cache.put(stored_run())
    cache.put(pod("a", uid="u-a"))
    cache.put(pod("b", uid="u-b"))
    before = cache.identities("Pod")
    assert before == {(NAMESPACE, "a"): "u-a", (NAMESPACE, "b"): "u-b"}
    cache.put(pod("c", uid="u-c"))
    assert cache.drop_missing("Pod", before=before, present={"u-a"}, version="9") == (KEY,)
    assert sorted(each.name for each in cache.children(KEY).pods) == ["a", "c"]


def test_late_event_does_not_bring_back_what_a_list_lacks_and_a_later_one_does() -> None:
    cache = Cache()
    cache.put(pod("a", uid="u-a", version=7))
    cache.drop_missing("Pod", before=cache.identities("Pod"), present=(), version="9")
    for version in (6, 7, 8, 9):  # 8: it ended before the LIST, and the watch tells of it only now
        assert cache.put(pod("a", uid="u-a", version=version)) == ()
    assert cache.children(KEY).pods == ()
    assert cache.put(pod("a", uid="u-a", version=10)) == (KEY,), "its label was taken off, and is on again"


def test_namesake_survives_when_a_list_lacks_its_forerunner() -> None:
    cache = Cache()
    cache.put(pod("a", uid="old", version=1))
    before = cache.identities("Pod")
    cache.put(pod("a", uid="new", version=2))
    assert cache.drop_missing("Pod", before=before, present={"new"}, version="2") == ()
    assert [each.uid for each in cache.children(KEY).pods] == ["new"]


def test_run_that_a_list_lacks_is_dropped_for_good() -> None:
    cache = Cache()
    cache.put(stored_run())
    before = cache.identities("ReasoningFinetune")
    assert cache.drop_missing("ReasoningFinetune", before=before, present=(), version="9") == (KEY,)
    assert cache.put(stored_run(version=2)) == ()


def test_nodes_that_a_list_lacks_are_dropped() -> None:
    cache = Cache()
    cache.put(stored_node("node-1", uid="n1"))
    cache.put(stored_node("node-2", uid="n2"))
    cache.put(stored_run())
    changed = cache.drop_missing_nodes(before={"node-1", "node-2"}, listed=[stored_node("node-2", uid="n2")])
    assert changed == (KEY,)
    assert [each.name for each in cache.nodes()] == ["node-2"]
    assert cache.put(stored_node("node-1", uid="n3", version=1)) == (KEY,)
