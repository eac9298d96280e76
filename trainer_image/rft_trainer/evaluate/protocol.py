"""All that a score depends on beside the model, and one hash of it.

Invariant: two scores may be compared only if their protocols have the same hash; whatever can change an answer or its
verdict is part of it, and what cannot (addresses, names of runs) is not.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rft_trainer.benchmarks import Question, questions_hash
from rft_trainer.contract import Benchmark, EvaluationConfig, PromptStyle
from rft_trainer.evaluate.answering import ANSWERING_VERSION
from rft_trainer.evaluate.exchanges import Way
from rft_trainer.evaluate.forcing import FINAL_ANSWER, WAIT, delimiters_of
from rft_trainer.evaluate.prompts import ask
from rft_trainer.evaluate.settings import Setting
from rft_trainer.prepare.formats import Format, Message
from rft_trainer.scoring import judge

VERSION = 1
_SCORER_LIBRARIES = ("math-verify", "latex2sympy2-extended", "sympy", "antlr4-python3-runtime", "reasoning-gym")


@dataclass(frozen=True, kw_only=True)
class Exam:
    """What is asked in an evaluation, and how."""

    evaluation: EvaluationConfig
    format: Format
    questions: Mapping[str, Sequence[Question]]
    """By benchmark."""
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """SHA-256 of the files that a benchmark's rows are from."""

    @property
    def style(self) -> PromptStyle:
        """How questions are put."""
        return self.evaluation.prompt

    def way(self, benchmark: Benchmark, setting: Setting) -> Way:
        """How the questions of a benchmark are asked in one setting."""
        budget = setting.budget(benchmark, self.evaluation)
        return Way(benchmark, budget=budget, delimiters=delimiters_of(self.format))

    def protocol(self, benchmark: Benchmark, setting: Setting, *, engine: Mapping[str, str]) -> dict[str, Any]:
        """The protocol of one score."""
        budget = setting.budget(benchmark, self.evaluation)
        return {
            "version": VERSION,
            "answering": ANSWERING_VERSION,
            "benchmark": benchmark.name,
            "questions": len(self.questions[benchmark.name]),
            "questions_sha256": questions_hash(self.questions[benchmark.name]),
            "prompt": self._prompt(self.questions[benchmark.name]),
            "samples": benchmark.samples,
            "temperature": benchmark.temperature,
            "top_p": benchmark.top_p,
            "max_tokens": benchmark.max_tokens,
            "seed": self.evaluation.seed,
            "batch_size": self.evaluation.batch_size,
            "gpus": self.evaluation.gpus,
            "forcing": None if budget is None else {**asdict(budget), **self._marks()},
            "engine": dict(engine),
            "scorers": self._scorers(benchmark),
        }

    def document(self, *, engine: Mapping[str, str], settings: Sequence[Setting]) -> dict[str, Any]:
        """``protocol.json``: the protocols of all scores, with the values that are the same for all."""
        rows = []
        for benchmark in self.evaluation.benchmarks:
            for setting in settings:
                protocol = self.protocol(benchmark, setting, engine=engine)
                rows.append({"setting": setting.name, "hash": protocol_hash(protocol), "protocol": protocol})
        return {
            "version": VERSION,
            "hash": evaluation_hash([str(row["hash"]) for row in rows]),
            "evaluation": self.evaluation.model_dump(mode="json"),
            "format": self.format,
            "files": {name: dict(files) for name, files in self.files.items()},
            "scores": rows,
        }

    def _scorers(self, benchmark: Benchmark) -> dict[str, str]:
        """What judges this benchmark's answers; programs are run by this very Python."""
        runs = any(question.scorer in judge.SANDBOXED for question in self.questions[benchmark.name])
        return {**scorer_versions(), **({"python": platform.python_version()} if runs else {})}

    def _prompt(self, questions: Sequence[Question]) -> dict[str, Any]:
        """What a model reads around a question, by the kind of question; the chat template is the model's own."""
        kinds = sorted({(each.scorer, bool(each.plain), each.is_function) for each in questions})
        found = {}
        for scorer, has_plain, is_function in kinds:
            plain = "{question}" if has_plain else ""
            blank = Question("", "{question}", "", scorer, plain=plain, is_function=is_function)
            name = " ".join([scorer, *(["function"] if is_function else [])])
            found[name] = [asdict(turn) for turn in self.turns(blank)]
        return found

    def turns(self, question: Question) -> list[Message]:
        """The turns before the answer."""
        return ask(question, format_=self.format, style=self.style)

    def _marks(self) -> dict[str, Any]:
        return {**asdict(delimiters_of(self.format)), "wait": WAIT, "final_answer": FINAL_ANSWER}


def protocol_hash(protocol: Mapping[str, Any]) -> str:
    """SHA-256 of a protocol."""
    return hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()


def evaluation_hash(hashes: Sequence[str]) -> str:
    """One hash of the protocols of all scores, in order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def scorer_versions() -> dict[str, str]:
    """Versions of all that judges answers."""
    found = {"rft": str(judge.VERSION)}
    for library in _SCORER_LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
