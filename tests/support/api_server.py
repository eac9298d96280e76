"""A real API server for tests: the embedded control plane alone, or the cluster of the current kubeconfig.

Invariant: what a test session starts or installs is gone when it ends, also when a test or the set-up fails.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio import client, config

from rft_local.cluster import ClusterOptions, start
from rft_local.processes import wait_until
from rft_local.tools import binary
from rft_operator.api import BUDGET_PLURAL, GROUP, PLURAL

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT / "crds"
CRD = f"{PLURAL}.{GROUP}"
BUDGET_CRD = f"{BUDGET_PLURAL}.{GROUP}"
EVERY_CRD = (CRD, BUDGET_CRD)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServer:
    """Where the API server is and how to talk to it."""

    kubeconfig: Path | None
    """None: the current kubeconfig (KUBECONFIG, else ~/.kube/config)."""
    program: Path

    async def configuration(self) -> client.Configuration:
        """Return a configuration for a client of ``kubernetes.aio``."""
        configuration = client.Configuration()
        file = None if self.kubeconfig is None else str(self.kubeconfig)
        await config.load_kube_config(config_file=file, client_configuration=configuration)
        configuration.retries = None
        return configuration

    def kubectl(
        self, *arguments: str | Path, manifest: Mapping[str, Any] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as a user would; ``manifest`` goes to its standard input (``-f -``)."""
        where = () if self.kubeconfig is None else ("--kubeconfig", self.kubeconfig)
        done = subprocess.run(
            [self.program, *where, *arguments],
            input=None if manifest is None else json.dumps(manifest),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, f"kubectl {arguments}: {done.stderr}"
        return done

    def create(self, manifest: Mapping[str, Any]) -> None:
        """Create an object."""
        self.kubectl("create", "-f", "-", manifest=manifest)


@contextlib.contextmanager
def api_server(state: Path) -> Iterator[ApiServer]:
    """Give an API server that serves this checkout's CRDs."""
    with contextlib.nullcontext(existing_server()) if uses_existing_cluster() else _embedded(state) as server:
        before = server.kubectl("get", "crd", *EVERY_CRD, "--ignore-not-found", "-o", "name").stdout.strip()
        try:
            install_crds(server)
            yield server
        finally:
            if not before:
                server.kubectl("delete", "crd", *EVERY_CRD, "--wait=false")


def install_crds(server: ApiServer) -> None:
    """Apply this checkout's CRDs and wait until they are served."""
    server.kubectl("apply", "--server-side", "--force-conflicts", "-f", CRDS)
    # `kubectl wait` fails while a CRD has no conditions yet; that the kinds are served is what tests need.
    wait_until(lambda: _served(server), what=f"{EVERY_CRD} to be served", seconds=30)


def forget_crds(server: ApiServer, *what: str) -> None:
    """Delete CRDs, by name or by ``-l selector``, and wait until they are gone.

    The API server's finalizer drops a Conflict with another of its controllers (apiextensions-apiserver,
    crd_finalizer.go) and looks again only minutes later; any change of the CRD makes it look at once.
    """
    server.kubectl("delete", "crd", *what, "--ignore-not-found", "--wait=false")
    looks = itertools.count(1)

    def gone() -> bool:
        left = server.kubectl("get", "crd", *what, "--ignore-not-found", "-o", "name").stdout.split()
        if left and (look := next(looks)) % 20 == 0:
            server.kubectl("annotate", *left, f"rft.dev/look={look}", "--overwrite", check=False)
        return not left

    wait_until(gone, what="the CRDs to be gone", seconds=180)


def _served(server: ApiServer) -> bool:
    return all(server.kubectl("get", name, "-n", "default", check=False).returncode == 0 for name in EVERY_CRD)


@contextlib.contextmanager
def _embedded(state: Path) -> Iterator[ApiServer]:
    cluster = start(ClusterOptions(name=f"test-{uuid.uuid4().hex[:8]}", nodes=0, state=state))
    try:
        yield ApiServer(kubeconfig=cluster.kubeconfig, program=binary("kubectl"))
    finally:
        cluster.down()


def uses_existing_cluster() -> bool:
    """Return whether tests run against the cluster of the current kubeconfig."""
    return os.environ.get("USE_EXISTING_CLUSTER") == "1"


def existing_server() -> ApiServer:
    """Return the API server of the current kubeconfig."""
    found = shutil.which("kubectl")
    return ApiServer(kubeconfig=None, program=Path(found) if found else binary("kubectl"))
