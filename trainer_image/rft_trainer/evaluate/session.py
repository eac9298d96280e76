"""An evaluation from its questions to its results, in a pod or anywhere else.

Invariant: models are loaded one after another, the trained one first; whatever ends the evaluation early leaves its
answers on disk and a result that says that it is partial. An answer that was given counts, also when it is a program
that waits to be run. What an earlier run paid for is not paid for again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rft_trainer.contract import Benchmark
from rft_trainer.evaluate.base_answers import key_of, taken_over, to_hand_on
from rft_trainer.evaluate.measured import Measured
from rft_trainer.evaluate.plots import write_plots
from rft_trainer.evaluate.programs import run_programs
from rft_trainer.evaluate.protocol import Exam
from rft_trainer.evaluate.runner import Model, Runner
from rft_trainer.evaluate.settings import Setting, settings_of
from rft_trainer.evaluate.stopping import Reason, Stop, StoppedError
from rft_trainer.evaluate.summary import Findings, Place, line, summarise
from rft_trainer.evaluate.waiting import Answered, Waiting, answered_model
from rft_trainer.files import read_json, write_atomic, write_json
from rft_trainer.report import Work
from rft_trainer.scoring import Judge
from rft_trainer.stage_results import BaseAnswers, EvaluateSummary

BASE = "base"
ENGINE = "-engine.json"
"""Ends the name of the file that says which engine gave a model's answers."""
USED = "taken-over"
"""Folder beside the answers with what was taken over from earlier runs."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model that can be loaded."""

    name: str
    """Names the weights in files, step included."""
    fingerprint: str
    """Tells these weights from any others."""
    load: Callable[[], Model]
    unload: Callable[[], None] = lambda: None
    """Called when the model is not needed any more."""


