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
    """Of scorer code the tests, as JSON text."""
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
        with Judge(programs=True) as judge:
            return [judge.score(row.scorer, answer=row.answer, text=row.text) for row in rows]
    except StageError as error:
        raise ScoreError(str(error)) from error


def to_jsonl(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> str:
    """Return one line for each row: id, extracted, correct, reason, and detail where there is one."""
    return "".join(json.dumps(_shown_verdict(row, it)) + "\n" for row, it in zip(rows, verdicts, strict=True))


def _shown_verdict(row: Row, it: Verdict) -> dict[str, Any]:
    shown = {"id": row.id, "extracted": it.extracted, "correct": it.correct, "reason": it.reason}
    return shown if it.detail is None else {**shown, "detail": it.detail}


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
    scorer = _field(row, "scorer", (str,))
    if scorer == "code":
        answer = json.dumps(_tests(row))
    else:
        given = _field(row, "answer", (str, int, float))
        answer = given if isinstance(given, str) else str(given)
    it = Row(
        id=_field(row, "id", (str, int)),
        scorer=scorer,
        answer=answer,
        text=_field(row, "text", (str,)),
    )
    check_answer(it.scorer, it.answer)
    return it


def _tests(row: dict[str, Any]) -> dict[str, Any]:
    tests = row.get("tests")
    if not isinstance(tests, dict):
        raise ScoreError(f"tests {_shown(tests)} are not an object; scorer code needs them, see docs/code-execution.md")
    return tests


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
