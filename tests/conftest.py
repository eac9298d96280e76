"""How the suite is shared between two workers: what starts many processes of its own stays together on one of them."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
GROUPS = {HERE / "e2e": "e2e", HERE / "integration" / "trainer": "trainer", HERE / "integration" / "local": "local"}
"""Suites whose tests share a cluster or prepared data and keep a core busy, longest first."""


def _group(item: pytest.Item) -> str | None:
    return next((group for folder, group in GROUPS.items() if folder in item.path.parents), None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the long suites first, each on a worker of its own; the short tests fill the rest."""
    order = [*GROUPS.values(), None]
    items.sort(key=lambda item: order.index(_group(item)))
    for item in items:
        group = _group(item)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
