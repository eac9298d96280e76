"""Names and addresses: clusters side by side share none of them."""

from __future__ import annotations

import ipaddress
import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from rft_local.errors import StateError
from rft_local.layout import MOST_CLUSTERS, MOST_NODES, Layout, index_of, state_home, state_of

TEST_NETWORK = ipaddress.IPv4Network("198.18.0.0/15")


def layout(number: int = 0, *, nodes: int = MOST_NODES, state: Path = Path("/state")) -> Layout:
    return Layout(
        name=f"c{number}",
        state=state,
        nodes=nodes,
        gpus=1,
        number=number,
        api_port=6443,
        etcd_port=1,
        etcd_peer_port=2,
    )


def networks(it: Layout) -> list[ipaddress.IPv4Network]:
    """Every network of a cluster: its nodes, each node's pods, its Services."""
    found = [ipaddress.IPv4Network(f"{it.api_host}/24", strict=False), ipaddress.IPv4Network(it.service_range)]
    return found + [ipaddress.IPv4Network(it.pod_range(index)) for index in range(1, it.nodes + 1)]


def test_no_two_networks_of_any_clusters_overlap_and_all_are_test_networks() -> None:
    every = [network for number in range(MOST_CLUSTERS) for network in networks(layout(number))]
    assert all(network.subnet_of(TEST_NETWORK) for network in every)
    assert not [pair for pair in itertools.combinations(every, 2) if pair[0].overlaps(pair[1])]


def test_no_two_clusters_share_a_link_a_namespace_or_a_cgroup() -> None:
    names: list[str] = []
    for number in range(MOST_CLUSTERS):
        it = layout(number)
        indexes = range(1, it.nodes + 1)
        names += [it.bridge, *(it.link(index) for index in indexes), *(it.namespace(index) for index in indexes)]
    assert len(set(names)) == len(names)
    assert len({layout(number).cgroup for number in range(MOST_CLUSTERS)}) == MOST_CLUSTERS
    assert max(len(layout(number).link(MOST_NODES)) for number in range(MOST_CLUSTERS)) <= 15


def test_nodes_and_the_kubernetes_service_lie_in_their_networks() -> None:
    it = layout(3)
    nodes, services = networks(it)[:2]
    addresses = [it.node_address(index) for index in range(1, it.nodes + 1)]
    assert len({it.api_host, *addresses}) == it.nodes + 1
    assert all(ipaddress.ip_address(address) in nodes for address in addresses)
    assert ipaddress.ip_address(it.kubernetes_service) == services[1]


def test_control_plane_alone_listens_on_the_loopback() -> None:
    assert layout(nodes=0).api_url == "https://127.0.0.1:6443"
    assert layout(nodes=0).node_names() == []
    assert layout(nodes=2).node_names() == ["node-1", "node-2"]


def test_layout_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    it = replace(layout(5), state=tmp_path)
    it.save()
    assert Layout.load(tmp_path) == it


def test_second_of_two_that_start_at_once_is_refused_and_the_first_ones_layout_stays(tmp_path: Path) -> None:
    first = replace(layout(5), state=tmp_path)
    first.save()
    with pytest.raises(StateError, match=r"cluster 'c6' is being started by somebody else .*take another --name"):
        replace(layout(6), state=tmp_path).save()
    assert Layout.load(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == ["cluster.json"]


def test_folder_is_a_clusters_until_nothing_else_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = replace(layout(nodes=0), state=tmp_path / "state")
    (it.state / "etcd" / "member").mkdir(parents=True)
    it.save()

    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            it.remove()
    assert Layout.load(it.state) == it
    it.remove()
    assert not it.state.exists()


def test_missing_cluster_is_named_with_the_command_that_starts_one(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="rft local up"):
        Layout.load(tmp_path / "none")


@pytest.mark.parametrize(("name", "index"), [("node-1", 1), ("node-9", 9)])
def test_index_of_a_node_is_read_from_its_name(name: str, index: int) -> None:
    assert index_of(name) == index


@pytest.mark.parametrize("name", ["node", "node-", "node-x", "node-1-2", "host-1", "", "node--1"])
def test_name_of_no_node_is_refused_with_the_names_there_are(name: str) -> None:
    with pytest.raises(StateError, match="node-1, node-2"):
        index_of(name)


def test_state_lies_where_the_user_keeps_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_home() == tmp_path / "rft"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", "here")
    assert state_home() == tmp_path / "here" / "rft", "the parts of a cluster work in another folder"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert state_home() == Path("/home/me/.local/state/rft")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "Demo", "-x", "a" * 41, "a.b"])
def test_name_that_would_be_another_folder_is_refused(name: str) -> None:
    with pytest.raises(StateError, match=r"--name .*: give up to 40 small letters, digits and '-'"):
        state_of(name)


def test_every_cluster_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_of("demo-2") == tmp_path / "rft" / "demo-2"


@pytest.mark.parametrize("text", ["", "[]", '{"name": "x"}', '{"state": "/x", "colour": "red"}'])
def test_layout_that_cannot_be_read_is_told_with_a_way_out(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(StateError, match="another version of rft wrote it, or it is damaged"):
        Layout.load(tmp_path)
