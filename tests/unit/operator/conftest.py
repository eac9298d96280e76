"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rft_operator.domain.timestamps import epoch
from support.command_line import TIME, CommandLine
from support.fake_api import FakeApi
from support.fake_kube import FakeKube


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[CommandLine]:
    """The command line over a fake API server whose clock stands a minute and a half after all runs were made."""
    monkeypatch.setattr("rft_operator.cli.board.TICK_SECONDS", 0.01)
    monkeypatch.setattr("rft_operator.client.watching.FIRST_PAUSE_SECONDS", 0.01)
    with FakeApi(tmp_path, FakeKube(lambda: epoch(TIME) + 90)) as api:
        yield CommandLine(api)
