"""A cluster's number: the first one that is free; why there is none is told as it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rft_local import network
from rft_local.errors import NotSupportedHere, StateError
from rft_local.layout import MOST_CLUSTERS, Layout

STATE = Path("/home/me/.local/state/rft/default")
TAKEN = "RTNETLINK answers: File exists\n"


class Links:
    """What ``ip link add`` answers, number by number."""

    def __init__(self, answers: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = answers
        self.asked: list[str] = []
        self.marks: dict[str, str] = {}
        monkeypatch.setattr("subprocess.run", self.run)

    def run(self, argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        if argv[:3] == ["ip", "link", "set"]:
            self.marks[argv[3]] = argv[5]
            return subprocess.CompletedProcess(argv, 0, "", "")
        assert argv[:3] == ["ip", "link", "add"]
        words = self.answers[len(self.asked)]
        self.asked.append(argv[3])
        return subprocess.CompletedProcess(argv, 2 if words else 0, "", words)


def test_first_number_whose_bridge_is_not_there_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    links = Links([TAKEN, TAKEN, ""], monkeypatch)
    assert network.claim_number(STATE) == 2
    assert links.asked == ["rft0", "rft1", "rft2"]
    assert links.marks.keys() == {"rft2"}
    assert len(links.marks["rft2"]) < 256, "what the kernel keeps"


def test_too_many_clusters_are_named_when_every_number_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    Links([TAKEN] * MOST_CLUSTERS, monkeypatch)
    with pytest.raises(StateError, match="16 clusters exist already"):
        network.claim_number(STATE)


@pytest.mark.parametrize(
    "words", ["RTNETLINK answers: Operation not permitted\n", "Error: Unknown device type.\n", "no words of File\n"]
)
def test_words_of_ip_and_the_way_round_are_told_when_no_bridge_can_be_made(
    monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    links = Links([TAKEN, words], monkeypatch)
    with pytest.raises(NotSupportedHere, match=rf"rft1 type bridge: {words.strip()}\).*USE_EXISTING_CLUSTER=1"):
        network.claim_number(STATE)
    assert links.asked == ["rft0", "rft1"]


@pytest.mark.parametrize("whose", ["its own", "another's", "of an older version", "gone"])
def test_number_is_a_clusters_own_unless_its_bridge_is_anothers(monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    """After a restart of the machine no bridge is left, and the next cluster takes the number."""
    links = Links(["", ""], monkeypatch)
    network.claim_number(STATE)
    network.claim_number(STATE.with_name("other") if whose == "another's" else STATE)
    mark = {} if whose == "of an older version" else {"ifalias": links.marks["rft0"]}

    def show(argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert argv == ["ip", "-j", "link", "show", "rft0"]
        if whose == "gone":
            return subprocess.CompletedProcess(argv, 1, "", 'Device "rft0" does not exist.')
        return subprocess.CompletedProcess(argv, 0, json.dumps([{"ifname": "rft0", **mark}]), "")

    monkeypatch.setattr("subprocess.run", show)
    it = Layout(name="default", state=STATE, nodes=1, gpus=1, number=0, api_port=6443, etcd_port=1, etcd_peer_port=2)
    assert network.has_its_number(it) is (whose != "another's")
