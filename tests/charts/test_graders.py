"""Independent graders of the chart and of the images: kubeconform, kube-score, checkov, hadolint."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from rft_local.tools import binary
from support.api_schemas import LOCATION, write_schemas
from support.checkov import checkov_python, failed_checks
from support.helm import APIS, ROOT, VALUES, Helm

pytestmark = pytest.mark.grader

HERE = Path(__file__).parent
VERSIONS = ("1.30.0", "1.37.0")
"""The oldest that the chart admits, and the newest with schemas."""
WEAKENED = {
    "openports-values.yaml": "The pod does not have a matching NetworkPolicy",
    "scheduling-values.yaml": "The container is running with a low user ID",
}
"""Features that give up a protection on purpose, and what kube-score must say to that."""
DEFAULT = "default.yaml"
FOREIGN = (
    *("PodMonitor", "PrometheusRule", "FinetuneBudget"),
    *("MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"),
)
"""Kinds that not every schema knows: the Prometheus operator's, and what a real API server judges in test_install."""
DOCKERFILES = ("operator/Dockerfile", "trainer_image/Dockerfile")


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Offline schemas for kubeconform."""
    folder = tmp_path_factory.mktemp("schemas")
    for version in VERSIONS:
        write_schemas(folder, version=version)
    return folder


@pytest.fixture(scope="session")
def renderings(helm_program: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The chart rendered once with the values of each feature, and once with none."""
    folder = tmp_path_factory.mktemp("renderings")
    helm = Helm(program=helm_program, home=folder)
    made = {}
    for name, values in {DEFAULT: (), **{file.name: (file,) for file in VALUES}}.items():
        made[name] = folder / name
        made[name].write_text(helm.template(*values, apis=APIS).stdout, encoding="utf-8")
    return made


def kubeconform(files: Iterable[Path], schemas: Path, version: str) -> subprocess.CompletedProcess[str]:
    argv = [str(binary("kubeconform")), "-strict", "-summary", "-output", "json", "-skip", ",".join(FOREIGN)]
    argv += ["-kubernetes-version", version, "-schema-location", f"{schemas}/{LOCATION}", *map(str, files)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120)


def critical_findings(file: Path) -> list[str]:
    argv = [str(binary("kube-score")), "score", "--output-format", "ci", str(file)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert "[OK]" in done.stdout, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("[CRITICAL]")]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_schemas_with_the_values_of_each_feature(
    renderings: dict[str, Path], schemas: Path, version: str
) -> None:
    files = [*renderings.values(), ROOT / "helm" / "rendered" / "rft-operator-local.yaml"]
    kinds = [each["kind"] for file in files for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if each]
    foreign = sum(kind in FOREIGN for kind in kinds)
    assert {kind for kind in kinds if kind in FOREIGN} == set(FOREIGN)
    done = kubeconform(files, schemas, version)
    assert done.returncode == 0, done.stdout
    summary = json.loads(done.stdout)["summary"]
    assert summary == {"valid": len(kinds) - foreign, "skipped": foreign, "invalid": 0, "errors": 0}


def test_kubeconform_sees_a_misspelt_field(renderings: dict[str, Path], schemas: Path, tmp_path: Path) -> None:
    text = renderings[DEFAULT].read_text(encoding="utf-8")
    file = tmp_path / "misspelt.yaml"
    file.write_text(text.replace("readinessProbe:", "readynessProbe:"), encoding="utf-8")
    done = kubeconform([file], schemas, VERSIONS[-1])
    assert done.returncode != 0
    assert "readynessProbe" in done.stdout


def test_kube_score_finds_nothing_critical_unless_a_feature_gives_up_a_protection(renderings: dict[str, Path]) -> None:
    found = {name: critical_findings(file) for name, file in renderings.items()}
    assert {name for name, findings in found.items() if findings} == set(WEAKENED), found
    for name, words in WEAKENED.items():
        assert any(words in finding for finding in found[name]), found[name]


@pytest.mark.slow
def test_checkov_finds_only_what_is_accepted_with_a_reason(renderings: dict[str, Path]) -> None:
    accepted = yaml.safe_load((HERE / "accepted-findings.yaml").read_text(encoding="utf-8"))
    assert len(accepted) <= 3
    assert all(len(reason.split()) >= 10 for reason in accepted.values())
    python = checkov_python(HERE / "checkov-requirements.txt")
    found = failed_checks(python, renderings[DEFAULT])
    assert set(found) == set(accepted), found


@pytest.mark.slow
def test_checkov_misses_the_digest_only_until_there_is_one(renderings: dict[str, Path]) -> None:
    python = checkov_python(HERE / "checkov-requirements.txt")
    found = failed_checks(python, renderings["digest-values.yaml"])
    assert set(found) == {"CKV_K8S_38"}, found


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_hadolint_finds_nothing(dockerfile: str) -> None:
    done = subprocess.run([_hadolint(), ROOT / dockerfile], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_sees_an_unpinned_base(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM debian\n", encoding="utf-8")
    done = subprocess.run([_hadolint(), tmp_path / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert "DL3006" in done.stdout


def _hadolint() -> Path:
    found = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    assert found is not None, "hadolint is missing: make setup"
    return Path(found)
