"""``python -m rft_local.agent``: what a cloud would do for a cluster: volumes and GPUs.

Provisions ``rft-local`` claims as folders (any access mode: all nodes share the disk), removes them when they are
released, and keeps the fake GPUs and the disk's size in the nodes' status, also after a node registered anew (these
kubelets do not measure disks; pods that request ephemeral storage must be scheduled all the same). Invariant:
level-triggered; each round looks at everything, so nothing depends on an event that was missed.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from rft_local.addons import PROVISIONER, STORAGE_CLASS
from rft_local.layout import EPHEMERAL_STORAGE, GPU_RESOURCE

ROUND_SECONDS = 0.5
TIMEOUT_SECONDS = 5


def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--volumes", type=Path, required=True)
    parser.add_argument("--gpus", type=int, required=True)
    arguments = parser.parse_args()
    api = client.CoreV1Api(config.new_client_from_config(arguments.kubeconfig))
    agent = Agent(api, volumes=arguments.volumes, gpus=arguments.gpus)
    while True:
        try:
            agent.round()
        except (ApiException, urllib3.exceptions.HTTPError, OSError) as error:
            print(f"{type(error).__name__}: {error}", flush=True)  # noqa: T201 - the agent's log
        time.sleep(ROUND_SECONDS)


class Agent:
    """One look at everything, repeated."""

    def __init__(self, api: client.CoreV1Api, *, volumes: Path, gpus: int) -> None:
        self._api = api
        self._volumes = volumes
        self._gpus = gpus

    def round(self) -> None:
        """Give nodes their GPUs, claims their volumes, and remove released volumes."""
        for node in self._api.list_node(_request_timeout=TIMEOUT_SECONDS).items:
            capacity = node.status.capacity or {}
            if capacity.get(GPU_RESOURCE) != str(self._gpus) or EPHEMERAL_STORAGE not in capacity:
                self._give(node.metadata.name)
        for claim in self._api.list_persistent_volume_claim_for_all_namespaces(_request_timeout=TIMEOUT_SECONDS).items:
            if claim.spec.storage_class_name == STORAGE_CLASS and not claim.spec.volume_name:
                self._provision(claim)
        for volume in self._api.list_persistent_volume(_request_timeout=TIMEOUT_SECONDS).items:
            ours = (volume.metadata.annotations or {}).get("pv.kubernetes.io/provisioned-by") == PROVISIONER
            if ours and volume.status.phase == "Released" and volume.spec.persistent_volume_reclaim_policy == "Delete":
                shutil.rmtree(volume.spec.host_path.path, ignore_errors=True)
                self._api.delete_persistent_volume(volume.metadata.name, _request_timeout=TIMEOUT_SECONDS)

    def _give(self, node: str) -> None:
        disk_gib = shutil.disk_usage(self._volumes.parent).total // 2**30
        given = {GPU_RESOURCE.replace("/", "~1"): str(self._gpus), EPHEMERAL_STORAGE: f"{disk_gib}Gi"}
        patch = [
            {"op": "add", "path": f"/status/{part}/{resource}", "value": value}
            for part in ("capacity", "allocatable")
            for resource, value in given.items()
        ]
        self._api.patch_node_status(node, patch, _request_timeout=TIMEOUT_SECONDS)

    def _provision(self, claim: Any) -> None:
        meta = claim.metadata
        name = f"pvc-{meta.uid}"
        folder = self._volumes / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
            "spec": {
                "capacity": {"storage": claim.spec.resources.requests["storage"]},
                "accessModes": claim.spec.access_modes,
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": STORAGE_CLASS,
                "hostPath": {"path": str(folder), "type": "Directory"},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    "namespace": meta.namespace,
                    "name": meta.name,
                    "uid": meta.uid,
                },
            },
        }
        try:
            self._api.create_persistent_volume(body, _request_timeout=TIMEOUT_SECONDS)
        except ApiException as error:
            if error.status != 409:
                raise


if __name__ == "__main__":
    main()