@dataclass(kw_only=True)
class Session:
    """One evaluation."""

    exam: Exam
    directory: Path
    """Of answers and results; what is there is gone on with."""
    artifacts: str
    """The name of that folder for others."""
    stop: Stop
    work: Work
    baselines: Path
    """Folder of base models' answers of earlier runs; need not exist."""
    programs: bool = False
    """Whether programs among the answers may be run here; else they wait for a place where they may."""
    ended: Reason | None = None
    """Why no more is asked, where the answers are those of an evaluation that was ended before it had all of them."""
    _stopped: StoppedError | None = field(default=None, init=False)
    _engine: dict[str, str] | None = field(default=None, init=False)
    _base_answers: list[BaseAnswers] = field(default_factory=list, init=False)

    @property
    def interrupted(self) -> bool:
        """Whether this very session was stopped; the next one goes on where it was."""
        return self._stopped is not None

    def run(self, trained: Candidate, base: Candidate | None) -> EvaluateSummary:
        """Measure; ``stopped`` of the summary says if there was not time for all."""
        candidates = [trained, *([base] if base is not None else [])]
        found: dict[str, dict[Place, Measured]] = {trained.name: {}, BASE: {}}
        with Judge(programs=self.programs) as judge, self.stop.watching():
            total = len(candidates) * len(self._settings) * sum(map(self._answers_of, self._benchmarks))
            runner = Runner(
                self.exam, directory=self.directory, judge=judge, stop=self.stop, work=self.work, total=total
            )
            for candidate in candidates:
                is_base = candidate is base
                measured = self._measure(runner, candidate, is_base=is_base)
                found[BASE if is_base else trained.name] = measured
                if self._stopped is not None:
                    break
        self.work.close()
        pending = sum(each.pending for results in found.values() for each in results.values())
        if pending and not self.programs:
            return self._wait(trained, base, pending=pending)
        return self._finish(trained, base, found)

    @property
    def _stopped_for(self) -> Reason | None:
        return self.ended if self._stopped is None else self._stopped.reason

    @property
    def _settings(self) -> Sequence[Setting]:
        return settings_of(self.exam.evaluation)

    @property
    def _benchmarks(self) -> Sequence[Benchmark]:
        return self.exam.evaluation.benchmarks

    def _answers_of(self, benchmark: Benchmark) -> int:
        return benchmark.samples * len(self.exam.questions[benchmark.name])

    def _measure(self, runner: Runner, candidate: Candidate, *, is_base: bool) -> dict[Place, Measured]:
        found = self._known(candidate) if is_base else {}
        missing = {
            benchmark.name: [each for each in self._settings if (benchmark.name, each.name) not in found]
            for benchmark in self._benchmarks
        }
        for benchmark in self._benchmarks:
            runner.skip((len(self._settings) - len(missing[benchmark.name])) * self._answers_of(benchmark))
        if not any(missing.values()):
            return found
        model = self._loaded(candidate)
        if model is None:
            return found
        try:
            for benchmark in self._benchmarks:
                if missing[benchmark.name] and self._stopped is None:
                    self._answer(runner, model, benchmark, settings=missing[benchmark.name])
        except StoppedError as error:
            self._stopped = error
        for benchmark in self._benchmarks:
            for setting in missing[benchmark.name]:
                measured = runner.measured(model, benchmark, setting)
                found[benchmark.name, setting.name] = measured
                if is_base:
                    self._hand_on(candidate, benchmark, setting, measured)
        del model
        candidate.unload()
        return found

    def _loaded(self, candidate: Candidate) -> Model | None:
        """The model or, when there is no time to load it, what counts its earlier answers; None without any."""
        file = self.directory / f"{candidate.name}{ENGINE}"
        try:
            with self.stop.waiting():
                model = candidate.load()
        except StoppedError as error:
            self._stopped = error
            found = read_json(file)
            if not isinstance(found, dict) or found.get("fingerprint") != candidate.fingerprint:
                return None
            self._engine = found["engine"]
            return answered_model(candidate.name, engine=self._engine or {})
        self._engine = dict(model.sampler.identity)
        write_json(file, {"fingerprint": candidate.fingerprint, "engine": self._engine})
        return model

    def _answer(self, runner: Runner, model: Model, benchmark: Benchmark, *, settings: Sequence[Setting]) -> None:
        if self.ended is None:
            runner.answer(model, benchmark, settings=settings)
            return
        for setting in settings:
            answers = runner.answers(model, benchmark, setting)
            run_programs(answers, self.exam.questions[benchmark.name], stop=self.stop)

    def _known(self, base: Candidate) -> dict[Place, Measured]:
        """What earlier runs measured of the base model."""
        found: dict[Place, Measured] = {}
        for benchmark in self._benchmarks:
            for setting in self._settings:
                key = self._key(base, benchmark, setting)
                asked = len(self.exam.questions[benchmark.name])
                known = self._taken_over(key, questions=asked, samples=benchmark.samples)
                if known is not None:
                    found[benchmark.name, setting.name] = known
                    words = f"{benchmark.name} {setting.name}".strip()
                    sys.stdout.write(f"base {words}: taken over from {known.measured_by}, nothing is asked\n")
        return found

    def _taken_over(self, key: str, *, questions: int, samples: int) -> Measured | None:
        """An entry of an earlier run; what was used once stays used, also when the cache forgets it."""
        used = self.directory / USED
        for folder in (used, self.baselines):
            known = taken_over(folder, key, questions=questions, samples=samples)
            if known is not None:
                if folder is not used:
                    write_atomic(used / key, (folder / key).read_bytes())
                return known
        return None

    def _hand_on(self, base: Candidate, benchmark: Benchmark, setting: Setting, measured: Measured) -> None:
        entry = to_hand_on(self._key(base, benchmark, setting), measured)
        if entry is not None:
            self._base_answers.append(entry)

    def _key(self, base: Candidate, benchmark: Benchmark, setting: Setting) -> str:
        return key_of(base.fingerprint, self.exam.protocol(benchmark, setting, engine=self._engine or {}))

    def _wait(self, trained: Candidate, base: Candidate | None, *, pending: int) -> EvaluateSummary:
        """Leave a note of what the programs' verdicts are to be put together with."""
        waiting = Waiting(
            trained=Answered(trained.name, trained.fingerprint),
            base=None if base is None else Answered(base.name, base.fingerprint),
            engine=self._engine or {},
            stopped=self._stopped_for,
        )
        waiting.write(self.directory)
        sys.stdout.write(f"{pending} answers are programs; they wait for a pod that may run them\n")
        return EvaluateSummary(scores=(), artifacts=self.artifacts, pending=pending, stopped=self._stopped_for)

    def _finish(
        self, trained: Candidate, base: Candidate | None, found: Mapping[str, Mapping[Place, Measured]]
    ) -> EvaluateSummary:
        document: dict[str, Any] = self.exam.document(engine=self._engine or {}, settings=self._settings)
        candidates = [trained, *([base] if base is not None else [])]
        findings = Findings(
            exam=self.exam,
            protocol=document,
            model=trained.name,
            trained=found[trained.name],
            base=found[BASE],
            stopped=self._stopped_for,
            base_answers=tuple(self._base_answers),
            models={each.name: each.fingerprint for each in candidates},
        )
        summary, results = summarise(findings, artifacts=self.artifacts)
        write_json(self.directory / "protocol.json", document)
        write_json(self.directory / "results.json", results)
        write_plots(results["scaling"], self.directory)
        for score in summary.scores:
            sys.stdout.write(line(score) + "\n")
        sys.stdout.flush()
        return summary
