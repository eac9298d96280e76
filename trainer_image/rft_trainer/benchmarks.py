"""The questions of a benchmark.

Invariant: training drops exactly the questions that the evaluation will ask, because both read them here. The choices
of a question are shown in an order that follows from the seed and the question's id alone, so everybody who names the
seed sits the same exam.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rft_trainer.contract import Benchmark
from rft_trainer.errors import BadInputError
from rft_trainer.gym import gym_questions
from rft_trainer.hub import DATA_FILES, download
from rft_trainer.paths import Layout
from rft_trainer.prepare.rows import data_files
from rft_trainer.presets import BENCHMARKS
from rft_trainer.question_rows import placed_rows
from rft_trainer.scoring.code_rows import code_question, plain_problem, published_problem, row_tests
from rft_trainer.scoring.code_tests import read_tests
from rft_trainer.scoring.judge import check_answer
from rft_trainer.stored_tests import StoredTests, stored_tests
from rft_trainer.uris import local_path, parse_uri

HELD_OUT_GYM_SEED = 10_000_000
DEFAULT_GYM_QUESTIONS = 100
MOST_CHOICES = 10
"""The letters A to J."""
_PROBLEM = ("problem", "question", "Question")
_ID = ("id", "ID", "unique_id", "Record ID")
_GPQA_RIGHT, _GPQA_WRONG = "Correct Answer", "Incorrect Answer "


@dataclass(frozen=True)
class Question:
    """One question, its right answer and how to judge an answer."""

    id: str
    problem: str
    answer: str
    """Of a question with choices: the letter that the right one is shown under. Empty where ``tests`` stand for it."""
    scorer: str
    entry: Mapping[str, Any] | None = None
    """The generator's entry, for scorer ``gym``."""
    choices: tuple[str, ...] = ()
    """In the order in which they are shown."""
    tests: StoredTests | None = None
    """Of a question that is answered by a program."""
    plain: str = ""
    """Of a program: the problem alone, for those who have their own words for the form of the answer."""
    is_function: bool = False
    """Of a program: whether it is a function that is called."""
    published: str = ""
    """Of a program: the problem as its benchmark has it, where that is put in other words here."""

    @property
    def text(self) -> str:
        """The question as a model reads it."""
        return "\n".join([self.problem, *(f"{_letter(index)}) {it}" for index, it in enumerate(self.choices))])


def load_questions(
    benchmark: Benchmark, layout: Layout, *, download_to: Path, seed: int = 0, unpack_tests: bool = True
) -> list[Question]:
    """Read a benchmark's questions; raises :class:`BadInputError` naming the row that is wrong.

    ``seed`` is that of the order of choices. ``unpack_tests``: whether tests of programs are looked through as well,
    one problem at a time, which need not be done again where it was done before.
    """
    uri = parse_uri(benchmark.uri)
    if uri.scheme == "gym":
        items = gym_questions(
            uri, limit=benchmark.limit, default_size=DEFAULT_GYM_QUESTIONS, default_seed=HELD_OUT_GYM_SEED
        )
        return [Question(str(index), item.question, item.answer, "gym", item.entry) for index, item in enumerate(items)]
    questions: dict[str, Question] = {}
    for file in source_files(benchmark, layout, download_to=download_to):
        for place, row, at in placed_rows(file):
            if benchmark.limit is not None and len(questions) >= benchmark.limit:
                return list(questions.values())
            where = f"benchmark {benchmark.name}: {place}"
            code = code_question(row)
            found = _question(code or row, where=where, index=len(questions), seed=seed, scorer=benchmark.scorer)
            if found.scorer == "code" and not found.answer:
                if unpack_tests:
                    _check_tests(row, where=where)
                plain, is_function = plain_problem(row) or ("", False)
                tests = stored_tests(row, file=file, at=at)
                found = replace(
                    found,
                    answer="",
                    tests=tests,
                    plain=plain,
                    is_function=is_function,
                    published=published_problem(row) or "",
                )
            if found.id in questions:
                raise BadInputError(f"{where}: id {found.id!r} is another question's too; give each its own")
            questions[found.id] = found
    if not questions:
        raise BadInputError(f"benchmark {benchmark.name}: {benchmark.uri} has no questions")
    return list(questions.values())


def source_files(benchmark: Benchmark, layout: Layout, *, download_to: Path) -> list[Path]:
    """The files that the rows are read from, in order; none for a generator."""
    uri = parse_uri(benchmark.uri)
    if uri.scheme == "gym":
        return []
    if uri.scheme == "hf":
        folder, _, names = uri.target.rpartition("/")
        if "," in names:
            places = {name: download_to / benchmark.name / name for name in names.split(",")}
            return [_from_hub(f"{folder}/{name}", place) for name, place in places.items()]
        path: Path | None = _from_hub(uri.target, download_to / benchmark.name)
    else:
        path = local_path(uri, layout)
    if path is None:
        raise BadInputError(
            f"benchmark {benchmark.name}: uri {benchmark.uri!r} must be hf://, pvc://, file://, configmap:// or gym://"
        )
    known = BENCHMARKS.get(benchmark.name)
    split = known.split if known is not None and known.uri == benchmark.uri else "test"
    return data_files(path, split=split, where=benchmark.uri)


