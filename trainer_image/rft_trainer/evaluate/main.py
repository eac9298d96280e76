"""The Evaluate stage's process.

Invariant: the model measured is the newest there is: the export, or the newest complete checkpoint after a stop. No
question was trained on, else the stage fails; an evaluation that fails gives an error, never a score of 0.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rft_trainer.benchmarks import Question, load_questions
from rft_trainer.contract import Benchmark, EvaluateSummary, Outcome, RunConfig, Score, Stage, StageResult
from rft_trainer.errors import BadInputError
from rft_trainer.files import write_json
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.prepare.dataset import load, question_hash
from rft_trainer.report import Reporter, Work
from rft_trainer.scoring import Judge
from rft_trainer.stage_main import parse_layout, run_stage

if TYPE_CHECKING:
    from rft_trainer.evaluate.runner import Measured


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m rft_trainer.evaluate.main``."""
    layout = parse_layout(arguments, description="Score the trained model and its baseline.")
    return run_stage(Stage.EVALUATE, layout, evaluate)


def evaluate(layout: Layout) -> StageResult:
    """Measure every benchmark; raises :class:`BadInputError` when there is nothing to measure."""
    import torch

    from rft_trainer.evaluate.runner import Model, Runner, settings_of
    from rft_trainer.evaluate.transformers_sampler import TransformersSampler
    from rft_trainer.prepare.chat import ChatRenderer

    started = time.monotonic()
    config = layout.load_config()
    evaluation = config.evaluation
    if evaluation is None:
        raise BadInputError("evaluation: is absent from run.json; nothing is to be measured")
    paths = RunPaths.of(layout, config)
    questions = {
        b.name: load_questions(b, layout, download_to=paths.data / "benchmarks") for b in evaluation.benchmarks
    }
    _check_held_out(questions, paths)
    step = _trained_model(config, paths)
    models = [(f"step-{step}", paths.export)]
    if evaluation.baseline == "measure":
        models.append(("base", paths.model))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = settings_of(evaluation)
    measured: dict[tuple[str, str, int | None], Measured] = {}
    work = Work(Reporter.from_environment())
    total = len(models) * len(settings) * sum(len(questions[b.name]) * b.samples for b in evaluation.benchmarks)
    with Judge() as judge:
        deadline = started + evaluation.max_seconds
        runner = Runner(
            config, layout, directory=paths.evaluation, judge=judge, deadline=deadline, work=work, total=total
        )
        for name, path in models:
            sampler = TransformersSampler(path, device=device)
            model = Model(name, sampler=sampler, render=ChatRenderer(sampler.tokenizer).prompt)
            for b in evaluation.benchmarks:
                for waits, score in runner.measure(model, benchmark=b, questions=questions[b.name]).items():
                    measured[name, b.name, waits] = score
            del sampler, model
            if device.type == "cuda":
                torch.cuda.empty_cache()
    work.close()
    scores = tuple(
        _row(b, waits, trained=measured[models[0][0], b.name, waits], base=measured.get(("base", b.name, waits)))
        for b in evaluation.benchmarks
        for waits in settings
    )
    return _finish(paths, scores)


def _row(benchmark: Benchmark, waits: int | None, *, trained: Measured, base: Measured | None) -> Score:
    metric = "accuracy" if benchmark.samples == 1 else f"mean@{benchmark.samples}"
    return Score(
        benchmark=benchmark.name,
        metric=metric if waits is None else f"{metric}@wait={waits}",
        value=trained.value,
        stderr=trained.stderr,
        questions=trained.questions,
        samples=benchmark.samples,
        no_answer=trained.no_answer,
        baseline=base.value if base is not None else None,
        baseline_stderr=base.stderr if base is not None else None,
    )


def _finish(paths: RunPaths, scores: tuple[Score, ...]) -> StageResult:
    summary = EvaluateSummary(scores=scores, artifacts=paths.pod_path(paths.evaluation))
    write_json(paths.evaluation / "results.json", summary.model_dump())
    for score in scores:
        base = "" if score.baseline is None else f", base {score.baseline:.3f}"
        sys.stdout.write(f"{score.benchmark}: {score.metric} {score.value:.3f} +- {score.stderr:.3f}{base}\n")
    return StageResult(stage=Stage.EVALUATE, outcome=Outcome.COMPLETED, evaluate=summary)


def _check_held_out(questions: dict[str, list[Question]], paths: RunPaths) -> None:
    trained = load(paths.dataset).question_hashes
    for name, asked in questions.items():
        if not asked:
            raise BadInputError(f"benchmark {name}: has no questions")
        shared = [question.id for question in asked if question_hash(question.problem) in trained]
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
        raise BadInputError(f"{_name(paths.data)}: has neither an export nor a complete checkpoint; train first")
    return step


def _name(path: Path) -> str:
    return path.name


if __name__ == "__main__":
    sys.exit(main())
