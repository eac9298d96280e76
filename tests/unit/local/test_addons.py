"""Objects every local cluster starts with: a storage class always, the host's mounts only where there are nodes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rft_local.addons import PROVISIONER, manifests


def of_kind(kind: str, *, nodes: bool = True) -> list[dict[str, Any]]:
    return [each for each in manifests([Path("/usr"), Path("/srv/checkout")], nodes=nodes) if each["kind"] == kind]


def policy() -> dict[str, Any]:
    (found,) = of_kind("MutatingAdmissionPolicy")
    return found


def test_control_plane_alone_has_the_storage_class_and_nothing_for_nodes() -> None:
    assert [each["kind"] for each in manifests([], nodes=False)] == ["StorageClass"]


def test_storage_class_is_the_default_and_of_our_provisioner() -> None:
    (found,) = of_kind("StorageClass")
    assert found["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert found["provisioner"] == PROVISIONER


def test_every_object_can_be_applied_by_its_name() -> None:
    names = [(each["apiVersion"], each["kind"], each["metadata"]["name"]) for each in manifests([], nodes=True)]
    assert len(set(names)) == len(names)
    json.dumps(manifests([Path("/usr")], nodes=True))


def test_policy_is_bound_and_refuses_a_pod_rather_than_start_it_without_its_mounts() -> None:
    (binding,) = of_kind("MutatingAdmissionPolicyBinding")
    assert binding["spec"] == {"policyName": policy()["metadata"]["name"]}
    assert policy()["spec"]["failurePolicy"] == "Fail"


def test_policy_looks_at_new_pods_alone_and_only_at_those_with_our_images() -> None:
    spec = policy()["spec"]
    (rule,) = spec["matchConstraints"]["resourceRules"]
    assert (rule["resources"], rule["operations"]) == (["pods"], ["CREATE"])
    (condition,) = spec["matchConditions"]
    assert "c.image.startsWith('rft.local/')" in condition["expression"]
    assert "initContainers" in condition["expression"]


def test_policy_mounts_every_folder_read_only_at_its_own_path() -> None:
    spec = policy()["spec"]
    (folders,) = spec["variables"]
    assert re.findall(r"'name':'(.*?)','path':\"(.*?)\"", folders["expression"]) == [
        ("rft-host-0", "/usr"),
        ("rft-host-1", "/srv/checkout"),
    ]
    expression = spec["mutations"][0]["jsonPatch"]["expression"]
    assert expression.count("readOnly: true") == 2
    assert expression.count("mountPath: v.path") == 2
    assert 'hostPath{path: v.path, type: "Directory"}' in expression
    for field in ("containers", "initContainers"):
        assert f'"/spec/{field}/"' in expression
    for opening, closing in ("()", "[]", "{}"):
        assert expression.count(opening) == expression.count(closing)


@pytest.mark.parametrize("folder", ["/home/o'neil/rft", "/srv/a\\b"])
def test_policy_stays_one_expression_when_a_path_has_odd_letters(folder: str) -> None:
    (found,) = [each for each in manifests([Path(folder)], nodes=True) if each["kind"] == "MutatingAdmissionPolicy"]
    (folders,) = found["spec"]["variables"]
    literal = re.fullmatch(r"\[\{'name':'rft-host-0','path':(.*)\}\]", folders["expression"])
    assert literal is not None
    # A CEL string in double quotes is written as in JSON.
    assert json.loads(literal[1]) == folder
