"""What the machine must offer: Linux, root, Debian's container packages.

Invariant: what is missing is installed, or named together with the way round it, before anything is started.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from rft_local.errors import NotSupportedHere, ToolMissing

OTHERWISE = "Or use any cluster you have: USE_EXISTING_CLUSTER=1 with your current kubeconfig (for example of kind)."
PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "sysctl": "procps",
    "busybox": "busybox-static",
}
CNI_FOLDER = Path("/usr/lib/cni")


def require_root_on_linux() -> None:
    """Raise NotSupportedHere unless nodes can be started on this machine."""
    if sys.platform != "linux":
        msg = f"the local cluster needs Linux (this is {sys.platform}): nodes are sets of Linux namespaces. {OTHERWISE}"
        raise NotSupportedHere(msg)
    if os.geteuid() != 0:
        msg = f"the local cluster needs root: it makes network namespaces and containers. Run it with sudo. {OTHERWISE}"
        raise NotSupportedHere(msg)


def missing_packages() -> list[str]:
    """Return the Debian packages whose programs are not there."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    wanted = {package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None}
    if not (CNI_FOLDER / "bridge").exists():
        wanted.add("containernetworking-plugins")
    return sorted(wanted)


def ensure_packages(say: Callable[[str], None]) -> None:
    """Install the missing Debian packages; raises ToolMissing with their names where that is not possible."""
    missing = missing_packages()
    if not missing:
        return
    names = " ".join(missing)
    if shutil.which("apt-get") is None:
        msg = f"programs are missing; install what Debian calls: {names}. {OTHERWISE}"
        raise ToolMissing(msg)
    say(f"installing Debian packages: {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    for argv in (["apt-get", "update", "-qq"], install):
        done = subprocess.run(argv, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            msg = f"{' '.join(argv)} failed: {done.stderr.strip()[-600:]}. Install these packages yourself: {names}."
            raise ToolMissing(msg)
    left = missing_packages()
    if left:
        msg = f"still missing after the installation: {' '.join(left)}"
        raise ToolMissing(msg)
