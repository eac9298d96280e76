"""How a line of a log is printed: who wrote it, in a colour of its own on a terminal.

Invariant: what the rank wrote is printed as it is; control characters that could drive the terminal are not.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from typing import TextIO

import click

from rft_operator.client.log_lines import LogLine

COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_cyan", "bright_green", "bright_magenta")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]|\x1b(?!\[[0-9;]*m)")
"""All but tabs, carriage returns (progress bars) and colours."""


def wants_colour(stream: TextIO) -> bool:
    """Return whether a stream is a terminal whose user has not asked for none (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Printer:
    """Prints lines."""

    prefix: str
    """full, short or none."""
    timestamps: bool
    as_json: bool
    coloured: bool

    def text(self, line: LogLine) -> str:
        """Return what is printed for a line."""
        origin = line.origin
        if self.as_json:
            found = {
                "time": line.time,
                "stage": origin.stage,
                "attempt": origin.attempt,
                "rank": origin.rank,
                "global_rank": line.rank,
                "pod": origin.pod,
                "text": line.text,
            }
            return json.dumps(found, ensure_ascii=False)
        parts = [line.time] if self.timestamps else []
        if self.prefix != "none":
            parts.append(self._head(line))
        return " ".join([*parts, _CONTROL.sub("", line.text)])

    def _head(self, line: LogLine) -> str:
        origin = line.origin
        who = f"node {origin.rank}" if line.rank is None else f"rank {line.rank}"
        words = f"{origin.stage}-{origin.attempt} {who}"
        head = f"[{words} {origin.pod}]" if self.prefix == "full" else f"[{words}]"
        return (
            click.style(head, fg=COLOURS[(origin.rank if line.rank is None else line.rank) % len(COLOURS)])
            if self.coloured
            else head
        )
