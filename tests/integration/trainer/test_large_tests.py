"""Tests of programs as large as LiveCodeBench's: a pod that asks holds none of them, one that judges a problem's."""

from __future__ import annotations

import base64
import json
import pickle
import random
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

PROBLEMS, TESTS, NUMBERS = 16, 8, 60_000
"""About 3.5 MB of tests a problem, 56 MB in all."""
HEAD = """
import resource, sys
from pathlib import Path
from rft_trainer.benchmarks import load_questions, questions_hash
from rft_trainer.contract import Benchmark
from rft_trainer.evaluate.programs import run_programs
from rft_trainer.evaluate.record import AnswerFile, AnswerRecord
from rft_trainer.evaluate.stopping import Stop
from rft_trainer.paths import Layout
from rft_trainer.scoring.verdict import PENDING
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
root = Path(sys.argv[1])
benchmark = Benchmark(name="lcb", uri=f"file://{root}/rows.jsonl", max_tokens=8)
def load(**asked):
    return load_questions(benchmark, Layout(root), download_to=root, **asked)
"""
ASK = """
before = peak()
questions = load(unpack_tests=False)
questions_hash(questions)
print(len(questions), peak() - before)
"""
LOOK_THROUGH = ASK.replace("unpack_tests=False", "unpack_tests=True")
JUDGE = """
questions = load(unpack_tests=False)
answers = AnswerFile(root / "answers.jsonl")
program = "```python\\nprint(len(input()))\\n```"  # fails its first test: what is measured is the judge
for sample in range(2):
    for each in questions:
        answers.append(AnswerRecord(each.id, sample, program, 1, True, None, False, PENDING))
before = peak()
run_programs(answers, questions, stop=Stop(), workers=2)
print(sum(each.reason == "different" for each in answers.records.values()), peak() - before)
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows as the hub has them."""
    root, draw = tmp_path_factory.mktemp("release"), random.Random(7)
    with (root / "rows.jsonl").open("w") as stream:
        for number in range(PROBLEMS):
            inputs = [[draw.randrange(10**6) for _ in range(NUMBERS)] for _ in range(TESTS)]
            cases = [
                {"input": " ".join(map(str, each)) + "\n", "output": f"{sum(each)}\n", "testtype": "stdin"}
                for each in inputs
            ]
            packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(cases)), 1)).decode()
            row = {"question_id": f"q{number}", "question_content": "Add.", "starter_code": "", "metadata": "{}"}
            row |= {"public_test_cases": json.dumps(cases[:1]), "private_test_cases": packed}
            stream.write(json.dumps(row) + "\n")
    return root


@pytest.mark.parametrize(
    ("work", "count", "most_mib"),
    [(ASK, PROBLEMS, 16), (LOOK_THROUGH, PROBLEMS, 40), (JUDGE, 2 * PROBLEMS, 48)],
    ids=["asking", "looking through", "judging"],
)
def test_memory_is_that_of_a_problem_and_not_of_the_benchmark(
    release: Path, work: str, count: int, most_mib: int
) -> None:
    """In a process of its own, for a peak never falls."""
    command = [sys.executable, "-c", HEAD + work, str(release)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found, grown = done.stdout.split()[-2:]
    assert (int(found), float(grown) < most_mib) == (count, True), f"{grown} MiB"
