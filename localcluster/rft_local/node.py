"""A node: namespaces of its own with containerd, kube-proxy and kubelet inside.

Invariant: one SIGKILL to the node's process (`unshare --kill-child`) is a power-off: containers, shims and mounts all
go with it.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from rft_local import network
from rft_local.errors import StateError
from rft_local.images import PAUSE
from rft_local.layout import GPU_PRODUCT, INSTANCE_TYPE, Layout
from rft_local.processes import Processes
from rft_local.tools import ensure

HERE = Path(__file__).resolve().parent
MOUNT_POINTS = ("/var/lib/kubelet", "/var/lib/containerd", "/var/log/pods", "/var/log/containers", "/etc/cni/net.d")
LABELS = {"node.kubernetes.io/instance-type": INSTANCE_TYPE, "nvidia.com/gpu.product": GPU_PRODUCT}


class Node:
    """One node of a cluster."""

    def __init__(self, layout: Layout, processes: Processes, index: int) -> None:
        self.name = f"node-{index}"
        self._layout = layout
        self._processes = processes
        self._index = index
        self._state = layout.state / self.name

    def prepare(self) -> None:
        """Write the configuration of containerd, kubelet, kube-proxy and CNI."""
        state = self._state
        for folder in ("kubelet", "containerd", "log/pods", "log/containers", "cni"):
            (state / folder).mkdir(parents=True, exist_ok=True)
        for point in MOUNT_POINTS:
            Path(point).mkdir(parents=True, exist_ok=True)
        (state / "resolv.conf").write_text("")
        (state / "labels").write_text(",".join(f"{key}={value}" for key, value in LABELS.items()))
        shutil.copy(self._layout.state / "pki" / f"{self.name}.kubeconfig", state / "kubeconfig")
        (state / "containerd.toml").write_text(_containerd())
        (state / "cni" / "10-rft.conflist").write_text(json.dumps(self._cni()))
        (state / "kubelet.yaml").write_text(json.dumps(self._kubelet()))
        (state / "proxy.yaml").write_text(json.dumps(self._proxy()))

    def start(self) -> None:
        """Switch the node on."""
        layout = self._layout
        self._processes.start(
            self.name,
            [
                "nsenter",
                f"--net=/run/netns/{layout.namespace(self._index)}",
                *("unshare", "-m", "-u", "-i", "-p", "--fork", "--mount-proc", "--kill-child"),
                *("bash", HERE / "node_init.sh"),
                self.name,
                self._state,
                layout.node_address(self._index),
                ensure("kubernetes"),
                layout.state / "images",
            ],
        )

    def power_off(self) -> None:
        """Switch the node off, at once and without warning."""
        self._processes.kill(self.name)

    def kubelet_pid(self) -> int:
        """Return the host's pid of the kubelet; raises StateError if it does not run."""
        main = self._processes.pid(self.name)
        for parent in _children(main) if main is not None else []:
            for child in _children(parent):
                if Path(f"/proc/{child}/comm").read_text().strip() == "kubelet":
                    return child
        msg = f"the kubelet of {self.name} does not run"
        raise StateError(msg)

    def load_image(self, archive: Path) -> None:
        """Put the images of a docker archive into the node's container runtime; raises StateError."""
        main = self._processes.pid(self.name)
        inits = _children(main) if main is not None else []
        if not inits:
            msg = f"{self.name} does not run"
            raise StateError(msg)
        inside = ["nsenter", f"--target={inits[0]}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        done = subprocess.run(
            [*inside, "ctr", "-n", "k8s.io", "images", "import", str(archive)], capture_output=True, text=True
        )
        if done.returncode != 0:
            msg = f"{archive} cannot be loaded into {self.name}: {done.stderr.strip()[-400:]}"
            raise StateError(msg)

    def unplug(self) -> None:
        """Cut the node off the network."""
        network.set_link(self._layout, self._index, up=False)

    def plug(self) -> None:
        """Connect the node again."""
        network.set_link(self._layout, self._index, up=True)

    def signal_kubelet(self, number: signal.Signals) -> None:
        """Send a signal to the kubelet, for example SIGSTOP to freeze it."""
        import os

        os.kill(self.kubelet_pid(), number)

    def _cni(self) -> dict[str, Any]:
        ipam = {
            "type": "host-local",
            "ranges": [[{"subnet": self._layout.pod_range(self._index)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": "/run/cni-ipam",
        }
        bridge = {
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": True,
            "hairpinMode": True,
            "ipMasq": False,
            "ipam": ipam,
        }
        portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "1.0.0", "name": "rft", "plugins": [bridge, portmap]}

    def _kubelet(self) -> dict[str, Any]:
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self._layout.cgroup}/{self.name}",
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(self._layout.state / "pki" / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDNS": [self._layout.api_host],
            "clusterDomain": "cluster.local",
            "resolvConf": str(self._state / "resolv.conf"),
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%"},
            "imageGCHighThresholdPercent": 100,
            "nodeLeaseDurationSeconds": 8,
            "nodeStatusUpdateFrequency": "4s",
            "maxPods": 60,
            "readOnlyPort": 0,
        }

    def _proxy(self) -> dict[str, Any]:
        address = self._layout.node_address(self._index)
        return {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clientConnection": {"kubeconfig": str(self._layout.state / "pki" / "kube-proxy.kubeconfig")},
            "hostnameOverride": self.name,
            # The node's own range: traffic from the host is masqueraded, so that its answer comes back the same way.
            "clusterCIDR": self._layout.pod_range(self._index),
            "bindAddress": address,
            "healthzBindAddress": f"{address}:10256",
            "metricsBindAddress": f"{address}:10249",
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }


def _containerd() -> str:
    cri = '[plugins."io.containerd.grpc.v1.cri"'
    return (
        f"version = 2\n{cri}]\n  restrict_oom_score_adj = true\n"
        f'  sandbox_image = "{PAUSE}"\n  {cri}.cni]\n    bin_dir = "/usr/lib/cni"\n    conf_dir = "/etc/cni/net.d"\n'
    )


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in task.read_text().split()]
    return found
