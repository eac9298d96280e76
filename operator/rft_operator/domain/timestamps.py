"""Instants: whole seconds since the epoch inside, RFC 3339 in UTC outside, as Kubernetes writes them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache


def epoch(text: str) -> int:
    """Return the whole seconds since the epoch of an RFC 3339 instant; raises ValueError for anything else."""
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        msg = f"{text!r} has no time zone; write for example 2026-01-01T00:00:00Z"
        raise ValueError(msg)
    return int(instant.timestamp())


@lru_cache(maxsize=256)
def rfc3339(seconds: int) -> str:
    """Return an instant as RFC 3339 in UTC with whole seconds, for example 2026-01-01T00:00:00Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")
