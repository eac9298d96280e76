"""What came of publishing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Where the model is now."""

    uri: str
    revision: str | None
    """The hub's commit; a folder has none."""
    files: int
    written: int
    """Files that were not there already."""
    size: int
    """Bytes of all files."""
