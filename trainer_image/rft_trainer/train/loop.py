"""The training loop.

Invariants: all ranks take every decision (stop, save) together, from one all-reduce at the step boundary, so they
save the same step or none. A step's data, learning rate and random numbers depend on the step alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from rft_trainer.contract import Outcome, RunConfig
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.prepare.dataset import PreparedDataset
from rft_trainer.train import checkpoint as checkpoints
from rft_trainer.train.batch import collate
from rft_trainer.train.engine import Trainer
from rft_trainer.train.plan import BatchPlan
from rft_trainer.train.progress import Meter, Progress
from rft_trainer.train.schedule import learning_rate


@dataclass(frozen=True)
class Decision:
    """What all ranks agreed on at a step boundary."""

    stop: bool
    save: bool
    loss: float


class Loop:
    """One process's part of the training."""

    def __init__(
        self,
        trainer: Trainer,
        config: RunConfig,
        layout: Layout,
        *,
        dataset: PreparedDataset,
        meter: Meter,
        progress: Progress,
        pad_id: int,
    ) -> None:
        self._trainer, self._config, self._layout = trainer, config, layout
        self._paths = RunPaths.of(layout, config)
        self._dataset, self._meter, self._progress, self._pad_id = dataset, meter, progress, pad_id
        self._heartbeat = _heartbeat_file(layout, rank=trainer.rank)
        self._plan = BatchPlan(
            lengths=dataset.sequence_lengths(),
            targets=dataset.sequence_targets(),
            seed=config.training.seed,
            global_batch_size=config.training.global_batch_size,
            micro_batch_size=config.training.micro_batch_size,
            world_size=trainer.world_size,
        )
        self._last_save = time.monotonic()

    def run(self) -> Outcome:
        """Train to the last step, or to the step at which a stop was agreed on."""
        meter = self._meter
        decision = self._agree(loss=0.0)
        while meter.step < meter.total_steps and not decision.stop:
            started = time.monotonic()
            tokens, loss = self._step(meter.step)
            decision = self._agree(loss=loss)
            meter.record_step(tokens=tokens, loss=decision.loss, seconds=time.monotonic() - started)
            meter.epoch = self._plan.epoch(meter.step)
            self._progress.tell("train")
            if decision.save and meter.step < meter.total_steps and not decision.stop:
                self.save(phase="save")
        if meter.step > 0 and (meter.checkpoint is None or meter.checkpoint.step < meter.step):
            self.save(phase="drain" if meter.step < meter.total_steps else "save")
        return Outcome.COMPLETED if meter.step >= meter.total_steps else Outcome.DRAINED

    def _step(self, step: int) -> tuple[int, float]:
        """One optimiser step; returns the global batch's tokens and this rank's part of the mean loss."""
        trainer, training = self._trainer, self._config.training
        torch.manual_seed(hash((training.seed, step, trainer.rank)) & 0x7FFF_FFFF)
        rate = learning_rate(training, step=step, total_steps=self._meter.total_steps)
        for group in trainer.engine.optimizer.param_groups:
            group["lr"] = rate
        self._meter.learning_rate = rate
        plan = self._plan.step(step, rank=trainer.rank)
        scale = trainer.accumulation * trainer.world_size / plan.target_tokens
        loss_sum = torch.zeros((), device=trainer.device)
        for sequences in plan.micro_batches:
            self._heartbeat.touch()
            batch = collate(self._dataset, sequences, pad_id=self._pad_id).to(trainer.device)
            nll = trainer.engine(batch)
            trainer.engine.backward(nll * scale)
            trainer.engine.step()
            loss_sum += nll.detach()
        norm = trainer.engine.get_global_grad_norm()
        self._meter.gradient_norm = None if norm is None else float(norm)
        return plan.tokens, float(loss_sum) / plan.target_tokens

    def _agree(self, *, loss: float) -> Decision:
        trainer = self._trainer
        flags = [float(self._layout.stop_file.exists()), float(trainer.rank == 0 and self._save_is_due()), loss]
        together = torch.tensor(flags, dtype=torch.float32, device=trainer.device)
        dist.all_reduce(together)
        stop, save, total = together.tolist()
        return Decision(stop=stop > 0, save=save > 0, loss=total)

    def _save_is_due(self) -> bool:
        rules, done = self._config.checkpoint, self._meter.step + 1
        by_steps = rules.every_steps is not None and done % rules.every_steps == 0
        return by_steps or time.monotonic() - self._last_save >= rules.every_minutes * 60

    def save(self, *, phase: str) -> None:
        """Save a checkpoint of the present step on all ranks."""
        self._progress.tell(phase, force=True)
        meter = self._meter
        saved = checkpoints.save(
            self._trainer.engine,
            self._paths.checkpoints,
            step=meter.step,
            tokens=meter.tokens,
            dataset_sha256=self._dataset.sha256,
            keep_last=self._config.checkpoint.keep_last,
        )
        self._last_save = time.monotonic()
        set_checkpoint(meter, saved, paths=self._paths)
        meter.checkpoint_count += 1
        self._progress.tell(phase, force=True)


def set_checkpoint(meter: Meter, saved: checkpoints.Checkpoint, *, paths: RunPaths) -> None:
    """Note the newest complete checkpoint."""
    meter.checkpoint = saved
    meter.checkpoint_path = paths.pod_path(saved.path)


def _heartbeat_file(layout: Layout, *, rank: int) -> Path:
    layout.heartbeats.mkdir(parents=True, exist_ok=True)
    return layout.heartbeats / f"rank-{rank}"
