"""Scores texts against right answers, with the evaluation's own scorers, so that anybody can check them.

Invariant: a file is judged as a whole or not at all: a row that cannot be judged is named and nothing is scored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rft_operator.errors import ScoreError
from rft_trainer.errors import StageError
from rft_trainer.scoring import Judge, Verdict
from rft_trainer.scoring.judge import check_answer

SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Row:
    """One text to judge."""

    id: str | int
    scorer: str
    answer: str
    text: str


def read_rows(lines: Iterable[bytes]) -> list[Row]:
    """Read JSONL; raises :class:`ScoreError` that names every bad row by line, field, value and remedy."""
    rows, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line))
        except (ScoreError, StageError) as error:
            problems.append(f"line {number}: {error}")
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        shown = problems[:SHOWN_PROBLEMS] + ([f"and {more} more"] if more > 0 else [])
        raise ScoreError("\n".join(shown))
    if not rows:
        raise ScoreError('no rows; write one JSON object a line: {"id", "scorer", "answer", "text"}')
    return rows


def judge_rows(rows: Sequence[Row]) -> list[Verdict]:
    """Judge all rows, in order; raises :class:`ScoreError` when a scorer cannot work."""
    try:
        with Judge() as judge:
            return [judge.score(row.scorer, answer=row.answer, text=row.text) for row in rows]
    except StageError as error:
        raise ScoreError(str(error)) from error


def to_jsonl(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> str:
    """Return one line for each row: id, extracted, correct, reason."""
    return "".join(
        json.dumps({"id": row.id, "extracted": it.extracted, "correct": it.correct, "reason": it.reason}) + "\n"
        for row, it in zip(rows, verdicts, strict=True)
    )


def summary(verdicts: Sequence[Verdict]) -> str:
    """Return the score in one line."""
    silent = sum(not each.answered for each in verdicts)
    return f"{sum(each.correct for each in verdicts)} of {len(verdicts)} correct, {silent} without an answer"


def _row(line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ScoreError(f"is not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    except json.JSONDecodeError as error:
        raise ScoreError(f"is not JSON ({error.msg} at column {error.colno}); write one object a line") from error
    except (ValueError, RecursionError) as error:
        raise ScoreError(f"is not JSON that can be read ({error}); write one object a line") from error
    if not isinstance(row, dict):
        raise ScoreError(f'{_shown(row)} is not an object; write {{"id", "scorer", "answer", "text"}}')
    answer = _field(row, "answer", (str, int, float))
    it = Row(
        id=_field(row, "id", (str, int)),
        scorer=_field(row, "scorer", (str,)),
        answer=answer if isinstance(answer, str) else str(answer),
        text=_field(row, "text", (str,)),
    )
    check_answer(it.scorer, it.answer)
    return it


def _field(row: dict[str, Any], name: str, kinds: tuple[type, ...]) -> Any:
    if name not in row:
        raise ScoreError(f"{name} is absent; every row needs id, scorer, answer and text")
    value = row[name]
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise ScoreError(f"{name} {_shown(value)} is not text; write it in quotes")
    return value


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
