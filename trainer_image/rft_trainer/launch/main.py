"""``rft-launch <stage>``: process 1 of a pod.

Invariants: SIGTERM is never passed on while ranks train: it becomes the stop file, on which the ranks agree at a step
boundary. Whatever happens, ``result.json`` and the termination message are written, and a stage counts as completed
only if its own process said so.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from rft_trainer.contract import (
    ENV_ATTEMPT,
    ENV_NODE_RANK,
    ENV_STAGE,
    RENDEZVOUS_PORT,
    ExitCode,
    Outcome,
    RunConfig,
    Stage,
)
from rft_trainer.errors import BadInputError, DrainedError, StageError
from rft_trainer.launch.child import KILL_SECONDS, Child, become_subreaper
from rft_trainer.launch.commands import stage_command, stage_environment
from rft_trainer.launch.gang import Bounds, Gang, assemble, read_hostfile
from rft_trainer.launch.hang import Hang, HangWatch, secure_evidence
from rft_trainer.launch.output import make_pipes
from rft_trainer.launch.verdict import judge, stalled
from rft_trainer.paths import Layout
from rft_trainer.results import failed, write_result, write_termination_message
from rft_trainer.stage_results import StageResult

ENV_GRACE_SECONDS = "RFT_GRACE_SECONDS"
ENV_PORT = "RFT_RENDEZVOUS_PORT"
_POLL_SECONDS = 0.1


class StopRequest:
    """Remembers the first SIGTERM or SIGINT and writes the stop file.

    ``early`` are those that came before, and may still come until this one listens.
    """

    def __init__(self, layout: Layout, *, grace_seconds: float, early: Sequence[int] = ()) -> None:
        self._layout = layout
        self._grace_seconds = grace_seconds
        self._asked_at: float | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)
        for asked in early:
            self._handle(asked, None)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            self._tell()

    def _tell(self) -> None:
        """Leave the stop file: an empty one, for which also a full disk has room, as of a node that evicts for it."""
        with contextlib.suppress(OSError):
            self._layout.stop_file.touch()

    def asked(self) -> bool:
        """Whether a stop was asked for."""
        return self._asked_at is not None

    def overdue(self) -> bool:
        """Whether the grace, less the time we need ourselves, is used up."""
        if self.asked() and not self._layout.stop_file.exists():
            self._tell()
        return self._left_seconds() < self._slack_seconds

    def kill_seconds(self) -> float:
        """How long processes may take to die: half of the slack is kept to say how the stage ended."""
        return max(self._slack_seconds / 4, min(KILL_SECONDS, self._left_seconds() - self._slack_seconds / 2))

    @property
    def _slack_seconds(self) -> float:
        return min(5.0, self._grace_seconds / 5)

    def _left_seconds(self) -> float:
        return math.inf if self._asked_at is None else self._asked_at + self._grace_seconds - time.monotonic()


def main(arguments: Sequence[str] | None = None, *, early: Sequence[int] = ()) -> int:
    """Run the stage; returns the pod's exit code. ``early``: signals that came before (rft_trainer.launch.entry)."""
    parser = argparse.ArgumentParser(prog="rft-launch", description="Run one stage of a finetune in this pod.")
    parser.add_argument("stage", nargs="?", choices=[stage.value for stage in Stage], default=os.environ.get(ENV_STAGE))
    parser.add_argument("--root", type=Path, default=Path("/rft"), help="directory that stands for /rft")
    parsed = parser.parse_args(arguments)
    if parsed.stage not in list(Stage):
        parser.error(f"stage is {parsed.stage!r}: give one of {', '.join(Stage)}, or set {ENV_STAGE}")
    stage, layout = Stage(parsed.stage), Layout(parsed.root.absolute())
    layout.run.mkdir(parents=True, exist_ok=True)
    for stale in (layout.stop_file, layout.result_file, layout.progress_file, layout.dump_request):
        stale.unlink(missing_ok=True)
    for directory in (layout.errors, layout.heartbeats, layout.stacks, layout.output):
        shutil.rmtree(directory, ignore_errors=True)
    try:
        result, code = run(stage, layout, early)
    except StageError as error:
        outcome = Outcome.DRAINED if isinstance(error, DrainedError) else Outcome.FAILED
        result = failed(stage, str(error)).model_copy(update={"outcome": outcome})
        code = error.exit_code
    except OSError as error:  # of a volume or a network: the next attempt may find it well
        traceback.print_exc()
        result, code = failed(stage, f"{type(error).__name__}: {error}"), 1
    for write, path in ((write_result, layout.result_file), (write_termination_message, layout.termination_log)):
        try:
            write(path, result)
        except OSError:  # a full disk of the node: what can be said is said, and the exit code in any case
            traceback.print_exc()
    if result.error is not None:
        sys.stderr.write(f"rft-launch: {stage.value} {result.outcome.value}: {result.error}\n")
    return code


def run(stage: Stage, layout: Layout, early: Sequence[int] = ()) -> tuple[StageResult, int]:
    """Start the stage's process and watch it to its end."""
    grace_seconds = _number(ENV_GRACE_SECONDS, default=300.0)
    stop = StopRequest(layout, grace_seconds=grace_seconds, early=early)
    become_subreaper()
    config = layout.load_config()
    gang = _gang(config, layout) if stage is Stage.TRAIN else None
    if gang is not None:
        bounds = Bounds(pending_seconds=config.pending_seconds, startup_seconds=config.startup_seconds)
        assemble(gang, bounds=bounds, stopping=stop.asked)
    ranks = make_pipes(layout, gang.ranks) if gang is not None else {}
    environment = stage_environment(dict(os.environ), stage=stage, ranks=len(gang.ranks) if gang is not None else 1)
    child = Child(stage_command(stage, root=layout.root, gang=gang), environment=environment, ranks=ranks)
    try:
        killed, hang = _watch(child, stop, HangWatch(layout, config) if stage is Stage.TRAIN else None)
        error = secure_evidence(hang, layout, config) if hang is not None else None
    finally:
        child.kill(timeout_seconds=stop.kill_seconds())
    if error is not None:
        return stalled(layout, error), ExitCode.STALLED
    return judge(stage, layout, child=child, stop_asked=stop.asked(), killed=killed)


def _watch(child: Child, stop: StopRequest, hangs: HangWatch | None) -> tuple[bool, Hang | None]:
    """Wait for the child; whether the grace ran out first, and the hang if there was one."""
    while not child.poll():
        if stop.overdue():
            return True, None
        hang = hangs.look() if hangs is not None else None
        if hang is not None:
            return False, hang
        time.sleep(_POLL_SECONDS)
    return False, None


def _gang(config: RunConfig, layout: Layout) -> Gang:
    hosts, slots = read_hostfile(layout.hostfile)
    node_rank = int(_number(ENV_NODE_RANK, default=0))
    if not 0 <= node_rank < len(hosts):
        raise BadInputError(
            f"{ENV_NODE_RANK}={node_rank}: the hostfile has {len(hosts)} hosts; give 0..{len(hosts) - 1}"
        )
    ticket = f"{config.uid}/{os.environ.get(ENV_ATTEMPT, '')}"
    port = int(_number(ENV_PORT, default=RENDEZVOUS_PORT))
    return Gang(hosts=hosts, slots=slots, node_rank=node_rank, port=port, ticket=ticket)


def _number(variable: str, *, default: float) -> float:
    text = os.environ.get(variable)
    if text is None or text == "":
        return default
    try:
        return float(text)
    except ValueError as error:
        raise BadInputError(f"{variable}={text!r}: must be a number") from error
