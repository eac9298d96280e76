"""``rft local`` from the arguments to the exit code: what cannot be carried out is words and 2, never a traceback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from rft_local import tools
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


@pytest.mark.parametrize("command", [["up"], ["tools"], ["tools", "helm"]], ids=" ".join)
def test_checkout_is_asked_for_when_the_package_alone_is_installed(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "TOOLS", tmp_path / "site-packages" / "tools")
    forget_cryptography(monkeypatch)
    done = CliRunner().invoke(local, command)
    assert done.exit_code == 2, done.output
    assert "needs a checkout of the repository" in done.stderr
    assert "make setup" in done.stderr
    assert "USE_EXISTING_CLUSTER=1" in done.stderr


@pytest.mark.parametrize("command", ["up", "status", "down"])
def test_extra_is_named_when_its_libraries_are_not_installed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forget_cryptography(monkeypatch)
    done = CliRunner().invoke(local, [command])
    assert done.exit_code == 2, done.output
    words = f"cryptography is not installed; rft local {command} needs it: pip install "
    assert f"{words}'reasoning-finetune-operator[local]'" in done.stderr


def forget_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cluster", "control_plane", "pki"):
        monkeypatch.delitem(sys.modules, f"rft_local.{name}", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
