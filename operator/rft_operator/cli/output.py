"""How results are printed: tables, JSON, YAML, and durations and ages as people read them.

Invariants: what programs read (JSON, YAML) has no colour, no rounding and no words that may change; what people read
drives no terminal, whatever a pod's last words were.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""All but tabs and line ends; logs, which may have colours, are told apart (log_print.py)."""


def harmless(text: str) -> str:
    """Return a text without what could drive a terminal: conditions hold words of code that nobody vouches for."""
    return _CONTROL.sub("", text)


def one_line(text: str) -> str:
    """Return a text as one line, for a row or a line that stands for a moment."""
    return " ".join(harmless(text).split())


def to_json(value: Any) -> str:
    """Return JSON with a line end."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def to_yaml(value: Any) -> str:
    """Return YAML in the order of the value."""
    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120))


def structured(value: Any, output: str) -> str:
    """Return a value as ``json`` or ``yaml``."""
    return to_yaml(value) if output == "yaml" else to_json(value)


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows with aligned columns, each on one line."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def age(seconds: int) -> str:
    """Return an age as kubectl shows it: 45s, 3m49s, 5h12m, 12d."""
    seconds = max(0, seconds)
    if seconds < 120:
        return f"{seconds}s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 10:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 8:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    return f"{hours}h" if hours < 48 else f"{hours // 24}d"


def span(seconds: int) -> str:
    """Return a duration in words: 45 s, 3 min 20 s, 5 h 12 min."""
    if seconds < 120:
        return f"{seconds} s"
    if seconds < 7_200:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3_600} h {seconds % 3_600 // 60} min"


def short_number(number: str | None) -> str:
    """Drop trailing zeros but keep two decimals: 2.950000 becomes 2.95."""
    whole, _, fraction = (number or "0").partition(".")
    return f"{whole}.{fraction.rstrip('0').ljust(2, '0')}"
