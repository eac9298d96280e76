"""The order of the suite on its workers: files that take minutes come first, the short ones fill in.

A file stays on one worker (`--dist loadfile`), so tests that share a cluster or prepared data share it. All of
``e2e`` stays on one: its cluster with three nodes takes a minute of a processor to start and to stop.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from rft_local.proxy import direct

HERE = Path(__file__).parent
FIRST = (HERE / "e2e", HERE / "integration" / "trainer", HERE / "integration" / "local")


# A proxy is there for downloads; the suite's clients, and all they start, talk to this machine alone.
os.environ.update(direct(os.environ))

# How long a draw takes says how busy the machine is, and nothing of the code.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


class ByFile(LoadFileScheduling):  # type: ignore[misc]
    """Whole files, and all files of ``e2e`` as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "tests/e2e" if file.startswith("tests/e2e/") else file


@pytest.hookimpl
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile | None:
    """Put our order in place of ``--dist loadfile``."""
    return ByFile(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long suites first, longest of all ahead."""

    def place(item: pytest.Item) -> int:
        return next((index for index, folder in enumerate(FIRST) if folder in item.path.parents), len(FIRST))

    items.sort(key=place)
