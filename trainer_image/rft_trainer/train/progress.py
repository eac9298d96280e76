"""What rank 0 says while it trains: ``progress.json``, one line on stdout, and the report to the operator.

Invariant: nothing here can slow or fail the training: files are small, and the report has a thread of its own.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rft_trainer.contract import Metric, MetricName, TrainerStatus, TrainSummary
from rft_trainer.report import Reporter
from rft_trainer.train.checkpoint import Checkpoint

FILE_SECONDS = 0.5
LINE_SECONDS = 2.0


@dataclass
class Meter:
    """The numbers of one training process."""

    total_steps: int
    step: int = 0
    epoch: float = 0.0
    tokens: int = 0
    loss: float | None = None
    learning_rate: float = 0.0
    gradient_norm: float | None = None
    tokens_per_second: float = 0.0
    step_seconds: float = 0.0
    checkpoint: Checkpoint | None = None
    checkpoint_path: str | None = None
    checkpoint_count: int = 0
    _started: float = field(default_factory=time.monotonic)

    def record_step(self, *, tokens: int, loss: float, seconds: float) -> None:
        """Count one finished step; speeds are smoothed over about ten steps."""
        self.step += 1
        self.tokens += tokens
        self.loss = loss
        weight = 0.1 if self.step_seconds else 1.0
        self.step_seconds += weight * (seconds - self.step_seconds)
        self.tokens_per_second += weight * (tokens / max(seconds, 1e-9) - self.tokens_per_second)

    def summary(self, *, export_path: str | None = None) -> TrainSummary:
        """The numbers in the contract's form."""
        return TrainSummary(
            step=self.step,
            total_steps=self.total_steps,
            tokens=self.tokens,
            loss=None if self.loss is None else round(self.loss, 6),
            checkpoint_step=self.checkpoint.step if self.checkpoint else None,
            checkpoint_path=self.checkpoint_path,
            checkpoint_seconds=self.checkpoint.seconds if self.checkpoint else None,
            checkpoint_count=self.checkpoint_count,
            export_path=export_path,
        )

    def remaining_seconds(self) -> int:
        """Time to the last step at the present speed."""
        return int((self.total_steps - self.step) * self.step_seconds)


class Progress:
    """Tells of a :class:`Meter`; a no-op on all ranks but 0."""

    def __init__(self, meter: Meter, *, path: Path, active: bool, reporter: Reporter | None) -> None:
        self._meter, self._path, self._active, self._reporter = meter, path, active, reporter
        self._next_file = self._next_line = 0.0

    def tell(self, phase: str, *, force: bool = False) -> None:
        """Write what is due; ``force`` writes everything now."""
        if not self._active:
            return
        now = time.monotonic()
        if force or now >= self._next_file:
            self._next_file = now + FILE_SECONDS
            values = self._values(phase)
            self._write(values)
            if self._reporter is not None:
                self._reporter.update(self._status(phase))
            if force or now >= self._next_line:
                self._next_line = now + LINE_SECONDS
                sys.stdout.write(json.dumps({k: v for k, v in values.items() if k != "summary"}) + "\n")
                sys.stdout.flush()

    def _values(self, phase: str) -> dict[str, Any]:
        meter = self._meter
        return {
            "v": 1,
            "ts": _now(),
            "phase": phase,
            "step": meter.step,
            "total": meter.total_steps,
            "epoch": round(meter.epoch, 4),
            "loss": None if meter.loss is None else round(meter.loss, 6),
            "lr": meter.learning_rate,
            "grad_norm": None if meter.gradient_norm is None else round(meter.gradient_norm, 6),
            "tokens": meter.tokens,
            "tok_s": round(meter.tokens_per_second, 1),
            "step_s": round(meter.step_seconds, 4),
            "eta_s": meter.remaining_seconds(),
            "ckpt_step": meter.checkpoint.step if meter.checkpoint else None,
            "ckpt_ts": meter.checkpoint.time if meter.checkpoint else None,
            "summary": meter.summary().model_dump(),
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
            MetricName.LOSS: None if meter.loss is None else f"{meter.loss:.6f}",
            MetricName.LEARNING_RATE: f"{meter.learning_rate:.6g}",
            MetricName.GRADIENT_NORM: None if meter.gradient_norm is None else f"{meter.gradient_norm:.6f}",
            MetricName.TOKENS_PER_SECOND: f"{meter.tokens_per_second:.1f}",
            MetricName.CHECKPOINT_STEP: str(checkpoint.step) if checkpoint else None,
            MetricName.CHECKPOINT_SECONDS: f"{checkpoint.seconds:.3f}" if checkpoint else None,
            MetricName.CHECKPOINT_TIME: checkpoint.time if checkpoint else None,
        }
        return TrainerStatus(
            last_updated_time=_now(),
            progress_percentage=min(100, meter.step * 100 // max(1, meter.total_steps)),
            estimated_remaining_seconds=max(0, meter.remaining_seconds()),
            metrics=tuple(Metric(name=name, value=value) for name, value in values.items() if value is not None),
        )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
