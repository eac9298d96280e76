"""What rank 0 says while it trains: ``progress.json``, lines on stdout, a line a step on the volume, and the report to
the operator.

Invariant: nothing here can slow or fail the training: files are small, and the report has a thread of its own. In
``steps.jsonl`` every step stands once, also after resumes.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rft_trainer.contract import CheckpointConfig
from rft_trainer.files import write_atomic
from rft_trainer.progress_report import Metric, MetricName, TrainerStatus
from rft_trainer.report import Reporter
from rft_trainer.stage_results import TrainSummary
from rft_trainer.train.checkpoint import Checkpoint

FILE_SECONDS = 0.5
LINE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What is measured of one step, over all ranks."""

    tokens: int
    """Without padding."""
    computed_tokens: int
    """With padding."""
    loss: float
    """Mean over the step's trained tokens."""
    loss_max: float
    seconds: float
    mfu: float | None
    slow: tuple[int, float] | None
    """The slow rank and how much longer it takes than the median rank."""


@dataclass
class Meter:
    """The numbers of one training process."""

    total_steps: int
    saves: CheckpointConfig | None = None
    """When the training saves: the time to its end has the saves on the way in it."""
    step: int = 0
    epoch: float = 0.0
    tokens: int = 0
    loss: float | None = None
    loss_max: float | None = None
    learning_rate: float = 0.0
    gradient_norm: float | None = None
    tokens_per_second: float = 0.0
    step_seconds: float = 0.0
    mfu: float | None = None
    slow: tuple[int, float] | None = None
    checkpoint: Checkpoint | None = None
    checkpoint_path: str | None = None
    checkpoint_count: int = 0
    last: StepFacts | None = None
    """The newest step, not smoothed."""
    _timed: int = 0
    """Steps that this process has made."""
    _own_tokens: int = 0
    _own_computed_tokens: int = 0

    def record_step(self, facts: StepFacts) -> None:
        """Count one finished step; speeds are smoothed over about ten steps.

        The first one of a process, in which much is made ready, counts only until there is another.
        """
        self.step += 1
        self.tokens += facts.tokens
        self._own_tokens += facts.tokens
        self._own_computed_tokens += facts.computed_tokens
        self.loss, self.loss_max, self.slow, self.last = facts.loss, facts.loss_max, facts.slow, facts
        self._timed += 1
        weight = max(0.1, 1 / max(1, self._timed - 1))
        seconds = max(facts.seconds, 1e-9)
        self.step_seconds += weight * (seconds - self.step_seconds)
        self.tokens_per_second += weight * (facts.tokens / seconds - self.tokens_per_second)
        if facts.mfu is not None:
            before = self.mfu or 0.0
            self.mfu = before + weight * (facts.mfu - before)

    @property
    def padding_share(self) -> float | None:
        """The share of padding in what this process has computed."""
        return 1 - self._own_tokens / self._own_computed_tokens if self._own_computed_tokens else None

    def checkpoint_age_seconds(self) -> int | None:
        """How much work a loss of all nodes would cost now."""
        if self.checkpoint is None:
            return None
        saved = datetime.datetime.strptime(self.checkpoint.time, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
        return max(0, int((datetime.datetime.now(datetime.UTC) - saved).total_seconds()))

    def summary(self, *, export_path: str | None = None) -> TrainSummary:
        """The numbers in the contract's form."""
        return TrainSummary(
            step=self.step,
            total_steps=self.total_steps,
            tokens=self.tokens,
            loss=_rounded(self.loss, 6),
            checkpoint_step=self.checkpoint.step if self.checkpoint else None,
            checkpoint_path=self.checkpoint_path,
            checkpoint_seconds=self.checkpoint.seconds if self.checkpoint else None,
            checkpoint_count=self.checkpoint_count,
            export_path=export_path,
        )

    def remaining_seconds(self) -> int | None:
        """Time to the last step and save at the present speed; None before there is one: money is forecast by it."""
        if self.step < self.total_steps and not self._timed:
            return None
        working = max(0, self.total_steps - self.step) * self.step_seconds
        return int(working + self._saves_ahead(working) * (self.checkpoint.seconds if self.checkpoint else 0.0))

    def _saves_ahead(self, working_seconds: float) -> int:
        """So many checkpoints will be saved, the last one included; those of a stop are nobody's plan."""
        if self.saves is None or (self.checkpoint is not None and self.checkpoint.step >= self.total_steps):
            return 0
        by_time = int(working_seconds / (60 * self.saves.every_minutes))
        every = self.saves.every_steps
        by_steps = 0 if every is None else max(0, (self.total_steps - 1) // every - self.step // every)
        return max(by_time, by_steps) + 1


class Progress:
    """Tells of a :class:`Meter`; a no-op on all ranks but 0."""

    def __init__(self, meter: Meter, *, path: Path, steps: Path, active: bool, reporter: Reporter | None) -> None:
        self._meter, self._path, self._active, self._reporter = meter, path, active, reporter
        self._next_file = self._next_line = 0.0
        self._phase = ""
        self._steps_path = steps
        self._steps: IO[str] | None = None

    def begin(self) -> None:
        """Open the file of steps after what the resumed checkpoint has seen: later steps are made anew."""
        if not self._active:
            return
        kept = [line for line in _lines(self._steps_path) if _step_of(line) <= self._meter.step]
        write_atomic(self._steps_path, "".join(kept))
        self._steps = self._steps_path.open("a", buffering=1)

    def tell(self, phase: str, *, force: bool = False, step_ended: bool = False) -> None:
        """Write what is due; ``force``, or another phase than before, writes everything now."""
        if not self._active:
            return
        force, self._phase = force or phase != self._phase, phase
        now = time.monotonic()
        values = self._values(phase)
        if step_ended and self._steps is not None:
            with contextlib.suppress(OSError):  # a full volume ends a training when it saves, not for a line of this
                self._steps.write(json.dumps(self._step(values)) + "\n")
        if force or now >= self._next_file:
            self._next_file = now + FILE_SECONDS
            with contextlib.suppress(OSError):
                self._write({**values, "summary": self._meter.summary().model_dump()})
            if self._reporter is not None:
                self._reporter.update(self._status(phase))
            if force or now >= self._next_line:
                self._next_line = now + LINE_SECONDS
                sys.stdout.write(json.dumps(values) + "\n")
                sys.stdout.flush()

    def close(self) -> None:
        """Send what is left."""
        if self._steps is not None:
            with contextlib.suppress(OSError):
                self._steps.close()
        if self._reporter is not None:
            self._reporter.close()

    def _step(self, values: dict[str, Any]) -> dict[str, Any]:
        """A step's line: its own figures where the progress has smoothed ones."""
        last = self._meter.last
        assert last is not None
        own = {
            "loss": _finite(last.loss),
            "loss_max": _finite(last.loss_max),
            "grad_norm": _finite(self._meter.gradient_norm),
            "tok_s": round(last.tokens / max(last.seconds, 1e-9), 1),
            "step_s": round(last.seconds, 4),
            "mfu": _rounded(last.mfu, 4),
            "padding": round(1 - last.tokens / last.computed_tokens, 4),
        }
        return {**{key: values[key] for key in ("ts", "step", "epoch", "lr", "tokens")}, **own}

    def _values(self, phase: str) -> dict[str, Any]:
        meter, slow = self._meter, self._meter.slow
        return {
            "v": 1,
            "ts": _now(),
            "phase": phase,
            "step": meter.step,
            "total": meter.total_steps,
            "epoch": round(meter.epoch, 4),
            "loss": _rounded(meter.loss, 6),
            "loss_max": _rounded(meter.loss_max, 6),
            "lr": meter.learning_rate,
            "grad_norm": _rounded(meter.gradient_norm, 6),
            "tokens": meter.tokens,
            "tok_s": round(meter.tokens_per_second, 1),
            "mfu": _rounded(meter.mfu, 4),
            "padding": _rounded(meter.padding_share, 4),
            "step_s": round(meter.step_seconds, 4),
            "eta_s": meter.remaining_seconds(),
            "ckpt_step": meter.checkpoint.step if meter.checkpoint else None,
            "ckpt_ts": meter.checkpoint.time if meter.checkpoint else None,
            "ckpt_age_s": meter.checkpoint_age_seconds(),
            "slow_rank": slow[0] if slow else None,
            "slow_ratio": round(slow[1], 2) if slow else None,
        }

    def _write(self, values: dict[str, Any]) -> None:
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(values) + "\n")
        temporary.replace(self._path)

    def _status(self, phase: str) -> TrainerStatus:
        meter, checkpoint = self._meter, self._meter.checkpoint
        values: dict[MetricName, str | None] = {
            MetricName.PHASE: phase,
            MetricName.STEP: str(meter.step),
            MetricName.TOTAL_STEPS: str(meter.total_steps),
            MetricName.EPOCH: f"{meter.epoch:.4f}",
            MetricName.LOSS: _text(meter.loss, 6),
            MetricName.LOSS_MAX: _text(meter.loss_max, 6),
            MetricName.LEARNING_RATE: f"{meter.learning_rate:.6g}",
            MetricName.GRADIENT_NORM: _text(meter.gradient_norm, 6),
            MetricName.TOKENS_PER_SECOND: f"{meter.tokens_per_second:.1f}",
            MetricName.MFU: _text(meter.mfu, 4),
            MetricName.PADDING_SHARE: _text(meter.padding_share, 4),
            MetricName.SLOW_RANK: str(meter.slow[0]) if meter.slow else None,
            MetricName.SLOW_RATIO: f"{meter.slow[1]:.2f}" if meter.slow else None,
            MetricName.CHECKPOINT_STEP: str(checkpoint.step) if checkpoint else None,
            MetricName.CHECKPOINT_SECONDS: f"{checkpoint.seconds:.3f}" if checkpoint else None,
            MetricName.CHECKPOINT_TIME: checkpoint.time if checkpoint else None,
            MetricName.CHECKPOINT_AGE_SECONDS: _text(meter.checkpoint_age_seconds(), 0),
        }
        return TrainerStatus(
            last_updated_time=_now(),
            progress_percentage=min(100, meter.step * 100 // max(1, meter.total_steps)),
            estimated_remaining_seconds=meter.remaining_seconds(),
            metrics=tuple(Metric(name=name, value=value) for name, value in values.items() if value is not None),
        )


def _lines(path: Path) -> list[str]:
    """The whole lines of a file; one that a kill has cut short is left out."""
    try:
        return [line for line in path.read_text(errors="replace").splitlines(keepends=True) if line.endswith("\n")]
    except FileNotFoundError:
        return []


def _step_of(line: str) -> float:
    """The step that a line tells of; of what a node left that lost its power none, so that it is not kept."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _finite(value: float | None) -> float | None:
    """JSON has no word for other numbers."""
    return value if value is not None and math.isfinite(value) else None


def _rounded(value: float | None, digits: int) -> float | None:
    finite = _finite(value)
    return None if finite is None else round(finite, digits)


def _text(value: float | None, digits: int) -> str | None:
    return None if _finite(value) is None else f"{value:.{digits}f}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
