"""Fixtures of the trainer's integration tests: prepared data once, a fresh pod for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from unit.trainer.factory import Pod, free_port, run_config


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a prepared run."""
    pod = Pod(tmp_path_factory.mktemp("prepared"), run_config())
    assert pod.run_here("prepare") == 0
    return pod.layout.root / "data"


@pytest.fixture
def make_pod(tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Pod]]:
    """Makes pods on prepared data; what still runs at the end is killed. ``share`` gives a pod another's volume."""
    monkeypatch.setenv("RFT_RENDEZVOUS_PORT", str(free_port()))
    pods: list[Pod] = []

    def make(*, hosts: str = "localhost slots=2\n", share: Pod | None = None, **overrides: Any) -> Pod:
        root = tmp_path / f"pod-{len(pods)}"
        pod = Pod(root, run_config(**overrides), hosts=hosts)
        if share is None:
            shutil.copytree(prepared, root / "data")
        else:
            (root / "data").symlink_to(share.layout.root / "data")
        pods.append(pod)
        return pod

    yield make
    for pod in pods:
        pod.power_off()
