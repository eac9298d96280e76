"""Start, look at, break and end a local cluster.

Invariant: :meth:`Cluster.down` leaves no process, mount, namespace, link, route or cgroup of the cluster, whatever
state it finds it in; a start that fails takes down what it had started.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rft_local import addons, cgroups, host, network
from rft_local.control_plane import AGENT, API, CONTROLLERS, DNS, ETCD, SCHEDULER, ControlPlane
from rft_local.errors import LocalClusterError, StateError
from rft_local.images import host_folders, write_images
from rft_local.layout import FILE, MOST_NODES, Layout, index_of, state_of
from rft_local.node import Node
from rft_local.processes import Processes, wait_until
from rft_local.tools import ensure

READY_SECONDS = 120.0
PARTS = (AGENT, DNS, SCHEDULER, CONTROLLERS, API, ETCD)
FAULTS = (
    "kill-node",
    "start-node",
    "freeze-kubelet",
    "thaw-kubelet",
    "partition",
    "heal",
    "stop-apiserver",
    "start-apiserver",
)


def _to_stderr(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterOptions:
    """What to start."""

    name: str = "default"
    nodes: int = 2
    """0: the control plane alone, on 127.0.0.1."""
    gpus: int = 1
    """Fake GPUs of each node."""
    state: Path | None = None
    audit: bool = False
    """Let the API server write down who asked for what (Layout.audit_log)."""
    say: Callable[[str], None] = field(default=_to_stderr)


def start(options: ClusterOptions) -> Cluster:
    """Start a cluster and return it once its nodes are Ready; raises LocalClusterError."""
    state = options.state or state_of(options.name)
    _refuse_twin(state, options.name)
    if not 0 <= options.nodes <= MOST_NODES:
        msg = f"--nodes {options.nodes}: give a number from 0 to {MOST_NODES}"
        raise StateError(msg)
    if options.gpus < 0:
        msg = f"--gpus {options.gpus}: a node cannot have fewer than none"
        raise StateError(msg)
    if options.nodes:
        host.require_root_on_linux()
        host.ensure_packages(options.say)
    for family in ("etcd", "kubernetes", *(("coredns",) if options.nodes else ())):
        ensure(family, say=options.say)
    cluster = _claim(options, state)
    try:
        cluster.bring_up()
    except (LocalClusterError, subprocess.CalledProcessError, OSError, KeyboardInterrupt):
        _keep_logs(state, options.say)
        cluster.down()
        raise
    return cluster


def _claim(options: ClusterOptions, state: Path) -> Cluster:
    """Take name and number; what is not taken whole is given back."""
    state.mkdir(parents=True, exist_ok=True)
    layout = _new_layout(options, state)
    try:
        layout.save()
    except (LocalClusterError, OSError):
        if layout.nodes:
            network.disconnect(layout)
        raise
    return Cluster(layout, say=options.say)


def _keep_logs(state: Path, say: Callable[[str], None]) -> None:
    keep = state.with_name(f"{state.name}.failed-logs")
    shutil.rmtree(keep, ignore_errors=True)
    try:
        shutil.copytree(state / "log", keep, dirs_exist_ok=True)
    except OSError as error:  # a full disk, which may be why the start failed, too
        say(f"the start failed; its logs cannot be kept ({error})")
    else:
        say(f"the start failed; logs are kept in {keep}")


def _refuse_twin(state: Path, name: str) -> None:
    if not (state / FILE).exists():
        return
    if Cluster.load(state).running():
        msg = f"cluster {name!r} runs already ({state}); end it (rft local down --name {name}) or take another --name"
    else:
        msg = f"remains of cluster {name!r} are in {state}; remove them with: rft local down --name {name}"
    raise StateError(msg)


def _new_layout(options: ClusterOptions, state: Path) -> Layout:
    ports = _free_ports(3)
    return Layout(
        name=options.name,
        state=state,
        nodes=options.nodes,
        gpus=options.gpus,
        number=network.claim_number(state) if options.nodes else 0,
        api_port=6443 if options.nodes else ports[0],
        etcd_port=ports[1],
        etcd_peer_port=ports[2],
        audit=options.audit,
    )


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Cluster:
    """A cluster on this machine."""

    def __init__(self, layout: Layout, *, say: Callable[[str], None] = _to_stderr) -> None:
        self.layout = layout
        self.processes = Processes(layout.state)
        self.control_plane = ControlPlane(layout, self.processes, say)
        self.nodes = [Node(layout, self.processes, index) for index in range(1, layout.nodes + 1)]
        self._say = say

    @classmethod
    def load(cls, state: Path) -> Cluster:
        """Return the cluster of a state folder; raises StateError if there is none."""
        return cls(Layout.load(state))

    @classmethod
    def named(cls, name: str) -> Cluster:
        """Return a cluster by name; raises StateError if there is none."""
        return cls.load(state_of(name))

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig."""
        return self.layout.kubeconfig

    def running(self) -> bool:
        """Return whether any of its processes runs."""
        return any(self.processes.alive(name) for name in self.processes.records())

    def bring_up(self) -> None:
        """Start everything and wait until it works."""
        began = time.monotonic()
        layout = self.layout
        if layout.nodes:
            network.connect(layout)
            cgroups.create(layout.cgroup, layout.node_names())
            write_images(layout.state / "images")
        self.control_plane.prepare()
        self.control_plane.start()
        folders = host_folders()
        self.control_plane.apply(addons.manifests(folders, nodes=bool(layout.nodes)))
        self.processes.start(
            AGENT,
            [
                *(sys.executable, "-m", "rft_local.agent"),
                *("--kubeconfig", self.kubeconfig),
                *("--volumes", layout.state / "volumes"),
                *("--gpus", str(layout.gpus)),
            ],
        )
        for node in self.nodes:
            node.prepare()
            node.start()
        self._wait_ready()
        self._say(f"cluster {layout.name!r} is up after {time.monotonic() - began:.1f} s: {self.describe()}")

    def describe(self) -> str:
        """Return what the cluster is, in a line."""
        if not self.layout.nodes:
            return f"control plane at {self.layout.api_url}"
        return f"{self.layout.nodes} nodes with {self.layout.gpus} fake GPU each, API at {self.layout.api_url}"

    def _wait_ready(self) -> None:
        kubectl = self.control_plane.kubectl
        wait_until(
            lambda: kubectl("get", "serviceaccount", "default", check=False).returncode == 0,
            what="the default service account",
            seconds=READY_SECONDS,
            hint=lambda: self.processes.tail(CONTROLLERS),
        )
        if not self.nodes:
            return
        wait_until(
            lambda: self.ready_nodes() == len(self.nodes),
            what=f"{len(self.nodes)} nodes to be Ready",
            seconds=READY_SECONDS,
            hint=self._node_hint,
        )
        wait_until(self._policy_acts, what="the admission policy", seconds=30)

    def ready_nodes(self) -> int:
        """Return how many nodes are Ready and have their GPUs."""
        done = self.control_plane.kubectl("get", "nodes", "-o", "json", check=False)
        if done.returncode != 0:
            return 0
        return sum(_is_ready(node) for node in json.loads(done.stdout)["items"])

    def _node_hint(self) -> str:
        log = self.layout.state / "node-1" / "log" / "kubelet.log"
        text = log.read_text(errors="replace") if log.exists() else self.processes.tail("node-1")
        return f"log {log}:\n" + "\n".join(text.splitlines()[-8:])

    def _policy_acts(self) -> bool:
        """A new policy takes half a second to act; a pod made before would start without its mounts."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "rft-probe"},
            "spec": {"containers": [{"name": "probe", "image": "rft.local/trainer:dev"}]},
        }
        arguments = ("create", "--dry-run=server", "-o", "json", "-f", "-")
        done = self.control_plane.kubectl(*arguments, stdin=json.dumps(pod), check=False)
        return done.returncode == 0 and "rft-host-0" in done.stdout

    def load_image(self, archive: Path) -> None:
        """Put the images of a docker archive (``docker save``) into every node; raises StateError."""
        if not archive.is_file():
            msg = f"{archive} is no file; make one with: docker save -o FILE IMAGE, or: make images"
            raise StateError(msg)
        if not self.nodes:
            msg = "the cluster has no nodes that could run images"
            raise StateError(msg)
        for node in self.nodes:
            node.load_image(archive.resolve())

    def status(self) -> list[tuple[str, str, str]]:
        """Return (part, state, pid) of everything."""
        rows = []
        names = [name for name in reversed(PARTS) if name in self.processes.records()]
        for name in [*names, *(node.name for node in self.nodes)]:
            pid = self.processes.pid(name)
            rows.append((name, "running" if pid is not None else "stopped", str(pid or "")))
        return rows

    def fault(self, kind: str, node: str | None = None) -> None:
        """Break or mend something; raises StateError for an unknown fault or node."""
        if kind == "stop-apiserver":
            self.processes.kill(API)
        elif kind == "start-apiserver":
            if self.processes.alive(API):
                msg = "the API server runs already"
                raise StateError(msg)
            self.control_plane.start_api_server()
        elif kind in FAULTS:
            self._node_fault(kind, self._node(node))
        else:
            msg = f"{kind!r} is no fault; known are {', '.join(FAULTS)}"
            raise StateError(msg)

    def _node(self, name: str | None) -> Node:
        if name is None:
            msg = "this fault needs a node, for example node-1"
            raise StateError(msg)
        index = index_of(name)
        if not 1 <= index <= len(self.nodes):
            msg = f"{name!r}: the cluster has {', '.join(self.layout.node_names()) or 'no nodes'}"
            raise StateError(msg)
        return self.nodes[index - 1]

    def _node_fault(self, kind: str, node: Node) -> None:
        actions: dict[str, Callable[[], None]] = {
            "kill-node": node.power_off,
            "start-node": node.start,
            "freeze-kubelet": lambda: node.signal_kubelet(signal.SIGSTOP),
            "thaw-kubelet": lambda: node.signal_kubelet(signal.SIGCONT),
            "partition": node.unplug,
            "heal": node.plug,
        }
        if kind == "start-node" and self.processes.alive(node.name):
            msg = f"{node.name} runs already"
            raise StateError(msg)
        actions[kind]()

    def down(self) -> None:
        """End everything and remove every trace."""
        layout = self.layout
        for name in (*layout.node_names(), *PARTS):
            self.processes.kill(name)
        if layout.nodes and network.has_its_number(layout):
            cgroups.remove(layout.cgroup)
            network.disconnect(layout)
        layout.remove()


def _is_ready(node: dict[str, object]) -> bool:
    status = node["status"]
    assert isinstance(status, dict)
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions", ()))
    return ready and "nvidia.com/gpu" in status.get("allocatable", {})
