"""Bridge, cables and network namespaces: what `ip` sets up for a cluster, and its removal.

Invariant: everything made here carries the cluster's number in its name, the bridge says whose the number is, and
removing it touches nothing else. Nodes are entered with nsenter, never with `ip netns exec`, which hides the cgroup
mounts.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

from rft_local.errors import NotSupportedHere, StartError, StateError
from rft_local.host import OTHERWISE
from rft_local.layout import MOST_CLUSTERS, Layout

NAMESPACES = Path("/run/netns")


def ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ip; raises StartError with its words."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if check and done.returncode != 0:
        msg = f"ip {' '.join(arguments)}: {done.stderr.strip()}"
        raise StartError(msg)
    return done


def claim_number(state: Path) -> int:
    """Make the bridge of the first free cluster number and return the number: making it is the claim."""
    for number in range(MOST_CLUSTERS):
        done = ip("link", "add", f"rft{number}", "type", "bridge", check=False)
        if done.returncode == 0:
            ip("link", "set", f"rft{number}", "alias", _mark(state))
            return number
        if "File exists" not in done.stderr:
            msg = f"this machine lets no bridge be made (ip link add rft{number} type bridge: {done.stderr.strip()})"
            raise NotSupportedHere(f"{msg}. {OTHERWISE}")
    msg = f"{MOST_CLUSTERS} clusters exist already (links rft0 to rft{MOST_CLUSTERS - 1}); end one with: rft local down"
    raise StateError(msg)


def has_its_number(layout: Layout) -> bool:
    """Return whether a cluster's number is its own still: after a restart of the machine another one may have it."""
    done = ip("-j", "link", "show", layout.bridge, check=False)
    found = json.loads(done.stdout)[0].get("ifalias") if done.returncode == 0 else None
    return found is None or found == _mark(layout.state)


def _mark(state: Path) -> str:
    """Return what a bridge says of whose it is; the kernel keeps 255 bytes."""
    return hashlib.sha256(str(state).encode()).hexdigest()


def connect(layout: Layout) -> None:
    """Give the bridge its address and connect every node to it."""
    ip("addr", "add", f"{layout.api_host}/24", "dev", layout.bridge)
    ip("link", "set", layout.bridge, "up")
    for index in range(1, layout.nodes + 1):
        _connect_node(layout, index)
    # From the host, Services are reached through the first node's kube-proxy.
    ip("route", "add", layout.service_range, "via", layout.node_address(1))


def _connect_node(layout: Layout, index: int) -> None:
    namespace, link, address = layout.namespace(index), layout.link(index), layout.node_address(index)
    ip("netns", "add", namespace)
    ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
    ip("link", "set", link, "master", layout.bridge, "up")
    inside = ("-n", namespace)
    ip(*inside, "link", "set", "lo", "up")
    ip(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
    ip(*inside, "link", "set", "eth0", "up")
    ip(*inside, "route", "add", "default", "via", layout.api_host)
    for other in range(1, layout.nodes + 1):
        if other != index:
            ip(*inside, "route", "add", layout.pod_range(other), "via", layout.node_address(other))
    ip("route", "add", layout.pod_range(index), "via", address)


def set_link(layout: Layout, index: int, *, up: bool) -> None:
    """Plug a node's cable in or out."""
    ip("link", "set", layout.link(index), "up" if up else "down")


def disconnect(layout: Layout) -> None:
    """Remove namespaces, cables, bridge and routes."""
    for index in range(1, layout.nodes + 1):
        if (NAMESPACES / layout.namespace(index)).exists():
            ip("netns", "del", layout.namespace(index), check=False)
        ip("link", "del", layout.link(index), check=False)
    ip("link", "del", layout.bridge, check=False)
