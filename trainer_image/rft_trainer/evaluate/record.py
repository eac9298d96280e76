"""The answers of one model to one benchmark, on the volume.

Invariant: a line is appended after each batch and never changed, so a restarted evaluation asks only what is missing;
answers given under another protocol live in another file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class AnswerRecord:
    """One judged answer."""

    id: str
    sample: int
    text: str
    tokens: int
    finished: bool
    extracted: str | None
    correct: bool
    reason: str


class AnswerFile:
    """An append-only JSONL file of :class:`AnswerRecord`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: dict[tuple[str, int], AnswerRecord] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                record = AnswerRecord(**json.loads(line))
            except (ValueError, TypeError):
                continue  # the last line of a killed process
            self.records[record.id, record.sample] = record
            kept.append(line)
        path.write_text("".join(f"{line}\n" for line in kept))

    def append(self, records: Iterable[AnswerRecord]) -> None:
        """Add a batch."""
        with self._path.open("a") as stream:
            for record in records:
                stream.write(json.dumps(asdict(record)) + "\n")
                self.records[record.id, record.sample] = record
