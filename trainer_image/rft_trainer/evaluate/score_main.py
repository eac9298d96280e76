"""The Score stage's process: runs the programs that the models answered with, and puts the scores together.

Invariant: it needs no GPU, no network and no model, and writes to the evaluation's folder alone. The scores are those
that the Evaluate stage would have found, had it been a place to run programs in: of an evaluation that was ended by its
bound, those of the part that was answered.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

from rft_trainer.contract import Outcome, Stage
from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.main import exam_of
from rft_trainer.evaluate.session import Candidate, Session
from rft_trainer.evaluate.stopping import Stop
from rft_trainer.evaluate.waiting import Answered, Waiting, answered_model
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.report import Reporter, Work
from rft_trainer.sandbox.sandbox import Sandbox
from rft_trainer.stage_main import parse_layout, run_stage
from rft_trainer.stage_results import StageResult


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m rft_trainer.evaluate.score_main``."""
    layout = parse_layout(arguments, description="Run the programs among the answers, and score.")
    return run_stage(Stage.SCORE, layout, score)


def score(layout: Layout) -> StageResult:
    """Judge what waits; raises SandboxError where programs cannot be run safely."""
    config = layout.load_config()
    if config.evaluation is None:
        raise BadInputError("evaluation: is absent from run.json; nothing is to be scored")
    with Sandbox() as sandbox:
        report = sandbox.report()
    sys.stdout.write(f"sandbox: Python {report.python}, namespaces {', '.join(report.namespaces) or 'none'}\n")
    paths = RunPaths.of(layout, config)
    waiting = Waiting.read(paths.evaluation)
    session = Session(
        exam=exam_of(config, layout, paths),
        directory=paths.evaluation,
        artifacts=paths.pod_path(paths.evaluation),
        stop=Stop(stop_file=layout.stop_file),
        work=Work(Reporter.from_environment()),
        baselines=layout.baselines,
        programs=True,
        ended=waiting.stopped,
    )
    base = None if waiting.base is None else _candidate(waiting.base, waiting)
    summary = session.run(_candidate(waiting.trained, waiting), base)
    if session.interrupted:
        error = "stopped as asked; the verdicts so far are kept, and the next attempt goes on"
        return StageResult(stage=Stage.SCORE, outcome=Outcome.DRAINED, error=error)
    return StageResult(stage=Stage.SCORE, outcome=Outcome.COMPLETED, evaluate=summary)


def _candidate(it: Answered, waiting: Waiting) -> Candidate:
    load = partial(answered_model, it.name, engine=waiting.engine)
    return Candidate(name=it.name, fingerprint=it.fingerprint, load=load)


if __name__ == "__main__":
    sys.exit(main())
