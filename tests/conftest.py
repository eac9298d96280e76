"""The order of the suite on its two workers: files that take minutes come first, the short ones fill in.

A file stays on one worker (`--dist loadfile`), so tests that share a cluster or prepared data share it.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent
FIRST = (HERE / "e2e", HERE / "integration" / "trainer", HERE / "integration" / "local")


# How long a draw takes says how busy the machine is, and nothing of the code.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long suites first, longest of all ahead."""

    def place(item: pytest.Item) -> int:
        return next((index for index, folder in enumerate(FIRST) if folder in item.path.parents), len(FIRST))

    items.sort(key=place)
