"""What the parts of the control plane are told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rft_local import control_plane
from rft_local.control_plane import ETCD, ControlPlane
from rft_local.errors import StartError
from rft_local.layout import Layout
from rft_local.processes import Processes

LAYOUT = Layout(
    name="it", state=Path("/state"), nodes=1, gpus=1, number=0, api_port=6443, etcd_port=1, etcd_peer_port=2
)


def test_name_server_finds_its_kubeconfig_when_a_folder_has_a_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "my user"
    state.mkdir()
    monkeypatch.setattr(control_plane, "binary", lambda _: "true")
    monkeypatch.setattr(Processes, "start", lambda *_: 1)
    ControlPlane(replace(LAYOUT, state=state), Processes(state), print)._start_dns()
    assert f'kubeconfig "{state}/pki/coredns.kubeconfig"\n' in (state / "Corefile").read_text()


def test_part_that_has_ended_is_named_at_once_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = {ETCD: "sleep 0.1; echo no space left on device; exit 1", "kubectl": "exit 1"}
    for name in (ETCD, control_plane.API, "kubectl"):
        file = tmp_path / name
        file.write_text(f"#!/bin/sh\n{programs.get(name, 'exec sleep 1000')}\n")
        file.chmod(0o755)
    monkeypatch.setattr(control_plane, "binary", lambda name: tmp_path / name)
    processes = Processes(tmp_path)
    try:
        with pytest.raises(StartError, match=r"^etcd has ended\. log .*\nno space left on device$"):
            ControlPlane(replace(LAYOUT, state=tmp_path, nodes=0), processes, print).start()
    finally:
        for name in processes.records():
            processes.kill(name)
