"""The Evaluate stage's process.

Invariant: the model measured is the newest there is: the export, or the newest complete checkpoint after a stop. No
question was trained on, else the stage fails; an evaluation that fails gives an error, never a score of 0.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rft_trainer.benchmarks import Question, file_hashes, load_questions, source_files
from rft_trainer.contract import Outcome, RunConfig, Stage
from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.engines import free_memory, loader
from rft_trainer.evaluate.prompts import wordings
from rft_trainer.evaluate.protocol import Exam
from rft_trainer.evaluate.session import BASE, Candidate, Session
from rft_trainer.evaluate.settings import settings_of
from rft_trainer.evaluate.stopping import Stop
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.prepare.dataset import load, question_hash
from rft_trainer.report import Reporter, Work
from rft_trainer.stage_main import parse_layout, run_stage
from rft_trainer.stage_results import EvaluateSummary, StageResult
from rft_trainer.weights import fingerprint


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m rft_trainer.evaluate.main``."""
    layout = parse_layout(arguments, description="Score the trained model and its baseline.")
    return run_stage(Stage.EVALUATE, layout, evaluate)


def evaluate(layout: Layout) -> StageResult:
    """Measure every benchmark; raises :class:`BadInputError` when there is nothing to measure."""
    started = time.monotonic()
    config = layout.load_config()
    evaluation = config.evaluation
    if evaluation is None:
        raise BadInputError("evaluation: is absent from run.json; nothing is to be measured")
    paths = RunPaths.of(layout, config)
    exam = exam_of(config, layout, paths)
    _check_held_out(exam.questions, paths)
    name = f"step-{_trained_model(config, paths)}"
    session = Session(
        exam=exam,
        directory=paths.evaluation,
        artifacts=paths.pod_path(paths.evaluation),
        stop=Stop(deadline=started + evaluation.max_seconds, stop_file=layout.stop_file),
        work=Work(Reporter.from_environment()),
        baselines=layout.baselines,
    )
    base = _candidate(BASE, paths.model, config) if evaluation.baseline == "measure" else None
    return _result(session.run(_candidate(name, paths.export, config), base), exam)


def exam_of(config: RunConfig, layout: Layout, paths: RunPaths) -> Exam:
    """The questions of the evaluation, read from their sources; their tests were looked through by Prepare."""
    assert config.evaluation is not None
    questions, files, folder = {}, {}, paths.data / "benchmarks"
    for each in config.evaluation.benchmarks:
        questions[each.name] = load_questions(
            each, layout, download_to=folder, seed=config.evaluation.seed, unpack_tests=False
        )
        files[each.name] = file_hashes(source_files(each, layout, download_to=folder))
    return Exam(evaluation=config.evaluation, format=config.dataset.format, questions=questions, files=files)


def _candidate(name: str, path: Path, config: RunConfig) -> Candidate:
    assert config.evaluation is not None
    load_model = loader(name, path, config.evaluation)
    return Candidate(name=name, fingerprint=fingerprint(path), load=load_model, unload=free_memory)


def _result(summary: EvaluateSummary, exam: Exam) -> StageResult:
    if summary.stopped is None:
        return StageResult(stage=Stage.EVALUATE, outcome=Outcome.COMPLETED, evaluate=summary)
    why = "evaluation.maxSeconds is used up" if summary.stopped == "deadline" else "stopped as asked"
    error = f"{why}: {_so_far(summary, exam)}; the answers are kept"
    return StageResult(stage=Stage.EVALUATE, outcome=Outcome.DRAINED, error=error, evaluate=summary)


def _so_far(summary: EvaluateSummary, exam: Exam) -> str:
    if summary.pending:
        return f"{summary.pending} answers are programs that wait to be run"
    done = sum(row.of_answers is None for row in summary.scores)
    wanted = len(exam.evaluation.benchmarks) * len(settings_of(exam.evaluation))
    return f"{done} of {wanted} scores are complete"


def _check_held_out(questions: Mapping[str, Sequence[Question]], paths: RunPaths) -> None:
    trained = load(paths.dataset).question_hashes
    for name, asked in questions.items():
        if not asked:
            raise BadInputError(f"benchmark {name}: has no questions")
        shared = [each.id for each in asked if any(question_hash(text) in trained for text in wordings(each))]
        if shared:
            raise BadInputError(
                f"benchmark {name}: {len(shared)} of its questions were trained on, the first is {shared[0]}"
            )


def _trained_model(config: RunConfig, paths: RunPaths) -> int:
    """Make sure that the export is the newest state; returns its step."""
    from rft_trainer.train.checkpoint import newest
    from rft_trainer.train.export import Export, export_checkpoint, exported_step

    step = exported_step(paths.export)
    saved = newest(paths.checkpoints, dataset_sha256=load(paths.dataset).sha256) if paths.checkpoints.is_dir() else None
    if saved is not None and (step is None or saved.step > step):
        export_checkpoint(Export.of(config, paths), saved)
        return saved.step
    if step is None:
        raise BadInputError(f"{paths.data.name}: has neither an export nor a complete checkpoint; train first")
    return step


if __name__ == "__main__":
    sys.exit(main())
