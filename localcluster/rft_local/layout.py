"""Names, addresses and folders of one cluster, derived from its name and its number.

Invariant: two clusters with different numbers share no address, link, namespace or cgroup. All addresses lie in
198.18.0.0/15, which RFC 2544 sets aside for test networks.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from rft_local.errors import StateError

MOST_CLUSTERS = 16
MOST_NODES = 9
NETWORK = "198.18.0.0/15"
INSTANCE_TYPE = "rft-local"
GPU_PRODUCT = "Fake-H100"
GPU_RESOURCE = "nvidia.com/gpu"
EPHEMERAL_STORAGE = "ephemeral-storage"
FILE = "cluster.json"
_NAME = re.compile(r"[a-z0-9][-a-z0-9]{0,39}")
"""What ends a cluster removes the folder of its name, so no name may lead elsewhere."""


def api_address(number: int) -> str:
    """Return the address of the API server of the cluster with a number."""
    return f"198.18.{number * 16}.1"


def state_home() -> Path:
    """Return the folder of all clusters' state; absolute, since the parts of a cluster work in another folder."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base).absolute() if base else Path.home() / ".local" / "state") / "rft"


def state_of(name: str) -> Path:
    """Return the folder of a cluster's state; raises StateError for a name that would be another folder."""
    if not _NAME.fullmatch(name):
        msg = f"--name {name!r}: give up to 40 small letters, digits and '-', beginning with a letter or digit"
        raise StateError(msg)
    return state_home() / name


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One cluster."""

    name: str
    state: Path
    nodes: int
    gpus: int
    number: int
    """0..15; chooses addresses and names. A control plane alone uses 127.0.0.1 and no number."""
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    audit: bool = False
    """The API server writes down every request."""

    @property
    def base(self) -> int:
        """Third octet of the cluster's first network."""
        return self.number * 16

    @property
    def api_host(self) -> str:
        """Address of the API server and of the cluster's DNS."""
        return api_address(self.number) if self.nodes else "127.0.0.1"

    @property
    def api_url(self) -> str:
        """URL of the API server."""
        return f"https://{self.api_host}:{self.api_port}"

    @property
    def service_range(self) -> str:
        """Addresses of Services."""
        return f"198.19.{self.base}.0/20"

    @property
    def kubernetes_service(self) -> str:
        """Address of the Service ``kubernetes``."""
        return f"198.19.{self.base}.1"

    @property
    def bridge(self) -> str:
        """The host's bridge."""
        return f"rft{self.number}"

    @property
    def cgroup(self) -> str:
        """Root cgroup of all nodes."""
        return f"rft{self.number}"

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log: one audit.k8s.io/v1 Event a line."""
        return self.state / "log" / "audit.jsonl"

    def node_names(self) -> list[str]:
        """Return the nodes' names."""
        return [f"node-{index}" for index in range(1, self.nodes + 1)]

    def node_address(self, index: int) -> str:
        """Return a node's address."""
        return f"198.18.{self.base}.{10 + index}"

    def pod_range(self, index: int) -> str:
        """Return the addresses of a node's pods."""
        return f"198.18.{self.base + index}.0/24"

    def namespace(self, index: int) -> str:
        """Return the name of a node's network namespace."""
        return f"rft{self.number}-node-{index}"

    def link(self, index: int) -> str:
        """Return the host's end of a node's cable."""
        return f"rft{self.number}n{index}"

    @property
    def file(self) -> Path:
        """Where it is kept: what is in a folder with this file is a cluster's."""
        return self.state / FILE

    def save(self) -> None:
        """Write the layout into the state folder; raises StateError if another cluster's is there already."""
        raw = {**asdict(self), "state": str(self.state)}
        temporary = self.state / f"cluster.{os.getpid()}.tmp"
        try:
            temporary.write_text(json.dumps(raw, indent=1))
            self.file.hardlink_to(temporary)
        except FileExistsError:
            msg = f"cluster {self.name!r} is being started by somebody else ({self.state}); take another --name"
            raise StateError(msg) from None
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the state folder, its file last: a folder without it is no cluster's, and a new one would go on with
        the etcd that was left in it."""
        while self.state.exists():
            with contextlib.suppress(FileNotFoundError):  # somebody else removes it, too
                self._remove()

    def _remove(self) -> None:
        for each in self.state.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            elif each != self.file:
                each.unlink()
        self.file.unlink(missing_ok=True)
        self.state.rmdir()

    @classmethod
    def load(cls, state: Path) -> Layout:
        """Read a layout; raises StateError if there is no cluster."""
        file = state / FILE
        try:
            raw = json.loads(file.read_text())
            return cls(**{**raw, "state": Path(raw["state"])})
        except FileNotFoundError:
            msg = f"no cluster in {state}; start one with: rft local up"
            raise StateError(msg) from None
        except (ValueError, TypeError, KeyError) as error:
            msg = (
                f"{file} cannot be read ({error}): another version of rft wrote it, or it is damaged. End the cluster "
                f"with the version that started it, or end the processes in {state}/processes.json and remove {state}"
            )
            raise StateError(msg) from error


def index_of(node: str) -> int:
    """Return the index in a node's name; raises StateError for no such name."""
    head, _, tail = node.partition("-")
    if head != "node" or not tail.isdigit():
        msg = f"{node!r} is no node of this cluster; names are node-1, node-2, ..."
        raise StateError(msg)
    return int(tail)
