"""Tests of programs stay where they are; those of one problem are found again when its turn comes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyarrow import Table, parquet

from rft_trainer.benchmarks import Question, load_questions, questions_hash
from rft_trainer.contract import Benchmark
from rft_trainer.errors import BadInputError
from rft_trainer.paths import Layout
from rft_trainer.question_rows import RowReader
from rft_trainer.scoring.code_tests import ProgramTests
from rft_trainer.stored_tests import check_room

ROWS = [
    {"id": f"q{number}", "problem": f"Say {number}.", "tests": {"inputs": ["-"], "outputs": [f"{number}\N{SNOWMAN}"]}}
    for number in range(5)
]


def lines(rows: Sequence[Any]) -> str:
    return "\n" + "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n"


def in_gzip(path: Path) -> None:
    with gzip.open(path, "wt") as stream:
        stream.write(lines(ROWS))


WAYS: dict[str, Callable[[Path], object]] = {
    "rows.jsonl": lambda path: path.write_text(lines(ROWS)),
    "rows.jsonl.gz": in_gzip,
    "rows.json": lambda path: path.write_text(json.dumps(ROWS)),
    "rows.parquet": lambda path: parquet.write_table(Table.from_pylist(ROWS), path),
}


def questions_in(path: Path, *, unpack_tests: bool = True) -> list[Question]:
    benchmark = Benchmark(name="own", uri=f"file://{path}", max_tokens=8)
    return load_questions(benchmark, Layout(path.parent), download_to=path.parent, unpack_tests=unpack_tests)


def outputs(question: Question, rows: RowReader | None = None) -> tuple[str, ...]:
    assert question.tests is not None
    tests = question.tests.read(rows)
    assert isinstance(tests, ProgramTests)
    return tests.outputs


@pytest.mark.parametrize("name", WAYS)
def test_tests_are_found_again_in_order_and_out_of_it_in_every_kind_of_file(tmp_path: Path, name: str) -> None:
    WAYS[name](tmp_path / name)
    questions = questions_in(tmp_path / name)
    rows = RowReader()
    for number in (0, 1, 3, 4, 2, 2, 0):
        expected = (f"{number}\N{SNOWMAN}",)
        assert outputs(questions[number], rows) == outputs(questions[number]) == expected


def test_two_files_of_a_benchmark_are_told_apart(tmp_path: Path) -> None:
    for index, row in enumerate(ROWS[:2]):
        (tmp_path / f"test-{index}.jsonl").write_text(json.dumps(row))
    rows = RowReader()
    assert [outputs(each, rows) for each in questions_in(tmp_path)] == [("0\N{SNOWMAN}",), ("1\N{SNOWMAN}",)]


def test_the_exam_is_the_same_in_every_kind_of_file_and_another_when_a_test_is(tmp_path: Path) -> None:
    for name, write in WAYS.items():
        write(tmp_path / name)
    hashes = {questions_hash(questions_in(tmp_path / name)) for name in WAYS}
    assert len(hashes) == 1
    changed = json.loads(json.dumps(ROWS))
    changed[3]["tests"]["outputs"] = ["4"]
    (tmp_path / "changed.jsonl").write_text(lines(changed))
    assert questions_hash(questions_in(tmp_path / "changed.jsonl")) not in hashes


def test_questions_are_read_without_their_tests_when_these_were_looked_through_before(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROWS[0], "tests": {"inputs": ["-"], "outputs": []}}))
    with pytest.raises(BadInputError, match=r"rows.jsonl:1: tests.outputs \[\] is not a list of at least one"):
        questions_in(path)
    [question] = questions_in(path, unpack_tests=False)
    assert question.tests is not None
    with pytest.raises(BadInputError, match=r"tests.outputs \[\]"):
        question.tests.read()


@pytest.mark.parametrize(
    ("rows", "words"),
    [(ROWS[:1], "is shorter than when"), ([*ROWS[:1], *ROWS[:0:-1]], "has changed since"), ([], "is shorter than")],
)
def test_rows_that_are_not_what_they_were_are_refused(tmp_path: Path, rows: list[Any], words: str) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS))
    question = questions_in(path)[1]
    path.write_text(json.dumps(rows))
    assert question.tests is not None
    with pytest.raises(BadInputError, match=words):
        question.tests.read()


def test_programs_that_a_pod_has_no_room_for_are_refused_before_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [ROWS[0], {**ROWS[1], "tests": {**ROWS[1]["tests"], "memory_mib": 8_192}}]  # type: ignore[dict-item]
    path.write_text(lines(rows))
    tests = [question.tests for question in questions_in(path)]
    check_room([None, *tests], memory_mib=9_472, where="benchmark own")
    with pytest.raises(BadInputError, match=r"benchmark own: a program may take 8192 MiB .* give at least 9472Mi"):
        check_room(tests, memory_mib=9_471, where="benchmark own")
    check_room([None], memory_mib=1, where="benchmark sums")
