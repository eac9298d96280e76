"""A cluster's number: the first one that is free; why there is none is told as it is."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from rft_local import network
from rft_local.errors import NotSupportedHere, StateError
from rft_local.layout import MOST_CLUSTERS

TAKEN = "RTNETLINK answers: File exists\n"


class Links:
    """What ``ip link add`` answers, number by number."""

    def __init__(self, answers: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = answers
        self.asked: list[str] = []
        monkeypatch.setattr("subprocess.run", self.run)

    def run(self, argv: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert argv[:3] == ["ip", "link", "add"]
        words = self.answers[len(self.asked)]
        self.asked.append(argv[3])
        return subprocess.CompletedProcess(argv, 2 if words else 0, "", words)


def test_first_number_whose_bridge_is_not_there_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    links = Links([TAKEN, TAKEN, ""], monkeypatch)
    assert network.claim_number() == 2
    assert links.asked == ["rft0", "rft1", "rft2"]


def test_too_many_clusters_are_named_when_every_number_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    Links([TAKEN] * MOST_CLUSTERS, monkeypatch)
    with pytest.raises(StateError, match="16 clusters exist already"):
        network.claim_number()


@pytest.mark.parametrize(
    "words", ["RTNETLINK answers: Operation not permitted\n", "Error: Unknown device type.\n", "no words of File\n"]
)
def test_words_of_ip_and_the_way_round_are_told_when_no_bridge_can_be_made(
    monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    links = Links([TAKEN, words], monkeypatch)
    with pytest.raises(NotSupportedHere, match=rf"rft1 type bridge: {words.strip()}\).*USE_EXISTING_CLUSTER=1"):
        network.claim_number()
    assert links.asked == ["rft0", "rft1"]
