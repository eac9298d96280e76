"""The questions of a benchmark.

Invariant: training drops exactly the questions that the evaluation will ask, because both read them here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rft_trainer.contract import Benchmark
from rft_trainer.errors import BadInputError
from rft_trainer.gym import gym_questions
from rft_trainer.hub import DATA_FILES, download
from rft_trainer.paths import Layout
from rft_trainer.prepare.rows import data_files, read_rows
from rft_trainer.scoring.judge import check_answer
from rft_trainer.uris import local_path, parse_uri

HELD_OUT_GYM_SEED = 10_000_000
DEFAULT_GYM_QUESTIONS = 100


@dataclass(frozen=True)
class Question:
    """One question, its right answer and how to judge an answer."""

    id: str
    problem: str
    answer: str
    scorer: str
    entry: Mapping[str, Any] | None = None
    """The generator's entry, for scorer ``gym``."""


def load_questions(benchmark: Benchmark, layout: Layout, *, download_to: Path) -> list[Question]:
    """Read a benchmark's questions; raises :class:`BadInputError` naming the row that is wrong."""
    uri = parse_uri(benchmark.uri)
    if uri.scheme == "gym":
        items = gym_questions(
            uri, limit=benchmark.limit, default_size=DEFAULT_GYM_QUESTIONS, default_seed=HELD_OUT_GYM_SEED
        )
        return [Question(str(index), item.question, item.answer, "gym", item.entry) for index, item in enumerate(items)]
    if uri.scheme == "hf":
        path: Path | None = download(uri.target, download_to / benchmark.name, kind="dataset", patterns=DATA_FILES)
    else:
        path = local_path(uri, layout)
    if path is None:
        raise BadInputError(
            f"benchmark {benchmark.name}: uri {benchmark.uri!r} must be hf://, pvc://, file:// or gym://"
        )
    questions: list[Question] = []
    for file in data_files(path, split="test", where=benchmark.uri):
        for where, row in read_rows(file):
            if benchmark.limit is not None and len(questions) >= benchmark.limit:
                return questions
            questions.append(_question(row, where=f"benchmark {benchmark.name}: {where}", index=len(questions)))
    if not questions:
        raise BadInputError(f"benchmark {benchmark.name}: {benchmark.uri} has no questions")
    return questions


def _question(row: Mapping[str, Any], *, where: str, index: int) -> Question:
    problem, answer = row.get("problem", row.get("question")), row.get("answer")
    if not isinstance(problem, str) or answer is None:
        raise BadInputError(f"{where}: needs the fields problem and answer")
    scorer = str(row.get("scorer", "math"))
    try:
        check_answer(scorer, str(answer))
    except BadInputError as error:
        raise BadInputError(f"{where}: {error}") from error
    choices = row.get("choices")
    if isinstance(choices, list) and choices:
        lines = [f"{chr(ord('A') + number)}) {choice}" for number, choice in enumerate(choices)]
        problem = "\n".join([problem, *lines])
    return Question(str(row.get("id", index)), problem, str(answer), scorer)
