"""A start that fails gives back what it took, also where that is because the disk is full."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from rft_local import cluster, host, network
from rft_local.cluster import Cluster, ClusterOptions, start
from rft_local.errors import StartError, StateError
from rft_local.layout import Layout


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said of a cluster without programs, whose one process cannot do its work."""
    lines: list[str] = []

    def bring_up(it: Cluster) -> None:
        it.processes.start("etcd", ["sleep", "1000"])
        raise StartError("waited 60 s for the API server")

    monkeypatch.setattr(cluster, "ensure", lambda *_, **__: None)
    monkeypatch.setattr(Cluster, "bring_up", bring_up)
    return lines


def options(state: Path, said: list[str], *, nodes: int = 0) -> ClusterOptions:
    return ClusterOptions(name="it", nodes=nodes, state=state, say=said.append)


@pytest.mark.parametrize("full", [False, True], ids=["", "the disk is full"])
def test_start_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str], full: bool
) -> None:
    def no_space(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if full:
        monkeypatch.setattr(shutil, "copytree", no_space)
    with pytest.raises(StartError, match="the API server"):
        start(options(tmp_path / "it", said))
    assert not (tmp_path / "it").exists()
    assert ("its logs cannot be kept" in said[0]) is full


def test_start_tells_its_own_trouble_when_its_cluster_was_taken_down_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    def bring_up(it: Cluster) -> None:
        Cluster.load(it.layout.state).down()
        raise StartError("waited 60 s for the API server")

    monkeypatch.setattr(Cluster, "bring_up", bring_up)
    with pytest.raises(StartError, match="the API server"):
        start(options(tmp_path / "it", said))
    assert not (tmp_path / "it").exists()


def test_number_is_given_back_when_another_start_of_the_same_name_was_quicker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    state, given_back = tmp_path / "it", []

    def claim(_: Path) -> int:
        others = Layout(name="it", state=state, nodes=1, gpus=1, number=3, api_port=6443, etcd_port=1, etcd_peer_port=2)
        others.save()
        return 4

    monkeypatch.setattr(host, "require_root_on_linux", lambda: None)
    monkeypatch.setattr(host, "ensure_packages", lambda _: None)
    monkeypatch.setattr(network, "claim_number", claim)
    monkeypatch.setattr(network, "disconnect", lambda layout: given_back.append(layout.number))
    with pytest.raises(StateError, match="started by somebody else"):
        start(options(state, said, nodes=1))
    assert given_back == [4]
    assert Layout.load(state).number == 3
