"""The answers of one model to one benchmark, on the volume.

Invariant: a line is appended for each answer and never changed, so a restarted evaluation asks only what is missing;
answers given under another protocol live in another file.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rft_trainer.files import write_atomic


@dataclass(frozen=True)
class ThinkingRecord:
    """How a thinking budget was used."""

    waits: int
    tokens: int
    answer_tokens: int
    ending: str
    leg_tokens: list[int] = field(default_factory=list)
    leg_endings: list[str] = field(default_factory=list)


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
    thinking: ThinkingRecord | None = None
    """Absent where the model thought for as long as it liked."""


class AnswerFile:
    """An append-only JSONL file of :class:`AnswerRecord`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.records: dict[tuple[str, int], AnswerRecord] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text() if path.exists() else ""
        kept = ""
        for line in text.splitlines():
            try:
                record = _read(line)
            except (ValueError, TypeError):
                continue  # the last line of a killed process
            self.records[record.id, record.sample] = record
            kept += f"{line}\n"
        if kept != text:
            write_atomic(path, kept)

    def append(self, record: AnswerRecord) -> None:
        """Add an answer; it is on the disk when this returns."""
        with self._path.open("a") as stream:
            stream.write(json.dumps(asdict(record)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.records[record.id, record.sample] = record


def _read(line: str) -> AnswerRecord:
    values = json.loads(line)
    thinking = values.pop("thinking", None)
    return AnswerRecord(**values, thinking=None if thinking is None else ThinkingRecord(**thinking))
