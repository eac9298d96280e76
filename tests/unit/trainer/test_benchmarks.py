"""Questions are read from every source, and everybody who names the seed sits the same exam."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rft_trainer.benchmarks import Question, file_hashes, load_questions, questions_hash, source_files
from rft_trainer.contract import Benchmark
from rft_trainer.errors import BadInputError
from rft_trainer.paths import Layout
from rft_trainer.scoring.code_tests import ExaminedTests, read_tests
from support.hub_server import Hub

CITY = {"id": "c1", "problem": "Capital of France?", "answer": "B", "choices": ["Rome", "Paris", "Oslo", "Bern"]}


def read(root: Path, rows: list[dict[str, Any]], *, seed: int = 42, **fields: Any) -> list[Question]:
    file = root / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmark = Benchmark.model_validate({"name": "own", "uri": f"file://{file}", "max_tokens": 8, **fields})
    return load_questions(benchmark, Layout(root), download_to=root / "downloads", seed=seed)


def test_right_answer_is_the_shown_letter_when_choices_are_shuffled(tmp_path: Path) -> None:
    rows = [{**CITY, "id": str(number)} for number in range(200)]
    questions = read(tmp_path, rows)
    for question in questions:
        assert question.choices["ABCD".index(question.answer)] == "Paris"
        assert sorted(question.choices) == sorted(CITY["choices"])
        assert f"{question.answer}) Paris" in question.text.splitlines()
        assert question.problem == "Capital of France?", "the stem alone is what training may not know"
    counts = Counter(question.answer for question in questions)
    assert set(counts) == set("ABCD")
    assert max(counts.values()) < 80, "no letter is right much more often than another"


def test_order_of_choices_is_that_of_seed_and_id_when_rows_come_otherwise(tmp_path: Path) -> None:
    rows = [{**CITY, "id": str(number)} for number in range(20)]
    shown = {question.id: question.choices for question in read(tmp_path, rows)}
    assert {question.id: question.choices for question in read(tmp_path, rows[::-1])} == shown
    assert {question.id: question.choices for question in read(tmp_path, rows, seed=43)} != shown
    # pinned: another order would be another exam under the same protocol
    assert shown["0"] == ("Oslo", "Bern", "Rome", "Paris")


def test_choice_is_right_when_the_answer_is_its_text(tmp_path: Path) -> None:
    [question] = read(tmp_path, [{**CITY, "answer": "Oslo"}])
    assert question.choices["ABCD".index(question.answer)] == "Oslo"
    given: list[tuple[list[Any], Any]] = [
        ([3, 2, 1, 0], 1), (["3", "2", "1", "0"], "1"), (["7", "8", "9"], 9), (["0", "1"], 1),
        (["True", "False"], True), ([False, True], False),
    ]  # fmt: skip
    for numbers, answer in given:
        [question] = read(tmp_path, [{**CITY, "choices": numbers, "answer": answer}])
        assert question.choices["ABCD".index(question.answer)] == str(answer)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**CITY, "answer": "E"}, "answer 'E' is neither one of the choices nor its letter, A, B, C, D"),
        ({**CITY, "choices": ["one"]}, "choices must be a list of 2 to 10 texts"),
        ({**CITY, "scorer": "math"}, "scorer 'math' cannot judge a choice"),
        (
            {**CITY, "choices": ["3", "2", "1", "0"], "answer": 1},
            "answer 1 may be one of the choices, or the place of '2'",
        ),
        ({"problem": "1+1?", "answer": float("nan")}, "answer nan is neither a text nor a number"),
        ({"problem": "1+1?", "answer": {"value": 2}}, "answer {'value': 2} is neither a text nor a number"),
        ({"problem": "1+1?"}, "needs the fields problem and answer"),
        ({"problem": " ", "answer": "2"}, "needs the fields problem and answer"),
        ({"problem": "1+1?", "answer": "two", "scorer": "integer"}, "answer 'two' is not a number"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_row_is_refused_by_place_and_field_when_it_is_wrong(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInputError) as error:
        read(tmp_path, [{"problem": "0?", "answer": "0"}, row])
    assert "benchmark own: rows.jsonl:2" in str(error.value)
    assert words in str(error.value)


def test_rows_are_refused_when_two_have_the_same_id(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="id 'c1' is another question's too"):
        read(tmp_path, [CITY, CITY])


def test_scorer_of_the_benchmark_judges_rows_that_name_none(tmp_path: Path) -> None:
    rows = [{"problem": "a", "answer": "1"}, {"problem": "b", "answer": "1", "scorer": "math"}]
    assert [each.scorer for each in read(tmp_path, rows, scorer="integer")] == ["integer", "math"]


def test_tests_of_a_program_stand_in_place_of_its_answer(tmp_path: Path) -> None:
    tests = {"inputs": ["1"], "outputs": ["2"]}
    human_eval = {"task_id": "HumanEval/0", "prompt": "def f():\n    pass\n", "entry_point": "f", "test": "assert f()"}
    own, published = read(tmp_path, [{"id": "own", "problem": "Double it.", "tests": tests}, human_eval])
    assert (own.scorer, own.answer) == ("code", "")
    assert own.tests is not None
    assert own.tests.read() == read_tests(tests)
    assert (published.id, published.scorer) == ("HumanEval/0", "code")
    assert "def f():" in published.text
    assert (own.published, published.published) == ("", human_eval["prompt"])
    assert published.tests is not None
    assert isinstance(published.tests.read(), ExaminedTests)
    for row, words in (
        ({"problem": "q", "tests": {"inputs": []}}, r"rows.jsonl:1: tests.inputs \[\] is not a list"),
        ({"problem": "q", "tests": tests, "scorer": "math"}, "has tests and scorer 'math'"),
    ):
        with pytest.raises(BadInputError, match=words):
            read(tmp_path, [row])


def test_rows_of_a_config_map_are_read_where_it_is_mounted(tmp_path: Path) -> None:
    mounted = tmp_path / "configmaps" / "questions"
    mounted.mkdir(parents=True)
    (mounted / "rows.jsonl").write_text(json.dumps({"problem": "1+1?", "answer": "2"}))
    benchmark = Benchmark(name="own", uri="configmap://questions/rows.jsonl", max_tokens=8)
    [question] = load_questions(benchmark, Layout(tmp_path), download_to=tmp_path)
    assert question == Question("0", "1+1?", "2", "math")


def test_gpqa_is_read_from_its_own_csv(tmp_path: Path, hub: Hub) -> None:
    header = "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3\n"
    hub.add(
        "dataset", "Idavidrein/gpqa", {"gpqa_diamond.csv": (header + 'rec1,"Why?\nAnd so?",right,w1,w2,w3\n').encode()}
    )
    benchmark = Benchmark(name="gpqa-diamond", uri="hf://Idavidrein/gpqa/gpqa_diamond.csv", max_tokens=8)
    [question] = load_questions(benchmark, Layout(tmp_path), download_to=tmp_path, seed=1)
    assert (question.id, question.scorer, question.problem) == ("rec1", "letter", "Why?\nAnd so?")
    assert question.choices["ABCD".index(question.answer)] == "right"


def test_built_in_benchmark_reads_its_only_split(tmp_path: Path, hub: Hub) -> None:
    row = json.dumps({"id": 60, "problem": "p", "answer": "204"}) + "\n"
    hub.add("dataset", "HuggingFaceH4/aime_2024", {"data/train-00000.jsonl": row.encode()})
    uri = "hf://HuggingFaceH4/aime_2024"
    benchmark = Benchmark(name="aime24", uri=uri, max_tokens=8, scorer="integer")
    [question] = load_questions(benchmark, Layout(tmp_path), download_to=tmp_path)
    assert (question.id, question.answer, question.scorer) == ("60", "204", "integer")
    other = Benchmark(name="mine", uri=uri, max_tokens=8)
    with pytest.raises(BadInputError, match="no file is named for split 'test'"):
        load_questions(other, Layout(tmp_path), download_to=tmp_path)


def test_hashes_say_which_file_and_which_exam_it_was(tmp_path: Path) -> None:
    questions = read(tmp_path, [CITY, {"problem": "1+1?", "answer": "2"}])
    benchmark = Benchmark(name="own", uri=f"file://{tmp_path}/rows.jsonl", max_tokens=8)
    [file] = source_files(benchmark, Layout(tmp_path), download_to=tmp_path)
    assert file_hashes([file]) == {"rows.jsonl": hashlib.sha256(file.read_bytes()).hexdigest()}
    assert questions_hash(questions) != questions_hash(questions[:1])
    assert questions_hash(questions) != questions_hash(read(tmp_path, [CITY, {"problem": "1+1?", "answer": "3"}]))


def test_rows_of_several_files_of_the_hub_are_read_in_their_order(tmp_path: Path, hub: Hub) -> None:
    files = {f"{name}.jsonl": json.dumps({"id": name, "problem": "p", "answer": "1"}) for name in ("b", "a", "c")}
    hub.add("dataset", "own/rows", {name: text.encode() for name, text in files.items()})
    benchmark = Benchmark(name="own", uri="hf://own/rows/b.jsonl,a.jsonl", max_tokens=8)
    read_first = load_questions(benchmark, Layout(tmp_path), download_to=tmp_path)
    assert [question.id for question in read_first] == ["b", "a"]
    assert load_questions(benchmark, Layout(tmp_path), download_to=tmp_path) == read_first
