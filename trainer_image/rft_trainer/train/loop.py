"""The training loop.

Invariants: all ranks take every decision (stop, save, give up) together, from one all-reduce at the step boundary, so
they save the same step or none. A step's data, learning rate and random numbers depend on the step alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import torch

from rft_trainer.contract import Outcome
from rft_trainer.paths import RunPaths
from rft_trainer.train import checkpoint as checkpoints
from rft_trainer.train.agreement import Decision, Stragglers, Vote, agree
from rft_trainer.train.batch import IGNORE, Batch, collate
from rft_trainer.train.divergence import diverged, gradient_is_sound, weights_are_finite
from rft_trainer.train.engine import Trainer
from rft_trainer.train.plan import BatchPlan, StepPlan
from rft_trainer.train.progress import Meter, Progress, StepFacts
from rft_trainer.train.run import Run
from rft_trainer.train.schedule import learning_rate
from rft_trainer.train.speed import squared_rows


class Loop:
    """One process's part of the training."""

    def __init__(
        self, trainer: Trainer, run: Run, *, meter: Meter, progress: Progress, card: Mapping[str, Any]
    ) -> None:
        self._trainer, self._run, self._config = trainer, run, run.config
        self._dataset, self._meter, self._progress = run.dataset, meter, progress
        self._stragglers, self._card = Stragglers(), card
        dataset, config = run.dataset, run.config
        self._squared_rows = squared_rows(dataset)
        self._windowed_rows = squared_rows(dataset, window=trainer.arithmetic.window)
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
        self._run.heartbeat.beat("train", f"step {meter.step}")
        decision = self._agree(Vote(stop=self._stop_asked(), save=False))
        started = time.monotonic()
        while meter.step < meter.total_steps and not decision.stop:
            plan = self._plan.step(meter.step, rank=self._trainer.rank)
            decision = self._agree(self._step(plan))
            self._refuse_divergence(decision)
            ended = time.monotonic()
            self._record(plan, decision, seconds=ended - started)
            started = ended  # telling of a step counts for the next one: only saves are left out
            self._progress.tell("train", step_ended=True)
            if decision.save and meter.step < meter.total_steps and not decision.stop:
                self.save(phase="save")
                # what was asked for meanwhile needs no other step, which would have to be saved, too
                decision = self._agree(Vote(stop=self._stop_asked(), save=False))
                started = time.monotonic()
        if meter.step > 0 and (meter.checkpoint is None or meter.checkpoint.step < meter.step):
            self.save(phase="drain" if meter.step < meter.total_steps else "save")
        return Outcome.COMPLETED if meter.step >= meter.total_steps else Outcome.DRAINED

    def _step(self, plan: StepPlan) -> Vote:
        """One optimiser step of this rank."""
        trainer, training, step = self._trainer, self._config.training, self._meter.step
        torch.manual_seed(hash((training.seed, step, trainer.rank)) & 0x7FFF_FFFF)
        rate = learning_rate(training, step=step, total_steps=self._meter.total_steps)
        for group in trainer.engine.optimizer.param_groups:
            group["lr"] = rate
        self._meter.learning_rate = rate
        scale = trainer.accumulation * trainer.world_size / plan.target_tokens
        nll_sum = torch.zeros((), dtype=torch.float64, device=trainer.device)
        targets, waited_for_data = 0, 0.0
        for number, sequences in enumerate(plan.micro_batches):
            self._run.heartbeat.beat("train", f"step {step + 1} micro-batch {number + 1}")
            started = time.perf_counter()
            batch = self._batch(sequences)
            targets += int((batch.labels != IGNORE).sum())
            batch = batch.to(trainer.device)
            waited_for_data += time.perf_counter() - started
            nll = trainer.engine(batch)
            trainer.engine.backward(nll * scale)
            trainer.engine.step()
            nll_sum += nll.detach()
        norm, sound = trainer.engine.get_global_grad_norm(), gradient_is_sound(trainer.engine)
        self._meter.gradient_norm = float(norm) if norm is not None and sound else None
        return Vote(
            stop=self._stop_asked(),
            save=trainer.rank == 0 and self._save_is_due(),
            nll=float(nll_sum),
            targets=targets,
            sound=sound,
            seconds_per_token=(waited_for_data + trainer.stopwatch.take()) / max(1, targets),
        )

    def _batch(self, sequences: tuple[int, ...]) -> Batch:
        return collate(self._dataset, sequences, flat=self._trainer.flat)

    def _agree(self, vote: Vote) -> Decision:
        trainer = self._trainer
        return agree(vote, rank=trainer.rank, world_size=trainer.world_size, device=trainer.device)

    def _refuse_divergence(self, decision: Decision) -> None:
        """End a training whose loss or gradient is not finite; every rank comes to it together."""
        if math.isfinite(decision.nll) and decision.sound:
            return
        what = "the gradient's norm" if math.isfinite(decision.nll) else "the loss"
        self._end_diverged(f"{what} is not a finite number", step=self._meter.step + 1)

    def _end_diverged(self, what: str, *, step: int) -> NoReturn:
        meter = self._meter
        self._progress.tell("train", force=True)
        raise diverged(what, step=step, learning_rate=meter.learning_rate, kept=meter.checkpoint)

    def _record(self, plan: StepPlan, decision: Decision, *, seconds: float) -> None:
        meter, trainer = self._meter, self._trainer
        self._stragglers.record(decision.seconds_per_token)
        batch = self._plan.global_batch(meter.step)
        flops = trainer.arithmetic.of(
            tokens=plan.tokens,
            squared_rows=int(self._squared_rows[batch].sum()),
            windowed_rows=int(self._windowed_rows[batch].sum()),
        )
        peak = trainer.peak_flops
        meter.record_step(
            StepFacts(
                tokens=plan.tokens,
                computed_tokens=plan.tokens if trainer.flat else plan.padded_tokens,
                loss=decision.nll / plan.target_tokens,
                loss_max=decision.loss_max,
                seconds=seconds,
                mfu=None if peak is None else flops / (seconds * peak * trainer.world_size),
                slow=self._stragglers.slowest(),
            )
        )
        meter.epoch = self._plan.epoch(meter.step)

    def _stop_asked(self) -> bool:
        return self._run.layout.stop_file.exists()

    def _save_is_due(self) -> bool:
        rules, done = self._config.checkpoint, self._meter.step + 1
        by_steps = rules.every_steps is not None and done % rules.every_steps == 0
        return by_steps or time.monotonic() - self._last_save >= rules.every_minutes * 60

    def save(self, *, phase: str) -> None:
        """Save a checkpoint of the present step on all ranks."""
        meter = self._meter
        self._run.heartbeat.beat(phase, f"step {meter.step}")
        self._progress.tell(phase, force=True)
        if not weights_are_finite(self._trainer.model, device=self._trainer.device):
            self._end_diverged("its update left weights that are not finite", step=meter.step)
        saved = checkpoints.save(
            self._trainer.engine,
            self._run.paths.checkpoints,
            facts=checkpoints.Facts(step=meter.step, tokens=meter.tokens, dataset_sha256=self._dataset.sha256),
            card=self._card,
            keep_last=self._config.checkpoint.keep_last,
        )
        self._last_save = time.monotonic()
        set_checkpoint(meter, saved, paths=self._run.paths)
        meter.checkpoint_count += 1
        self._progress.tell(phase, force=True)
        self._run.heartbeat.beat("train", f"step {meter.step}")


def set_checkpoint(meter: Meter, saved: checkpoints.Checkpoint, *, paths: RunPaths) -> None:
    """Note the newest complete checkpoint."""
    meter.checkpoint = saved
    meter.checkpoint_path = paths.pod_path(saved.path)
