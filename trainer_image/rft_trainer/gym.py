"""Questions from reasoning-gym's seeded generators.

Invariant: the same URI gives the same questions in the same order, each question once. A generator draws item i from
seed + i, so seeds must lie further apart than the sizes; held-out questions are dropped by their text as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rft_trainer.errors import BadInputError
from rft_trainer.gym_answers import may_be_scored
from rft_trainer.prepare.traces import TRACES
from rft_trainer.uris import Uri

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


def gym_verifier(uri: Uri) -> Verify:
    """The generator's own scorer: (answer, entry) -> 0..1; None for an answer that it cannot read, or might run."""
    data = open_gym(uri, size=1, seed=0)

    def verify(answer: str, entry: Mapping[str, Any]) -> float | None:
        if not may_be_scored(uri.target, answer):
            return None
        try:
            return float(data.score_answer(answer, entry))
        except Exception:  # some of them take for granted that they are given a number
            return None

    return verify
