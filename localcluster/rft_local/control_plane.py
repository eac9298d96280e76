"""etcd, kube-apiserver, kube-controller-manager, kube-scheduler and CoreDNS as processes of this machine.

Flags and their reasons: docs/local-cluster.md. Invariant: every listener is on 127.0.0.1 or on the cluster's bridge.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rft_local.errors import StartError
from rft_local.layout import Layout
from rft_local.pki import Authority
from rft_local.processes import Processes, wait_until
from rft_local.proxy import direct
from rft_local.tools import binary

ETCD, API, CONTROLLERS, SCHEDULER, DNS, AGENT = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "coredns",
    "agent",
)
START_SECONDS = 60.0
COLLECT_LESS = {"GOGC": os.environ.get("GOGC", "400")}
"""Go's collector takes a fifth of the API server's processor time at its own default (100); memory is cheaper here."""


class ControlPlane:
    """Starts the parts of one cluster's control plane."""

    def __init__(self, layout: Layout, processes: Processes, say: Callable[[str], None]) -> None:
        self._layout = layout
        self._processes = processes
        self._say = say
        self._pki = layout.state / "pki"

    def prepare(self) -> None:
        """Write certificates, tokens and kubeconfigs."""
        layout = self._layout
        authority = Authority(self._pki)
        names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        hosts = [layout.api_host, "127.0.0.1", layout.kubernetes_service, "localhost", *names]
        authority.issue("apiserver", common_name="kube-apiserver", hosts=hosts)
        authority.issue("kubelet-client", common_name="kubelet-client", organisation="system:masters")
        authority.service_account_key()
        users = {
            "admin": ("admin", "system:masters"),
            CONTROLLERS: ("system:kube-controller-manager", ""),
            SCHEDULER: ("system:kube-scheduler", ""),
            "kube-proxy": ("system:kube-proxy", ""),
            DNS: ("system:coredns", ""),
            **{node: (f"system:node:{node}", "system:nodes") for node in layout.node_names()},
        }
        lines = []
        for file, (user, group) in users.items():
            token = secrets.token_hex(16)
            lines.append(f"{token},{user},{file},{group}\n")
            self._write_kubeconfig(self.kubeconfig(file), token)
        tokens = self._pki / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text("".join(lines))

    def kubeconfig(self, user: str) -> Path:
        """Return the path of a user's kubeconfig."""
        return self._layout.kubeconfig if user == "admin" else self._pki / f"{user}.kubeconfig"

    def _write_kubeconfig(self, path: Path, token: str) -> None:
        cluster = {"server": self._layout.api_url, "certificate-authority": str(self._pki / "ca.crt")}
        name = f"rft-{self._layout.name}"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
        path.touch(mode=0o600)
        path.write_text(json.dumps(content, indent=1))

    def start(self) -> None:
        """Start etcd and the API server, wait until it is ready, then start the controllers."""
        self.start_etcd()
        self.start_api_server()
        layout = self._layout
        common = ["--leader-elect=false", "--secure-port=0", "--kube-api-qps=200", "--kube-api-burst=400"]
        self._processes.start(
            CONTROLLERS,
            [
                binary(CONTROLLERS),
                f"--kubeconfig={self.kubeconfig(CONTROLLERS)}",
                f"--service-account-private-key-file={self._pki / 'sa.key'}",
                f"--root-ca-file={self._pki / 'ca.crt'}",
                "--use-service-account-credentials",
                "--node-monitor-period=2s",
                "--node-monitor-grace-period=12s",
                *common,
            ],
        )
        self._processes.start(SCHEDULER, [binary(SCHEDULER), f"--kubeconfig={self.kubeconfig(SCHEDULER)}", *common])
        if layout.nodes:
            self._start_dns()

    def start_etcd(self) -> None:
        """Start etcd; its data need not survive a power loss, so it does not sync."""
        layout = self._layout
        client = f"http://127.0.0.1:{layout.etcd_port}"
        peer = f"http://127.0.0.1:{layout.etcd_peer_port}"
        self._processes.start(
            ETCD,
            [
                binary("etcd"),
                f"--data-dir={layout.state / 'etcd'}",
                "--unsafe-no-fsync",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--log-level=error",
            ],
        )

    def start_api_server(self) -> None:
        """Start the API server and wait until it is ready."""
        layout, pki = self._layout, self._pki
        self._processes.start(
            API,
            [
                binary(API),
                f"--etcd-servers=http://127.0.0.1:{layout.etcd_port}",
                f"--secure-port={layout.api_port}",
                f"--bind-address={layout.api_host}",
                f"--advertise-address={layout.api_host}",
                f"--service-cluster-ip-range={layout.service_range}",
                f"--tls-cert-file={pki / 'apiserver.crt'}",
                f"--tls-private-key-file={pki / 'apiserver.key'}",
                f"--client-ca-file={pki / 'ca.crt'}",
                f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
                f"--kubelet-client-key={pki / 'kubelet-client.key'}",
                "--kubelet-preferred-address-types=InternalIP",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={pki / 'sa.key'}",
                f"--service-account-signing-key-file={pki / 'sa.key'}",
                f"--token-auth-file={pki / 'tokens.csv'}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged",
                "--default-not-ready-toleration-seconds=10",
                "--default-unreachable-toleration-seconds=10",
                f"--cert-dir={layout.state / 'apiserver'}",
                *self._audit(),
            ],
            environment=COLLECT_LESS,
        )
        self._wait_for_api_server()

    def _wait_for_api_server(self) -> None:
        said = ""

        def ready() -> bool:
            nonlocal said
            for part in (ETCD, API):
                if not self._processes.alive(part):
                    raise StartError(f"{part} has ended. {self._processes.tail(part)}")
            done = self.kubectl("get", "--raw", "/readyz", check=False)
            said = done.stderr.strip()[-600:]
            return done.returncode == 0

        wait_until(
            ready,
            what="the API server",
            seconds=START_SECONDS,
            hint=lambda: f"kubectl said last: {said}\n{self._processes.tail(API)}",
        )

    def _audit(self) -> list[str]:
        """Return the flags of the audit log; requests are written once, when they were answered."""
        if not self._layout.audit:
            return []
        policy = self._layout.state / "audit-policy.json"
        stages = ["RequestReceived", "ResponseStarted"]
        rule = {"level": "Metadata", "omitStages": stages}
        kind = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy"}
        policy.write_text(json.dumps({**kind, "rules": [rule]}))
        return [f"--audit-policy-file={policy}", f"--audit-log-path={self._layout.audit_log}"]

    def _start_dns(self) -> None:
        layout = self._layout
        host = layout.api_host
        records = f'kubeconfig "{self.kubeconfig(DNS)}"\n    pods insecure\n    ttl 5'  # a home may have a space
        plugin = f"kubernetes cluster.local in-addr.arpa {{\n    {records}\n  }}"
        lines = [f"bind {host}", "errors", f"ready {host}:8181", plugin, "cache 5"]
        corefile = layout.state / "Corefile"
        corefile.write_text(".:53 {\n" + "".join(f"  {line}\n" for line in lines) + "}\n")
        self._processes.start(DNS, [binary("coredns"), "-conf", corefile])

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the admin; raises CalledProcessError unless ``check`` is false."""
        return subprocess.run(
            [binary("kubectl"), "--kubeconfig", self._layout.kubeconfig, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=check,
            env=direct(os.environ),
        )

    def apply(self, manifests: Sequence[Mapping[str, Any]]) -> None:
        """Apply objects as the admin."""
        document = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        self.kubectl("apply", "--server-side", "--field-manager=rft-local", "-f", "-", stdin=document)
