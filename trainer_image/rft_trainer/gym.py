"""Questions from reasoning-gym's seeded generators.

Invariant: the same URI gives the same questions in the same order, each question once. A generator draws item i from
seed + i, so seeds must lie further apart than the sizes; held-out questions are dropped by their text as well.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.gym_answers import EXPRESSIONS, may_be_scored
from rft_trainer.prepare.traces import TRACES
from rft_trainer.scoring.worker import TIMEOUT_SECONDS, WorkerProcess
from rft_trainer.uris import Uri

_ENVIRONMENT = (
    "PATH",
    "HOME",
    "TMPDIR",
    "LANG",
    "LC_ALL",
    "PYTHONPATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
)
_OUR_OPTIONS = frozenset({"size", "seed"})


@dataclass(frozen=True)
class GymQuestion:
    """One generated question, with the generator's own entry for scoring."""

    question: str
    answer: str
    thinking: str
    entry: Mapping[str, Any]


def open_gym(uri: Uri, *, size: int, seed: int) -> Any:
    """The generator as a sequence of entries; raises :class:`BadInputError` on an unknown task or option."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import reasoning_gym

        options = {name: value for name, value in uri.options.items() if name not in _OUR_OPTIONS}
        try:
            return reasoning_gym.create_dataset(uri.target, size=size, seed=seed, **options)
        except (ValueError, TypeError, AssertionError, KeyError) as error:
            raise BadInputError(f"{uri.text}: {error}") from error


def gym_questions(uri: Uri, *, limit: int | None, default_size: int, default_seed: int) -> Iterator[GymQuestion]:
    """The first ``limit`` distinct questions, or as many as the generator's first ``size`` draws hold."""
    size = uri.integer("size", default=default_size if limit is None else 2 * limit + 64, minimum=1)
    data = open_gym(uri, size=size, seed=uri.integer("seed", default=default_seed))
    trace = TRACES.get(uri.target)
    seen: set[str] = set()
    for index in range(size):
        if limit is not None and len(seen) >= limit:
            return
        entry = data[index]
        if entry["question"] in seen or entry["answer"] is None:
            continue
        seen.add(entry["question"])
        thinking = trace(entry["metadata"]) if trace is not None else ""
        yield GymQuestion(question=entry["question"], answer=str(entry["answer"]), thinking=thinking, entry=entry)


Verify = Callable[[str, Mapping[str, Any]], float | None]


class GymVerifier:
    """A generator's own scorer: (answer, entry) -> 0..1; None for an answer that it cannot read, or might run.

    Scorers that do algebra, which may never end, are asked in a process of their own, without this one's tokens.
    """

    def __init__(self, uri: Uri) -> None:
        self._task = uri.target
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        self._worker = WorkerProcess("rft_trainer.gym_worker", uri.text, environment=environment)
        self._score = scorer_here(uri) if uri.target not in EXPRESSIONS else self._score_elsewhere

    def __call__(self, answer: str, entry: Mapping[str, Any]) -> float | None:
        """Judge an answer."""
        return self._score(answer, entry) if may_be_scored(self._task, answer) else None

    def close(self) -> None:
        """End the process, if there is one."""
        self._worker.close()

    def _score_elsewhere(self, answer: str, entry: Mapping[str, Any]) -> float | None:
        packed = base64.b64encode(pickle.dumps(dict(entry))).decode()
        if not self._worker.runs and not self._worker.starts({"answer": "0", "entry": packed}):
            raise StageError(
                f"gym://{self._task}: its scorer does not start; python -m rft_trainer.gym_worker says why"
            )
        line = self._worker.ask({"answer": answer, "entry": packed}, timeout_seconds=TIMEOUT_SECONDS)
        reward = json.loads(line)["reward"] if line else None
        return None if reward is None else float(reward)


def scorer_here(uri: Uri) -> Verify:
    """The scorer in this process; None for what it fails at."""
    data = open_gym(uri, size=1, seed=0)

    def score(answer: str, entry: Mapping[str, Any]) -> float | None:
        try:
            return float(data.score_answer(answer, entry))
        except Exception:  # some of them take for granted that they are given a number
            return None

    return score
