"""From what a stage's processes left behind to one result and one exit code.

Invariant: exit code 0 is given only for a ``result.json`` of this stage that says completed; a drain is only a drain
if a stop was asked for somewhere in the gang and the ranks said so.
"""

from __future__ import annotations

import signal

from rft_trainer.contract import ExitCode, Outcome, Stage
from rft_trainer.files import read_json
from rft_trainer.launch.child import Child
from rft_trainer.paths import Layout
from rft_trainer.results import failed, read_result
from rft_trainer.stage_results import StageResult, TrainSummary

_WITHOUT_STEPS = frozenset({"load", "convert", "export"})
"""Phases in which all that was trained is saved, or nothing was trained yet."""


def judge(stage: Stage, layout: Layout, *, child: Child, stop_asked: bool, killed: bool) -> tuple[StageResult, int]:
    """The stage's result and the pod's exit code."""
    result = read_result(layout.result_file, stage=stage)
    code = child.returncode if child.returncode is not None else -signal.SIGKILL
    if result is not None and result.outcome is Outcome.COMPLETED:
        return result, ExitCode.DONE
    if result is not None and result.outcome is Outcome.DRAINED:
        saved = result.train is not None and result.train.checkpoint_step is not None
        return result, ExitCode.DRAINED if saved else ExitCode.DRAINED_WITHOUT_CHECKPOINT
    train = _train_summary(layout) if stage is Stage.TRAIN else None
    if stop_asked and killed:
        return _out_of_grace(stage, layout, train=train)
    if result is None:
        result = failed(stage, _explain(layout, child, code=code))
    result = result.model_copy(update={"train": result.train or train})
    return result, _exit_code(code)


def _out_of_grace(stage: Stage, layout: Layout, *, train: TrainSummary | None) -> tuple[StageResult, int]:
    """What was asked to stop and did not in time; raising the grace helps where that was the saving of a checkpoint."""
    phase, code = _phase(layout), ExitCode.DRAINED_WITHOUT_CHECKPOINT
    if stage is not Stage.TRAIN:
        error = "the grace period ended before the stage could stop; the next attempt repeats what is not on the volume"
    elif phase in _WITHOUT_STEPS:
        error = f"the grace period ended in the phase {phase}, which the next attempt repeats"
        if train is not None and train.checkpoint_step is not None:
            code = ExitCode.DRAINED
    else:
        error = "the grace period ended before a checkpoint was saved; raise checkpoint.graceSeconds"
    return StageResult(stage=stage, outcome=Outcome.DRAINED, error=error, train=train), code


def _phase(layout: Layout) -> str | None:
    """Where the ranks of this pod stood last, which they come to together."""
    for path in layout.heartbeats.glob("rank-*"):
        words = path.read_text().split(maxsplit=2)
        if len(words) > 1:
            return words[1]
    return None


def stalled(layout: Layout, error: str) -> StageResult:
    """The result of a training that hung."""
    return failed(Stage.TRAIN, error).model_copy(update={"train": _train_summary(layout)})


def _exit_code(code: int) -> int:
    if code < 0:
        return 128 - code
    if code in (ExitCode.DONE, ExitCode.DRAINED, ExitCode.DRAINED_WITHOUT_CHECKPOINT):
        return 1
    return code


def _explain(layout: Layout, child: Child, *, code: int) -> str:
    reports = [report for path in sorted(layout.errors.glob("rank-*.json")) if (report := read_json(path))]
    if reports:
        first = min(reports, key=lambda report: float(report["time"]))
        return f"rank {first['rank']}: {first['error']}"
    number = -code if code < 0 else 256 - code if 192 < code < 256 else 0
    line = child.error_line
    if number:
        hint = ", which is how the kernel ends a process that is out of memory" if number == signal.SIGKILL else ""
        return f"a process was ended by {_signal_name(number)}{hint}; last line: {line}"
    if code == 0:
        return f"the processes ended with code 0 but left no result; last line: {line}"
    return line or f"the process ended with code {code} and said nothing"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _train_summary(layout: Layout) -> TrainSummary | None:
    progress = read_json(layout.progress_file)
    if not isinstance(progress, dict) or "summary" not in progress:
        return None
    try:
        return TrainSummary.model_validate(progress["summary"])
    except ValueError:
        return None
