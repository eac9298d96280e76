"""Helm as a user runs it, without a trace in the user's own folders."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "rft-operator"
VALUES = sorted((CHART / "ci").glob("*-values.yaml"))
"""A values file for each feature."""
RELEASE = "rft-operator"
NAMESPACE = "rft-system"
APIS = (
    "monitoring.coreos.com/v1/PodMonitor",
    "monitoring.coreos.com/v1/PrometheusRule",
    "rft.dev/v1alpha1/FinetuneBudget",
    "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy",
)
"""What a cluster must know for some features."""
HOOK = "helm.sh/hook"

Manifest = dict[str, Any]
_RENDERED: dict[str, list[Manifest]] = {}
"""The chart does not change while tests run: what was rendered once is not rendered again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Helm:
    """The program, with a folder for its files and the cluster it works on (None: no cluster at all)."""

    program: Path
    home: Path
    kubeconfig: Path | None = None

    def run(self, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Helm in the chart's namespace."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))},
            **{f"HELM_{kind}_HOME": str(self.home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")},
            "KUBECONFIG": str(self.kubeconfig or self.home / "no-cluster"),
            "HELM_NAMESPACE": NAMESPACE,
        }
        done = subprocess.run([self.program, *arguments], env=environment, capture_output=True, text=True, timeout=180)
        assert not check or done.returncode == 0, f"helm {arguments}: {done.stderr}"
        return done

    def template(
        self, *values: Path, more: Manifest | None = None, apis: Sequence[str] = (), check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Render the chart with values files and with further values."""
        arguments: list[str | Path] = ["template", RELEASE, CHART]
        for file in values:
            arguments += ["--values", file]
        if more is not None:
            written = self.home / "values.yaml"
            written.write_text(yaml.safe_dump(more), encoding="utf-8")
            arguments += ["--values", written]
        for api in apis:
            arguments += ["--api-versions", api]
        return self.run(*arguments, check=check)

    def everything(self, *values: Path, more: Manifest | None = None) -> list[Manifest]:
        """Return the rendered objects, in a cluster that knows the Prometheus operator; hooks among them."""
        key = json.dumps([[str(file) for file in values], more])
        if key not in _RENDERED:
            text = self.template(*values, more=more, apis=APIS).stdout
            _RENDERED[key] = [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]
        return copy.deepcopy(_RENDERED[key])

    def objects(self, *values: Path, more: Manifest | None = None) -> list[Manifest]:
        """Return what is installed and stays."""
        return [each for each in self.everything(*values, more=more) if not is_hook(each)]

    def hooks(self, *values: Path, more: Manifest | None = None) -> list[Manifest]:
        """Return what is made for a moment: before an uninstall, for a test."""
        return [each for each in self.everything(*values, more=more) if is_hook(each)]


def is_hook(manifest: Manifest) -> bool:
    """Tell whether Helm makes an object at a certain moment only."""
    return HOOK in manifest["metadata"].get("annotations", {})


def the(objects: Sequence[Manifest], kind: str, name: str | None = None) -> Manifest:
    """Return the only object of a kind (and name)."""
    found = [each for each in objects if each["kind"] == kind and name in (None, each["metadata"]["name"])]
    assert len(found) == 1, f"{kind} {name or ''}: {[each['metadata']['name'] for each in found]}"
    return found[0]


def kinds(objects: Sequence[Manifest]) -> list[str]:
    """Return the kinds of all objects, sorted."""
    return sorted(each["kind"] for each in objects)


def pod_of(objects: Sequence[Manifest]) -> Manifest:
    """Return the template of the operator's pods."""
    return cast("Manifest", the(objects, "Deployment")["spec"]["template"])


def container_of(objects: Sequence[Manifest]) -> Manifest:
    """Return the operator's container."""
    return cast("Manifest", pod_of(objects)["spec"]["containers"][0])


def older_chart(folder: Path) -> Path:
    """Return a copy of the chart as if of an older version: its CRD lacks a column."""
    chart = folder / "older"
    shutil.copytree(CHART, chart)
    file = chart / "files" / "rft.dev_reasoningfinetunes.yaml"
    crd = yaml.safe_load(file.read_text(encoding="utf-8"))
    del crd["spec"]["versions"][0]["additionalPrinterColumns"][1]
    file.write_text(yaml.safe_dump(crd), encoding="utf-8")
    about = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    (chart / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "0.0.9", "appVersion": "0.0.9"}))
    return chart
