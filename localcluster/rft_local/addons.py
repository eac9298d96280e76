"""Objects every local cluster starts with: rights of its parts, the storage class, the policy that mounts the host.

Invariant: the policy touches only containers whose image is ``rft.local/...``; every other manifest runs as applied.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Manifest = dict[str, Any]

STORAGE_CLASS = "rft-local"
PROVISIONER = "rft.dev/local-path"
POLICY = "rft-local-host"
RBAC = "rbac.authorization.k8s.io"


def manifests(folders: Sequence[Path], *, nodes: bool) -> list[Manifest]:
    """Return all objects; the policy and the node parts' rights only where there are nodes."""
    found = [_storage_class()]
    if nodes:
        found += [
            _binding("rft-local-proxy", role="system:node-proxier", user="system:kube-proxy"),
            _dns_role(),
            _binding("rft-local-dns", role="rft-local-dns", user="system:coredns"),
            _policy(folders),
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "MutatingAdmissionPolicyBinding",
                "metadata": {"name": POLICY},
                "spec": {"policyName": POLICY},
            },
        ]
    return found


def _storage_class() -> Manifest:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def _binding(name: str, *, role: str, user: str) -> Manifest:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "apiGroup": RBAC, "name": user}],
    }


def _dns_role() -> Manifest:
    watch = ["list", "watch"]
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "rft-local-dns"},
        "rules": [
            {"apiGroups": [""], "resources": ["services", "pods", "namespaces", "endpoints"], "verbs": watch},
            {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": watch},
        ],
    }


def _policy(folders: Sequence[Path]) -> Manifest:
    """Return the policy that adds the host's folders, read-only and at the same path."""
    paths = [json.dumps(str(folder), ensure_ascii=False) for folder in folders]  # CEL's strings are JSON's
    items = ",".join(f"{{'name':'rft-host-{index}','path':{path}}}" for index, path in enumerate(paths))
    ours = "c.image.startsWith('rft.local/')"
    everything = "object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : [])"
    volumes = (
        '(has(object.spec.volumes) ? [] : [JSONPatch{op:"add", path:"/spec/volumes", value: []}])'
        ' + variables.folders.map(v, JSONPatch{op:"add", path:"/spec/volumes/-", value: Object.spec.volumes{'
        'name: v.name, hostPath: Object.spec.volumes.hostPath{path: v.path, type: "Directory"}}})'
    )
    expression = (
        f"{volumes} + {_mounts('containers')} + (has(object.spec.initContainers) ? {_mounts('initContainers')} : [])"
    )
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": POLICY},
        "spec": {
            "failurePolicy": "Fail",
            "reinvocationPolicy": "Never",
            "matchConstraints": {
                "resourceRules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                ]
            },
            "matchConditions": [{"name": "rft-image", "expression": f"({everything}).exists(c, {ours})"}],
            "variables": [{"name": "folders", "expression": f"[{items}]"}],
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        },
    }


def _mounts(field: str) -> str:
    ours = f"object.spec.{field}[i].image.startsWith('rft.local/')"
    every = f"lists.range(size(object.spec.{field}))"
    path = f'"/spec/{field}/" + string(i) + "/volumeMounts'
    return (
        f'{every}.filter(i, {ours} && !has(object.spec.{field}[i].volumeMounts)).map(i, JSONPatch{{op:"add", '
        f'path: {path}", value: []}})'
        f' + {every}.filter(i, {ours}).map(i, variables.folders.map(v, JSONPatch{{op:"add", path: {path}/-", '
        f"value: Object.spec.{field}.volumeMounts{{name: v.name, mountPath: v.path, readOnly: true}}}})).flatten()"
    )