def _from_hub(target: str, destination: Path) -> Path:
    return download(target, destination, kind="dataset", patterns=(*DATA_FILES, "*.csv"))


def file_hashes(files: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of each file, as ``sha256sum`` prints it."""
    hashes = {}
    for path in files:
        with path.open("rb") as stream:
            hashes[path.name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashes


def questions_hash(questions: Sequence[Question]) -> str:
    """SHA-256 of the exam: what is asked, in which order, and what is right."""
    rows = [
        [each.id, each.text, each.answer if each.tests is None else each.tests.sha256, each.scorer]
        for each in questions
    ]
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode(errors="surrogatepass")).hexdigest()


def _question(row: Mapping[str, Any], *, where: str, index: int, seed: int, scorer: str | None) -> Question:
    problem, answer = _first(row, *_PROBLEM), _right(row, where=where)
    choices, right = _choices(row, where=where)
    if not isinstance(problem, str) or not problem.strip() or (answer is None and right is None):
        raise BadInputError(f"{where}: needs the fields problem and answer")
    name = str(_first(row, *_ID) if _first(row, *_ID) is not None else index)
    shown: tuple[str, ...] = ()
    if right is not None:
        order = _shuffled(len(choices), seed=seed, question=name)
        shown, answer = tuple(choices[each] for each in order), _letter(order.index(right))
    own = row.get("scorer") or ("code" if row.get("tests") is not None else None)
    judged_by = str(own or scorer or ("letter" if shown else "math"))
    if shown and judged_by != "letter":
        raise BadInputError(f"{where}: scorer {judged_by!r} cannot judge a choice; use letter, or remove choices")
    try:
        if row.get("tests") is None:
            check_answer(judged_by, str(answer))
    except BadInputError as error:
        raise BadInputError(f"{where}: {error}") from error
    return Question(name, problem.strip() if shown else problem, str(answer), judged_by, choices=shown)


def _right(row: Mapping[str, Any], *, where: str) -> Any:
    """The right answer; of a program nothing, for its tests stay where they are."""
    if row.get("tests") is None:
        answer = row.get("answer")
        if isinstance(answer, dict) or (isinstance(answer, float) and not math.isfinite(answer)):
            raise BadInputError(f"{where}: answer {answer!r} is neither a text nor a number, and nobody could give it")
        return answer
    if row.get("scorer") not in (None, "code"):
        raise BadInputError(f"{where}: has tests and scorer {row['scorer']!r}; tests are for scorer code")
    return ""


def _check_tests(row: Mapping[str, Any], *, where: str) -> None:
    try:
        read_tests(row_tests(row))
    except BadInputError as error:
        raise BadInputError(f"{where}: {error}") from error


def _choices(row: Mapping[str, Any], *, where: str) -> tuple[list[str], int | None]:
    """The choices as the row has them, and which one is right; None where there are none."""
    if row.get(_GPQA_RIGHT) is not None:
        wrong = [str(value) for name, value in row.items() if name.startswith(_GPQA_WRONG) and value]
        return [str(row[_GPQA_RIGHT]).strip(), *(each.strip() for each in wrong)], 0
    given = row.get("choices")
    if given is None or given == []:
        return [], None
    if not isinstance(given, list) or not 2 <= len(given) <= MOST_CHOICES:
        raise BadInputError(f"{where}: choices must be a list of 2 to {MOST_CHOICES} texts")
    choices, answer = [str(each) for each in given], str(row.get("answer", "")).strip()
    letters = [_letter(index) for index in range(len(choices))]
    if answer in letters:
        return choices, letters.index(answer)
    if choices.count(answer) == 1:
        _check_position(row["answer"], given, where=where)
        return choices, choices.index(answer)
    raise BadInputError(
        f"{where}: answer {answer!r} is neither one of the choices nor its letter, {', '.join(letters)}"
    )


def _check_position(answer: Any, choices: list[Any], *, where: str) -> None:
    """Raise :class:`BadInputError` for a number that may be one of the choices, or the place of another one (MMLU)."""
    if isinstance(answer, bool) or not isinstance(answer, int):
        return
    if answer in choices or not 0 <= answer < len(choices):
        return
    if choices[answer] != str(answer):
        raise BadInputError(
            f"{where}: answer {answer} may be one of the choices, or the place of {choices[answer]!r} among them; "
            "write the letter of the right one, or its text in quotes"
        )


def _shuffled(count: int, *, seed: int, question: str) -> list[int]:
    """A permutation that no version of any library can change."""
    return sorted(range(count), key=lambda index: hashlib.sha256(f"{seed}/{question}/{index}".encode()).digest())


def _letter(index: int) -> str:
    return chr(ord("A") + index)


def _first(row: Mapping[str, Any], *names: str) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
