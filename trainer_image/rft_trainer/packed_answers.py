"""The base model's answers to all settings of a sweep in little room: a termination message has 2,900 bytes in all.

Packed together what they have in common is said once. Invariant: what is unpacked is what was packed, within bounds;
what cannot be read is no answers at all, which costs one more measurement and never a wrong one.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any

from rft_trainer.stage_results import BaseAnswers

MOST_ENTRIES = 16
MOST_BYTES = 262_144
"""Of all entries when they are unpacked."""
_RAW = "x"
"""The right answers without their own packing, which would hide what they have in common."""


def packed(entries: Sequence[BaseAnswers]) -> str:
    """All entries as one text."""
    rows = [_with_raw(entry.model_dump(by_alias=True, exclude_defaults=True)) for entry in entries]
    return base64.b85encode(zlib.compress(json.dumps(rows, separators=(",", ":")).encode(), 9)).decode()


def unpacked(text: str | None) -> tuple[BaseAnswers, ...]:
    """The entries of a text; none where it is absent or cannot be read."""
    try:
        rows = json.loads(_inflated(base64.b85decode(text or "")))
        return tuple(BaseAnswers.model_validate(_without_raw(row)) for row in rows[:MOST_ENTRIES])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, zlib.error):
        return ()


def _with_raw(row: dict[str, Any]) -> dict[str, Any]:
    try:
        raw = _inflated(deflated_of(row["r"]))
    except (ValueError, zlib.error):
        return row
    if text_of(raw) != row["r"]:
        return row
    return {name: value for name, value in row.items() if name != "r"} | {_RAW: raw.hex()}


def _without_raw(row: dict[str, Any]) -> dict[str, Any]:
    if _RAW not in row:
        return row
    rest = {name: value for name, value in row.items() if name != _RAW}
    return rest | {"r": text_of(bytes.fromhex(row[_RAW]))}


def text_of(raw: bytes) -> str:
    """Bytes deflated, as a text for JSON: the right answers of one entry."""
    return base64.urlsafe_b64encode(zlib.compress(raw, 9)).decode().rstrip("=")


def deflated_of(text: str) -> bytes:
    """What ``text_of`` has deflated; raises ValueError for a text of another kind."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _inflated(data: bytes) -> bytes:
    """Raises ValueError, or zlib's error, for what is none or too much."""
    inflater = zlib.decompressobj()
    found = inflater.decompress(data, MOST_BYTES)
    if not inflater.eof:
        raise ValueError(f"not whole within {MOST_BYTES} bytes")
    return found
