"""Local clusters on this machine: up, side by side, broken and mended, and gone without a trace."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rft_local.cluster import Cluster, ClusterOptions, start
from rft_local.errors import LocalClusterError
from rft_local.processes import wait_until
from support.local_machine import can_run_nodes, kill_processes_of, traces_of

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not can_run_nodes(), reason="nodes need root on Linux"),
]


def kubectl(cluster: Cluster, *arguments: str, stdin: str | None = None) -> str:
    return cluster.control_plane.kubectl(*arguments, stdin=stdin).stdout


def is_not_ready(cluster: Cluster, node: str) -> bool:
    return ready(cluster, node) != "True"


def ready(cluster: Cluster, node: str) -> str:
    found: dict[str, Any] = json.loads(kubectl(cluster, "get", "node", node, "-o", "json"))
    return next(str(each["status"]) for each in found["status"]["conditions"] if each["type"] == "Ready")


POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "probe"},
    "spec": {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "containers": [
            {
                "name": "probe",
                "image": "rft.local/trainer:dev",
                "command": ["python", "-c", "import kopf, torch; open('/data/seen', 'w').write('yes')"],
                "resources": {
                    "requests": {"ephemeral-storage": "1Gi"},
                    "limits": {"nvidia.com/gpu": "1"},
                },
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }
        ],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    },
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "metadata": {"name": "data"},
    "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
}


@pytest.fixture
def down(tmp_path: Path) -> Iterator[list[Cluster]]:
    """Clusters that are taken down at the end, whatever happens."""
    clusters: list[Cluster] = []
    yield clusters
    for cluster in clusters:
        if cluster.layout.state.exists():
            cluster.down()


def up(name: str, state: Path, clusters: list[Cluster], *, nodes: int = 1) -> Cluster:
    cluster = start(ClusterOptions(name=name, nodes=nodes, state=state / name))
    clusters.append(cluster)
    return cluster


def test_pod_with_gpu_and_claim_runs_the_projects_python_when_the_cluster_is_up_behind_a_proxy(
    tmp_path: Path, down: list[Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
    cluster = up("pods", tmp_path, down)
    document = json.dumps({"apiVersion": "v1", "kind": "List", "items": [CLAIM, POD]})
    kubectl(cluster, "apply", "-f", "-", stdin=document)
    kubectl(cluster, "wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/probe", "--timeout=90s")
    volume = json.loads(kubectl(cluster, "get", "pv", "-o", "json"))["items"][0]["spec"]["hostPath"]["path"]
    assert (Path(volume) / "seen").read_text() == "yes"
    kubectl(cluster, "delete", "pod/probe", "pvc/data", "--wait=true")
    wait_until(lambda: not Path(volume).exists(), what="the released volume to be removed", seconds=30)
    assert [row for row in cluster.status() if row[1] != "running"] == []


def test_two_clusters_do_not_touch_each_other_when_they_run_side_by_side(tmp_path: Path, down: list[Cluster]) -> None:
    first, second = up("first", tmp_path, down), up("second", tmp_path, down)
    assert first.layout.api_host != second.layout.api_host
    kubectl(first, "create", "namespace", "only-here")
    assert "only-here" not in kubectl(second, "get", "namespaces", "-o", "name")
    first.down()
    assert traces_of(first.layout) == []
    assert second.ready_nodes() == 1
    second.down()
    assert traces_of(second.layout) == []


def test_down_leaves_no_trace_when_every_process_was_killed_before(tmp_path: Path, down: list[Cluster]) -> None:
    cluster = up("killed", tmp_path, down)
    kill_processes_of(cluster.layout)
    assert traces_of(cluster.layout) != []
    Cluster.load(cluster.layout.state).down()
    assert traces_of(cluster.layout) == []


def test_second_start_is_refused_when_a_cluster_of_this_name_runs(tmp_path: Path, down: list[Cluster]) -> None:
    cluster = up("twin", tmp_path, down, nodes=0)
    with pytest.raises(LocalClusterError, match="runs already"):
        start(ClusterOptions(name="twin", nodes=0, state=cluster.layout.state))
    kill_processes_of(cluster.layout)
    with pytest.raises(LocalClusterError, match="remove them with"):
        start(ClusterOptions(name="twin", nodes=0, state=cluster.layout.state))


def test_nodes_recover_when_they_were_cut_off_frozen_and_switched_off(tmp_path: Path, down: list[Cluster]) -> None:
    cluster = up("faults", tmp_path, down, nodes=3)
    faults = {"node-1": ("partition", "heal"), "node-2": ("freeze-kubelet", "thaw-kubelet")}
    faults["node-3"] = ("kill-node", "start-node")
    for node, (broken, _) in faults.items():
        cluster.fault(broken, node)
    for node, (broken, _) in faults.items():
        wait_until(partial(is_not_ready, cluster, node), what=f"{broken} to be noticed", seconds=60)
    for node, (_, mended) in faults.items():
        cluster.fault(mended, node)
    wait_until(lambda: cluster.ready_nodes() == 3, what="the nodes to be Ready again", seconds=60)


def test_api_server_comes_back_with_everything_when_it_was_killed(tmp_path: Path, down: list[Cluster]) -> None:
    cluster = up("outage", tmp_path, down, nodes=0)
    kubectl(cluster, "create", "configmap", "kept")
    cluster.fault("stop-apiserver")
    with pytest.raises(subprocess.CalledProcessError):
        kubectl(cluster, "get", "configmap", "kept")
    cluster.fault("start-apiserver")
    assert "kept" in kubectl(cluster, "get", "configmap", "-o", "name")


def test_fault_is_refused_in_words_when_it_or_its_node_is_unknown(tmp_path: Path, down: list[Cluster]) -> None:
    cluster = up("words", tmp_path, down, nodes=0)
    for kind, node, words in (
        ("melt", None, "known are kill-node"),
        ("kill-node", None, "needs a node"),
        ("kill-node", "node-1", "no nodes"),
        ("kill-node", "n1", "names are node-1"),
        ("start-apiserver", None, "runs already"),
    ):
        with pytest.raises(LocalClusterError, match=words):
            cluster.fault(kind, node)
