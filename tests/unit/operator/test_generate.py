"""Generated files are what the code says, and a stale one is named."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
KINDS = {
    "crds/rft.dev_reasoningfinetunes.yaml",
    "helm/rft-operator/files/rft.dev_finetunebudgets.yaml",
    "helm/rft-operator/files/dashboards/rft-run.json",
    "helm/rft-operator/README.md",
    "docs/reference/api.md",
    "docs/reference/cli.md",
    "docs/reference/metrics.md",
}
"""A file of each generator, and of each place."""


def generate(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(root / "hack" / "generate.py"), *arguments]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The generators and what they write, away from the repository."""
    for folder in ("hack", "crds", "helm/rft-operator", "docs/reference"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def test_committed_files_are_the_generated_ones() -> None:
    done = generate(ROOT, "--check")
    assert done.returncode == 0, done.stderr


def test_check_names_each_stale_file_and_writes_none_and_generate_mends_them(copy: Path) -> None:
    committed = {name: (copy / name).read_text(encoding="utf-8") for name in KINDS}
    for name, text in committed.items():
        changed = (
            text.replace("| `replicaCount` |", "| `replicas` |") if name.endswith("README.md") else f"{text}# by hand\n"
        )
        assert changed != text
        (copy / name).write_text(changed, encoding="utf-8")
    (copy / "docs/reference/cli.md").unlink()
    checked = generate(copy, "--check")
    assert checked.returncode == 1
    named = {line.removeprefix("error: ").split(" differs ")[0] for line in checked.stderr.splitlines()}
    assert named == KINDS
    assert "run: make generate" in checked.stderr
    assert not (copy / "docs/reference/cli.md").exists()
    assert generate(copy).returncode == 0
    assert {name: (copy / name).read_text(encoding="utf-8") for name in KINDS} == committed


def test_generate_refuses_an_option_that_it_does_not_know() -> None:
    done = generate(ROOT, "--dry-run")
    assert done.returncode == 2
    assert "--dry-run: the only option is --check" in done.stderr
