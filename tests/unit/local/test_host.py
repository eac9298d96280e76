"""What the machine must offer: said before anything is started, with the remedy and the way round."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rft_local import host
from rft_local.errors import NotSupportedHere, ToolMissing


def test_other_systems_are_pointed_to_an_existing_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(NotSupportedHere, match=r"needs Linux \(this is darwin\).*USE_EXISTING_CLUSTER=1"):
        host.require_root_on_linux()


def test_users_without_root_are_told_of_sudo_and_of_an_existing_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    with pytest.raises(NotSupportedHere, match=r"needs root.*sudo.*USE_EXISTING_CLUSTER=1"):
        host.require_root_on_linux()


def test_root_on_linux_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    host.require_root_on_linux()


class Machine:
    """A machine with some programs, and apt-get or not."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.programs = set(host.PROGRAMS) | {"apt-get"}
        self.plugins = folder / "cni"
        self.plugins.mkdir()
        (self.plugins / "bridge").touch()
        self.ran: list[list[str]] = []
        self.refuses: str | None = None
        self.installs = True
        self.said: list[str] = []
        monkeypatch.setattr("shutil.which", lambda name, **_: f"/bin/{name}" if name in self.programs else None)
        monkeypatch.setattr("subprocess.run", self.run)
        monkeypatch.setattr(host, "CNI_FOLDER", self.plugins)

    def run(self, argv: list[str], **how: Any) -> subprocess.CompletedProcess[str]:
        assert how["env"]["DEBIAN_FRONTEND"] == "noninteractive"
        self.ran.append(argv)
        if self.refuses is not None and self.refuses in argv:
            return subprocess.CompletedProcess(argv, 100, "", "E: Unable to locate package")
        if "install" in argv and self.installs:
            self.programs |= {name for name, package in host.PROGRAMS.items() if package in argv}
            if "containernetworking-plugins" in argv:
                (self.plugins / "bridge").touch()
        return subprocess.CompletedProcess(argv, 0, "", "")

    def ensure(self) -> None:
        host.ensure_packages(self.said.append)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_nothing_is_installed_when_everything_is_there(machine: Machine) -> None:
    machine.ensure()
    assert machine.ran == []
    assert machine.said == []


def test_missing_packages_are_installed_once_each_and_said(machine: Machine) -> None:
    machine.programs -= {"containerd", "ctr", "busybox"}
    (machine.plugins / "bridge").unlink()
    assert host.missing_packages() == ["busybox-static", "containerd", "containernetworking-plugins"]
    machine.ensure()
    update, install = machine.ran
    assert update[:2] == ["apt-get", "update"]
    assert install[-3:] == ["busybox-static", "containerd", "containernetworking-plugins"]
    assert "busybox-static containerd containernetworking-plugins" in machine.said[0]
    assert host.missing_packages() == []


def test_packages_are_named_where_they_cannot_be_installed(machine: Machine) -> None:
    machine.programs -= {"nft", "apt-get"}
    with pytest.raises(ToolMissing, match=r"what Debian calls: nftables\..*USE_EXISTING_CLUSTER=1"):
        machine.ensure()


@pytest.mark.parametrize("step", ["update", "install"])
def test_words_of_a_failed_installation_are_shown(machine: Machine, step: str) -> None:
    machine.programs -= {"runc"}
    machine.refuses = step
    with pytest.raises(ToolMissing, match=r"Unable to locate package.*yourself: runc"):
        machine.ensure()


def test_installation_that_changes_nothing_is_an_error(machine: Machine) -> None:
    machine.programs -= {"runc"}
    machine.installs = False
    with pytest.raises(ToolMissing, match="still missing after the installation: runc"):
        machine.ensure()
