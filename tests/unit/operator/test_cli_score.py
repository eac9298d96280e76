"""``rft score``: rows in, verdicts out, in order; bad rows are named and nothing is scored."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rft_operator.cli.main import main

ROWS: list[dict[str, Any]] = [
    {"id": "a", "scorer": "integer", "answer": "33", "text": r"<think>7</think> \boxed{3} Wait, \boxed{033}"},
    {"id": 2, "scorer": "letter", "answer": "B", "text": "Answer: (C)"},
    {"id": "c", "scorer": "gsm8k", "answer": 18, "text": "<think>18 and no end"},
    {"id": "d", "scorer": "math", "answer": "x+1", "text": r"\boxed{x + 1}"},
]


def score(content: bytes, *options: str) -> Result:
    return CliRunner().invoke(main, ["score", "-", *options], input=content)


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_score_runs_programs_against_their_tests() -> None:
    tests = {"inputs": ["2\n", "5\n"], "outputs": ["4\n", "10\n"]}
    texts = {"right": "```python\nprint(2 * int(input()))\n```", "wrong": "```python\nprint(4)\n```", "none": "Double."}
    rows = [{"id": name, "scorer": "code", "tests": tests, "text": text} for name, text in texts.items()]
    result = score(lines(rows))
    assert result.exit_code == 0, result.output
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"id": "right", "extracted": "print(2 * int(input()))\n", "correct": True, "reason": "equal"},
        {"id": "wrong", "extracted": "print(4)\n", "correct": False, "reason": "different", "detail": "test 2 of 2"},
        {"id": "none", "extracted": None, "correct": False, "reason": "no answer"},
    ]


def test_score_prints_a_verdict_for_each_row_in_order() -> None:
    result = score(lines(ROWS))
    assert result.exit_code == 0, result.output
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"id": "a", "extracted": "033", "correct": True, "reason": "equal"},
        {"id": 2, "extracted": "C", "correct": False, "reason": "different"},
        {"id": "c", "extracted": None, "correct": False, "reason": "thinking did not end"},
        {"id": "d", "extracted": "x + 1", "correct": True, "reason": "equal"},
    ]
    assert result.stderr == "2 of 4 correct, 1 without an answer\n"


def test_score_writes_the_verdicts_to_a_file_when_asked(tmp_path: Path) -> None:
    output = tmp_path / "verdicts.jsonl"
    result = score(lines(ROWS), "-o", str(output))
    assert (result.exit_code, result.stdout) == (0, "")
    assert [json.loads(line)["id"] for line in output.read_text().splitlines()] == ["a", 2, "c", "d"]


def test_score_skips_blank_lines_and_a_byte_order_mark() -> None:
    result = score(b"\xef\xbb\xbf" + lines(ROWS[:1]) + b"\n  \n")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2: is not JSON (Expecting property name enclosed in double quotes at column 2)"),
        (b"[1]", "line 2: [1] is not an object"),
        (b"\xff", "line 2: is not UTF-8 at byte 0"),
        (
            lines([{**ROWS[0], "scorer": "vibes"}]),
            "line 2: scorer 'vibes' is unknown; use math, integer, letter, gsm8k, code",
        ),
        (lines([{**ROWS[0], "text": None}]), "line 2: text null is not text; write it in quotes"),
        (lines([{"id": "a", "scorer": "math", "text": ""}]), "line 2: answer is absent; every row needs id"),
        (lines([{"id": "a", "scorer": "code", "text": ""}]), "line 2: tests null are not an object"),
        (lines([{"id": 1, "scorer": "code", "tests": {}, "text": ""}]), "line 2: tests.inputs null is not a list"),
        (lines([{**ROWS[0], "answer": True}]), "line 2: answer true is not text"),
        (lines([{"id": "a"}]), "line 2: scorer is absent; every row needs id, scorer, answer and text"),
        (lines([{**ROWS[0], "answer": "x"}]), "line 2: answer 'x' is not a number; use scorer math"),
        (lines([{**ROWS[0], "answer": "  "}]), "line 2: answer is empty"),
        (lines([{**ROWS[1], "answer": "AB"}]), "line 2: answer 'AB' is not one letter of A to J"),
    ],
)
def test_score_names_line_field_value_and_remedy_when_a_row_is_bad(line: bytes, message: str) -> None:
    result = score(lines(ROWS[:1]) + line)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_score_names_all_bad_rows_but_does_not_flood_the_screen() -> None:
    result = score(b"{\n" * 25)
    assert "line 1:" in result.stderr
    assert "line 20:" in result.stderr
    assert "and 5 more" in result.stderr


def test_score_ends_with_2_when_there_are_no_rows() -> None:
    result = score(b"\n")
    assert result.exit_code == 2
    assert "no rows; write one JSON object a line" in result.stderr


def test_score_names_what_to_install_when_mathematics_cannot_be_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "math_verify" else find(name))
    result = score(lines([{**ROWS[3], "text": r"\boxed{1 + x}"}]))
    assert result.exit_code == 2
    assert "pip install 'reasoning-finetune-operator[score]'" in result.stderr


def test_score_ends_with_2_when_the_output_cannot_be_written(tmp_path: Path) -> None:
    result = score(lines(ROWS[:1]), "-o", str(tmp_path / "absent" / "out.jsonl"))
    assert result.exit_code == 2
    assert "No such file or directory" in result.stderr
