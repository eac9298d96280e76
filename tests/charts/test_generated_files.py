"""The files made from others are up to date: the chart's CRDs, the committed rendering, the table of values."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import yaml

from support.helm import CHART, NAMESPACE, ROOT, Helm


def test_crds_are_the_generated_ones_and_are_kept(helm: Helm) -> None:
    rendered = [each for each in helm.objects() if each["kind"] == "CustomResourceDefinition"]
    crds = {each["metadata"]["name"]: each for each in rendered}
    generated = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "crds").iterdir()]
    assert sorted(crds) == sorted(each["metadata"]["name"] for each in generated)
    for each in generated:
        crd = crds[each["metadata"]["name"]]
        assert crd["spec"] == each["spec"]
        assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_committed_rendering_is_that_of_the_chart(helm: Helm) -> None:
    environment = {**os.environ, "HELM": str(helm.program)}
    done = subprocess.run([ROOT / "hack" / "render.sh", "--check"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_committed_rendering_makes_its_namespace_first_and_the_crds_before_the_operator() -> None:
    text = (ROOT / "helm" / "rendered" / "rft-operator-local.yaml").read_text(encoding="utf-8")
    order = [each["kind"] for each in yaml.safe_load_all(text) if each]
    assert order[0] == "Namespace"
    assert order.count("CustomResourceDefinition") == 2
    assert max(place for place, kind in enumerate(order) if kind == "CustomResourceDefinition") < order.index(
        "Deployment"
    )
    namespace = next(yaml.safe_load_all(text))["metadata"]
    assert namespace["name"] == NAMESPACE
    assert namespace["labels"] == {"pod-security.kubernetes.io/enforce": "privileged"}


def test_readme_describes_every_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    text = (CHART / "README.md").read_text(encoding="utf-8")
    described = re.findall(r"^\| `([A-Za-z.]+)` \|[^|]*\|[^|]*\|$", text, flags=re.MULTILINE)
    opaque = {"resources", "podSecurityContext", "securityContext"}
    leaves = set(_leaves(values, opaque=opaque))
    assert set(described) == leaves
    assert len(described) == len(set(described))


def _leaves(values: dict[str, Any], *, opaque: set[str], prefix: str = "") -> Iterator[str]:
    parts = [
        _leaves(value, opaque=opaque, prefix=f"{prefix}{key}.")
        if isinstance(value, dict) and value and key not in opaque
        else iter([f"{prefix}{key}"])
        for key, value in values.items()
    ]
    return itertools.chain.from_iterable(parts)
