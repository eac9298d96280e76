"""``rft local`` from the arguments to the exit code: what cannot be carried out is words and 2, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from rft_local.cli import local


def _never(*_: object, **__: object) -> None:
    raise AssertionError("a cluster would be started")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody's clusters are touched, and none is started should a check be missing."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for step in ("host.require_root_on_linux", "ensure"):
        monkeypatch.setattr(f"rft_local.cluster.{step}", _never)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["status"], "start one with: rft local up"),
        (["down"], "start one with: rft local up"),
        (["kubeconfig", "--name", "other"], "no cluster in"),
        (["fault", "kill-node", "node-1"], "no cluster in"),
        (["load", "images.tar"], "no cluster in"),
        (["down", "--name", ""], "--name ''"),
        (["up", "--name", "../other"], "--name '../other'"),
        (["up", "--nodes", "10"], "--nodes 10: give a number from 0 to 9"),
        (["up", "--gpus", "-1"], "--gpus -1"),
        (["tools", "kubectl"], "'kubectl' is no tool family; known are kubernetes, "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_command_that_cannot_be_carried_out_says_why_and_ends_with_2(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(local, arguments)
    assert done.exit_code == 2, done.output
    assert words in done.stderr
    assert done.stdout == ""
