"""Where the real scheduler binds pods without GPUs."""

from __future__ import annotations

from kubernetes.aio import client

from rft_trainer.contract import Stage
from support.kubelet import PATCH, Kubelet
from support.live_run import LiveRun
from support.operator_thread import OperatorThread


async def test_pod_without_gpus_is_bound_though_all_nodes_are_tainted_and_leaves_gpu_nodes_to_others(
    operator: OperatorThread, kubelet: Kubelet, core: client.CoreV1Api, run: LiveRun
) -> None:
    taint = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
    for name, present in zip(kubelet.nodes, ("true", "false"), strict=True):
        labels = {"nvidia.com/gpu.present": present}
        await core.patch_node(name, {"metadata": {"labels": labels}, "spec": {"taints": [taint]}}, _content_type=PATCH)
    await run.apply()
    (pod,) = await kubelet.bound(Stage.PREPARE)
    assert pod["spec"]["nodeName"] == kubelet.nodes[1]
