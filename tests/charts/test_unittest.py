"""The unit tests in helm/rft-operator/tests, by helm-unittest: quick to run and to write for who edits a template."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from rft_local.tools import binary
from support.helm import CHART

pytestmark = pytest.mark.grader

SUITES = sorted((CHART / "tests").glob("*_test.yaml"))


@pytest.fixture(scope="session")
def program() -> Path:
    """helm-unittest, built once."""
    return binary("helm-unittest")


def run(program: Path, suite: Path | str, home: Path) -> subprocess.CompletedProcess[str]:
    argv = [str(program), "--strict", "--file", str(suite), str(CHART)]
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=120)


def test_every_suite_passes(program: Path, tmp_path: Path) -> None:
    done = run(program, "tests/*_test.yaml", tmp_path)
    assert done.returncode == 0, done.stdout
    assert f"Test Suites: {len(SUITES)} passed, {len(SUITES)} total" in done.stdout


def test_suite_fails_when_the_chart_is_not_as_it_says(program: Path, tmp_path: Path) -> None:
    suite = tmp_path / "wrong_test.yaml"
    suite.write_text(
        "suite: wrong\ntemplates: [deployment.yaml]\n"
        "tests: [{it: runs three, asserts: [{equal: {path: spec.replicas, value: 3}}]}]\n",
        encoding="utf-8",
    )
    done = run(program, suite, tmp_path)
    assert done.returncode != 0
    assert "spec.replicas" in done.stdout


def test_every_template_has_a_test() -> None:
    text = "\n".join(suite.read_text(encoding="utf-8") for suite in SUITES)
    templates = {
        path.relative_to(CHART / "templates").as_posix() for path in (CHART / "templates").rglob("*.yaml")
    } - UNTESTED
    assert {name for name in templates if name not in text} == set()


UNTESTED = {"service.yaml"}
"""It has no condition; tests of the rendering look at it."""
