"""The contract of Kube and ObjectStore: the same scenarios on the fake and on the real API server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from rft_operator.api import API_VERSION, BUDGET_KIND, KIND
from rft_operator.domain.facts import FINALIZER, GATE
from rft_operator.domain.timestamps import epoch
from rft_operator.errors import Conflict, NotFound, Rejected
from support.fake_kube import FakeKube
from support.polling import eventually
from support.side import GARBAGE_SECONDS, LABEL, Side, owned, version
from support.team import team_budget

RUNNING = {"stage": "Training", "restarts": {"total": 1}}


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.controlplane)])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    """The fake and the real API server in turn."""
    if request.param == "fake":
        yield Side(FakeKube(lambda: int(time.time())), "team")
    else:
        yield Side(request.getfixturevalue("kube"), request.getfixturevalue("namespace"))


# -- apply ------------------------------------------------------------------------------------------------------


async def test_apply_creates_when_the_object_is_absent(side: Side) -> None:
    made = await side.api.apply(side.config_map("one", labels={LABEL: "red"}, key="value"))
    assert made["metadata"]["uid"]
    assert made["metadata"]["creationTimestamp"]
    read = await side.get("ConfigMap", "one")
    assert (read["data"], read["metadata"]["labels"]) == ({"key": "value"}, {LABEL: "red"})
    assert version(read) == version(made)


async def test_apply_changes_nothing_when_it_is_repeated(side: Side) -> None:
    # No Job: its controller writes in between.
    for manifest in (side.config_map("one", key="value"), side.service("one"), side.run()):
        first = await side.api.apply(manifest)
        again = await side.api.apply(manifest)
        assert version(again) == version(first), manifest["kind"]


async def test_apply_leaves_fields_of_others_alone_when_it_sets_its_own(side: Side) -> None:
    await side.api.create(side.config_map("one", labels={LABEL: "red"}, theirs="1", shared="1"))
    done = await side.api.apply(side.config_map("one", labels={"mine": "yes"}, mine="2", shared="2"))
    assert done["data"] == {"theirs": "1", "mine": "2", "shared": "2"}
    assert done["metadata"]["labels"] == {LABEL: "red", "mine": "yes"}


async def test_apply_removes_its_own_field_when_the_field_is_no_longer_applied(side: Side) -> None:
    await side.api.create(side.config_map("one", theirs="1"))
    await side.api.apply(side.config_map("one", labels={"mine": "yes"}, old="2"))
    done = await side.api.apply(side.config_map("one", new="3"))
    assert done["data"] == {"theirs": "1", "new": "3"}
    assert not done["metadata"].get("labels")


async def test_apply_is_a_conflict_when_the_object_is_no_longer_at_the_version_that_the_manifest_names(
    side: Side,
) -> None:
    made = await side.api.apply(side.config_map("one", key="1"))
    stale = side.config_map("one", key="2")
    stale["metadata"]["resourceVersion"] = version(made)
    await side.api.apply(stale)
    stale["data"] = {"key": "3"}
    with pytest.raises(Conflict):
        await side.api.apply(stale)
    assert (await side.get("ConfigMap", "one"))["data"] == {"key": "2"}


async def test_apply_leaves_the_status_alone_when_the_manifest_has_one(side: Side) -> None:
    made = await side.api.apply({**side.run(), "status": RUNNING})
    assert not made.get("status")


async def test_apply_counts_the_generation_when_the_spec_changes(side: Side) -> None:
    first = await side.api.apply(side.run())
    labelled = side.run()
    labelled["metadata"]["labels"] = {LABEL: "red"}
    second = await side.api.apply(labelled)
    third = await side.api.apply(side.run(suspend=True))
    assert [each["metadata"]["generation"] for each in (first, second, third)] == [1, 1, 2]
    assert len({version(each) for each in (first, second, third)}) == 3


async def test_apply_is_rejected_when_the_crd_does_not_know_a_field(side: Side) -> None:
    with pytest.raises(Rejected, match="nodez"):
        await side.api.apply(side.run(resources={"nodez": 2}))
    assert not await side.exists(KIND, "run")


async def test_apply_is_rejected_when_the_data_of_an_immutable_map_change(side: Side) -> None:
    manifest = {**side.config_map("one", key="value"), "immutable": True}
    first = await side.api.apply(manifest)
    assert version(await side.api.apply(manifest)) == version(first)
    with pytest.raises(Rejected, match="immutable"):
        await side.api.apply({**manifest, "data": {"key": "other"}})


async def test_apply_is_rejected_when_the_template_of_a_job_changes(side: Side) -> None:
    await side.api.apply(side.job("job"))
    with pytest.raises(Rejected, match="immutable"):
        await side.api.apply(side.job("job", image="example.com/other"))


# -- status -----------------------------------------------------------------------------------------------------


async def test_status_is_replaced_whole_when_it_is_applied_again(side: Side) -> None:
    made = await side.api.apply(side.run())
    first = await side.set_status({**RUNNING, "startTime": "2026-01-01T00:00:00Z"}, version=version(made))
    assert first["status"]["startTime"] == "2026-01-01T00:00:00Z"
    assert first["spec"] == made["spec"]
    second = await side.set_status({"stage": "Complete"}, version=version(first))
    assert second["status"]["stage"] == "Complete"
    assert "startTime" not in second["status"]
    assert second["metadata"]["generation"] == 1


async def test_status_changes_nothing_when_it_is_repeated(side: Side) -> None:
    made = await side.api.apply(side.run())
    first = await side.set_status(RUNNING, version=version(made))
    again = await side.set_status(RUNNING, version=version(first))
    assert version(again) == version(first) != version(made)


async def test_status_conflicts_when_the_resource_has_changed_since(side: Side) -> None:
    made = await side.api.apply(side.run())
    await side.api.apply(side.run(suspend=True))
    with pytest.raises(Conflict):
        await side.set_status(RUNNING, version=version(made))
    assert not (await side.get(KIND, "run")).get("status")


async def test_status_survives_when_the_spec_is_applied(side: Side) -> None:
    made = await side.api.apply(side.run())
    await side.set_status(RUNNING, version=version(made))
    edited = await side.api.apply(side.run(suspend=True))
    assert edited["status"]["stage"] == "Training"


async def test_status_is_rejected_when_the_crd_does_not_know_a_field(side: Side) -> None:
    made = await side.api.apply(side.run())
    with pytest.raises(Rejected, match="mood"):
        await side.set_status({"mood": "good"}, version=version(made))


async def test_status_is_not_found_when_the_resource_is_absent(side: Side) -> None:
    with pytest.raises((NotFound, Conflict)):
        await side.set_status(RUNNING, version="1")


async def test_status_of_a_team_budget_is_written_under_its_version_and_schema(side: Side) -> None:
    made = await side.api.create(team_budget(namespace=side.namespace))
    place = {"kind": BUDGET_KIND, "namespace": side.namespace, "name": "team"}
    record = {"uid": "u", "name": "run", "reservedMicroUSD": 5}
    written = await side.api.apply_status(
        **place, status={"closedMicroUSD": 7, "reservations": [record]}, resource_version=version(made)
    )
    assert written["status"]["closedMicroUSD"] == 7
    assert written["status"]["reservations"][0]["reservedMicroUSD"] == 5
    with pytest.raises(Conflict):
        await side.api.apply_status(**place, status={"closedMicroUSD": 8}, resource_version=version(made))
    with pytest.raises(Rejected, match="mood"):
        await side.api.apply_status(**place, status={"mood": "good"}, resource_version=version(written))
    again = await side.api.apply_status(**place, status={"closedMicroUSD": 9}, resource_version=version(written))
    assert not again["status"].get("reservations")
    assert (again["kind"], again["metadata"]["generation"]) == (BUDGET_KIND, 1)


# -- finalizers and deletion ------------------------------------------------------------------------------------


async def test_finalizers_conflict_when_the_object_has_changed_since(side: Side) -> None:
    made = await side.api.apply(side.config_map("one"))
    changed = await side.set_finalizers("ConfigMap", "one", FINALIZER, version=version(made))
    assert changed["metadata"]["finalizers"] == [FINALIZER]
    with pytest.raises(Conflict):
        await side.set_finalizers("ConfigMap", "one", version=version(made))
    assert (await side.get("ConfigMap", "one"))["metadata"]["finalizers"] == [FINALIZER]


async def test_finalizers_are_not_found_when_the_object_is_absent(side: Side) -> None:
    with pytest.raises(NotFound):
        await side.set_finalizers("Pod", "none")


async def test_delete_removes_at_once_when_nothing_holds_the_object(side: Side) -> None:
    await side.api.apply(side.config_map("one"))
    await side.delete("ConfigMap", "one")
    assert not await side.exists("ConfigMap", "one")


async def test_delete_does_nothing_when_the_object_is_absent(side: Side) -> None:
    await side.delete("ConfigMap", "none")
    assert not await side.exists("ConfigMap", "none")


async def test_delete_leaves_the_object_alone_when_it_has_another_uid(side: Side) -> None:
    made = await side.api.apply(side.config_map("one"))
    await side.delete("ConfigMap", "one", uid="0f0e0d0c-0000-4000-8000-00000000ffff")
    assert version(await side.get("ConfigMap", "one")) == version(made)
    await side.delete("ConfigMap", "one", uid=made["metadata"]["uid"])
    assert not await side.exists("ConfigMap", "one")


async def test_delete_only_marks_when_a_finalizer_holds_the_object(side: Side) -> None:
    await side.api.create(side.pod("pod", finalizers=(FINALIZER,)))
    await side.delete("Pod", "pod")
    marked = await side.get("Pod", "pod")
    assert marked["metadata"]["deletionTimestamp"]
    await side.delete("Pod", "pod")
    assert (await side.get("Pod", "pod"))["metadata"]["deletionTimestamp"] == marked["metadata"]["deletionTimestamp"]
    await side.set_finalizers("Pod", "pod")
    assert not await side.exists("Pod", "pod")


async def test_deletion_lies_in_the_future_when_the_pod_is_on_a_node(side: Side) -> None:
    made = await side.api.create(side.pod("pod", node="elsewhere", finalizers=(FINALIZER,)))
    await side.delete("Pod", "pod")
    meta = (await side.get("Pod", "pod"))["metadata"]
    assert epoch(meta["deletionTimestamp"]) >= epoch(made["metadata"]["creationTimestamp"]) + 120


async def test_deletion_says_how_much_grace_it_includes_when_the_pod_is_on_a_node(side: Side) -> None:
    await side.api.create(side.pod("pod", node="elsewhere", finalizers=(FINALIZER,)))
    await side.delete("Pod", "pod")
    assert (await side.get("Pod", "pod"))["metadata"]["deletionGracePeriodSeconds"] == 120


async def test_deadline_of_a_pod_is_set_and_lowered_but_never_raised(side: Side) -> None:
    made = await side.api.create(side.pod("pod"))
    uid = made["metadata"]["uid"]
    for seconds in (500, 400):
        changed = await side.set_deadline("pod", seconds, uid=uid)
        assert changed["spec"]["activeDeadlineSeconds"] == seconds
    with pytest.raises(Rejected, match="activeDeadlineSeconds"):
        await side.set_deadline("pod", 401, uid=uid)
    assert (await side.get("Pod", "pod"))["spec"]["activeDeadlineSeconds"] == 400


async def test_deadline_of_another_pod_of_this_name_is_left_alone(side: Side) -> None:
    await side.api.create(side.pod("pod"))
    for name in ("pod", "none"):
        with pytest.raises(NotFound):
            await side.set_deadline(name, 400, uid="00000000-0000-4000-8000-000000000000")
    assert "activeDeadlineSeconds" not in (await side.get("Pod", "pod"))["spec"]


async def test_gate_of_a_pod_is_opened_and_those_of_others_stay(side: Side) -> None:
    gates = [{"name": "example.com/other"}, {"name": GATE}]
    manifest = side.pod("pod")
    made = await side.api.create({**manifest, "spec": {**manifest["spec"], "schedulingGates": gates}})
    for _ in range(2):
        changed = await side.open_gate("pod", uid=made["metadata"]["uid"])
        assert changed["spec"]["schedulingGates"] == [{"name": "example.com/other"}]


async def test_gate_of_another_pod_of_this_name_is_left_alone(side: Side) -> None:
    manifest = side.pod("pod")
    await side.api.create({**manifest, "spec": {**manifest["spec"], "schedulingGates": [{"name": GATE}]}})
    for name in ("pod", "none"):
        with pytest.raises(NotFound):
            await side.open_gate(name, uid="00000000-0000-4000-8000-000000000000")
    assert (await side.get("Pod", "pod"))["spec"]["schedulingGates"] == [{"name": GATE}]


async def test_finalizer_is_rejected_when_the_object_is_being_deleted(side: Side) -> None:
    await side.api.create(side.pod("pod", finalizers=(FINALIZER,)))
    await side.delete("Pod", "pod")
    with pytest.raises(Rejected, match="no new finalizers can be added"):
        await side.set_finalizers("Pod", "pod", FINALIZER, "example.com/other")


@pytest.mark.slow
async def test_children_are_collected_when_their_owner_is_deleted(side: Side) -> None:
    run = await side.api.apply(side.run())
    await side.api.apply(owned(side.config_map("child"), run))
    held = owned(side.pod("held", finalizers=(FINALIZER,)), run)
    await side.api.create(held)
    await side.api.apply(side.config_map("stranger"))
    await side.delete(KIND, "run")
    await side.gone("ConfigMap", "child")

    async def marked() -> Any:
        return (await side.get("Pod", "held"))["metadata"].get("deletionTimestamp")

    await eventually(marked, what="the held child to be marked", seconds=GARBAGE_SECONDS)
    assert await side.exists("ConfigMap", "stranger")
    await side.set_finalizers("Pod", "held")
    await side.gone("Pod", "held")


async def test_grandchildren_are_collected_when_the_owner_of_their_owner_is_deleted(side: Side) -> None:
    first = await side.api.apply(side.config_map("first"))
    second = await side.api.apply(owned(side.config_map("second"), first))
    await side.api.apply(owned(side.config_map("third"), second))
    await side.delete("ConfigMap", "first")
    await side.gone("ConfigMap", "third")


async def test_child_stays_when_only_one_of_its_owners_is_deleted(side: Side) -> None:
    first = await side.api.apply(side.config_map("first"))
    second = await side.api.apply(side.config_map("second"))
    await side.api.apply(owned(side.config_map("shared"), first, second))
    await side.api.apply(owned(side.config_map("only"), first))
    await side.delete("ConfigMap", "first")
    # The same round of the collector that takes `only` has seen `shared`.
    await side.gone("ConfigMap", "only")
    assert await side.exists("ConfigMap", "shared")
    await side.delete("ConfigMap", "second")
    await side.gone("ConfigMap", "shared")


async def test_child_is_collected_when_its_owner_was_gone_before_it_came(side: Side) -> None:
    first = await side.api.apply(side.config_map("first"))
    await side.delete("ConfigMap", "first")
    await side.api.apply(owned(side.config_map("late"), first))
    await side.gone("ConfigMap", "late")


# -- reading ----------------------------------------------------------------------------------------------------


async def test_get_is_not_found_when_the_object_is_absent(side: Side) -> None:
    with pytest.raises(NotFound):
        await side.get(KIND, "none")
    with pytest.raises(NotFound):
        await side.api.read(kind="Lease", namespace=side.namespace, name="none")


async def test_get_gives_metadata_alone_when_the_object_is_a_secret(side: Side) -> None:
    meta = {"name": "hub", "namespace": side.namespace}
    made = await side.api.create(
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {"token": "c2VjcmV0"}}
    )
    seen = await side.get("Secret", "hub")
    assert seen["metadata"]["uid"] == made["metadata"]["uid"]
    assert "data" not in seen
    assert (await side.api.read(kind="Secret", namespace=side.namespace, name="hub"))["data"] == {"token": "c2VjcmV0"}


async def test_list_gives_what_the_selector_asks_for_in_one_namespace_or_in_all(side: Side) -> None:
    mine = f"{side.namespace}-a"
    for name, team in (("one", mine), ("two", f"{side.namespace}-b")):
        await side.api.apply(side.config_map(name, labels={LABEL: team}))
    await side.api.apply(side.config_map("three"))

    async def names(**where: Any) -> set[str]:
        return {each["metadata"]["name"] for each in await side.api.list(kind="ConfigMap", **where)}

    assert {"one", "two", "three"} <= await names(namespace=side.namespace)
    assert await names(namespace=side.namespace, label_selector=f"{LABEL}={mine}") == {"one"}
    assert await names(label_selector=f"{LABEL}={mine}") == {"one"}
    assert await names(namespace="rft-no-such-namespace") == set()


async def test_list_gives_items_with_their_kind_when_they_are_read(side: Side) -> None:
    await side.api.apply(side.run())
    (item,) = await side.api.list(kind=KIND, namespace=side.namespace)
    assert (item["apiVersion"], item["kind"], item["metadata"]["name"]) == (API_VERSION, KIND, "run")


async def test_list_is_of_no_older_version_than_what_it_has_and_what_was_deleted_before(side: Side) -> None:
    gone = await side.api.apply(side.config_map("gone"))
    await side.delete("ConfigMap", "gone")
    kept = await side.api.apply(side.config_map("kept"))
    listed = await side.api.list(kind="ConfigMap", namespace=side.namespace)
    assert {"kept"} == {each["metadata"]["name"] for each in listed} - {"kube-root-ca.crt"}
    assert int(listed.version) >= int(version(kept)) > int(version(gone))


# -- events, creates and replaces ---------------------------------------------------------------------------------


async def test_event_is_counted_up_when_the_same_is_said_again(side: Side) -> None:
    run = await side.api.apply(side.run())
    for message in ("Training starts.", "Training starts.", "Training starts.", "Training ends."):
        await side.api.emit(regarding=run, type_="Normal", reason="Training", message=message)
    events = await side.api.list(kind="Event", namespace=side.namespace)
    counts = {each["note"]: (each.get("series") or {}).get("count", 1) for each in events}
    assert counts == {"Training starts.": 3, "Training ends.": 1}
    assert {each["regarding"]["uid"] for each in events} == {run["metadata"]["uid"]}


async def test_create_conflicts_when_the_object_exists(side: Side) -> None:
    made = await side.api.create(side.lease("one"))
    with pytest.raises(Conflict):
        await side.api.create(side.lease("two"))
    read = await side.api.read(kind="Lease", namespace=side.namespace, name="leader")
    assert (read["spec"]["holderIdentity"], version(read)) == ("one", version(made))


async def test_replace_takes_the_whole_manifest_when_its_version_is_the_current_one(side: Side) -> None:
    made = await side.api.create(side.lease("one"))
    manifest = side.lease("two")
    manifest["metadata"] = {"name": "leader", "namespace": side.namespace, "resourceVersion": version(made)}
    done = await side.api.replace(manifest)
    assert done["spec"] == {"holderIdentity": "two"}
    assert not done["metadata"].get("labels")
    assert done["metadata"]["uid"] == made["metadata"]["uid"]
    assert version(done) != version(made)


async def test_replace_conflicts_when_the_object_has_changed_since(side: Side) -> None:
    made = dict(await side.api.create(side.lease("one")))
    await side.api.replace({**made, "spec": {"holderIdentity": "two"}})
    with pytest.raises(Conflict):
        await side.api.replace({**made, "spec": {"holderIdentity": "three"}})


async def test_replace_changes_nothing_when_the_manifest_says_what_is_there(side: Side) -> None:
    made = await side.api.create(side.lease("one"))
    assert version(await side.api.replace(made)) == version(made)


async def test_replace_is_not_found_when_the_object_is_absent(side: Side) -> None:
    made = dict(await side.api.create(side.lease("one")))
    await side.delete("Lease", "leader")
    with pytest.raises((NotFound, Conflict)):
        await side.api.replace(made)
