"""The same training without DeepSpeed and without our loop: what the trainer is held against."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from rft_trainer.contract import TrainingConfig
from rft_trainer.prepare.dataset import load
from rft_trainer.train.batch import IGNORE, Batch, collate
from rft_trainer.train.plan import BatchPlan
from rft_trainer.train.schedule import learning_rate


@dataclass(frozen=True)
class Curve:
    """What a training left: the loss and the gradient's norm of every step, and the weights."""

    losses: list[float]
    norms: list[float]
    weights: dict[str, torch.Tensor]


def global_batches(dataset_path: Path, training: TrainingConfig, *, steps: int) -> Iterator[Batch]:
    """Every step's whole global batch at once."""
    dataset = load(dataset_path)
    plan = BatchPlan(
        lengths=dataset.sequence_lengths(),
        targets=dataset.sequence_targets(),
        seed=training.seed,
        global_batch_size=training.global_batch_size,
        micro_batch_size=training.global_batch_size,
        world_size=1,
    )
    for step in range(steps):
        yield collate(dataset, plan.step(step, rank=0).micro_batches[0])


def adamw(model: Any, training: TrainingConfig) -> torch.optim.AdamW:
    """The recipe's optimizer; its learning rate is set for every step. Only matrices decay: all else are vectors."""
    matrices = [each for each in model.parameters() if each.ndim > 1]
    vectors = [each for each in model.parameters() if each.ndim == 1]
    groups = [
        {"params": matrices, "weight_decay": training.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1.0, betas=training.adam_betas)


def plain_torch(model_path: Path, dataset_path: Path, training: TrainingConfig, *, steps: int) -> Curve:
    """Train in one process, with all logits of the whole global batch at once."""
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    optimizer = adamw(model, training)
    losses, norms = [], []
    for step, batch in enumerate(global_batches(dataset_path, training, steps=steps)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step=step, total_steps=steps)
        logits = model(input_ids=batch.input_ids).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch has no annotation here
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), training.max_gradient_norm)))
        optimizer.step()
        losses.append(float(loss.detach()))
    return Curve(losses, norms, dict(model.state_dict()))


def transformers_trainer(
    model_path: Path, dataset_path: Path, training: TrainingConfig, *, steps: int, directory: Path
) -> list[float]:
    """The losses of ``transformers.Trainer`` with its own optimizer and schedule, on equal data.

    It takes half a global batch at once, so that it accumulates. In the warm-up it gets the rate of the step after, for
    its own first step has rate 0, which ours has not on purpose.
    """
    from torch.utils.data import Dataset, SequentialSampler
    from transformers import Trainer, TrainingArguments

    rows = [row for batch in global_batches(dataset_path, training, steps=steps) for row in _rows(batch)]

    class Rows(Dataset[dict[str, torch.Tensor]]):
        def __len__(self) -> int:
            return len(rows)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return rows[index]

    class InOrder(Trainer):  # type: ignore[misc] # the library is not annotated
        def _get_train_sampler(self, *_: object) -> SequentialSampler:
            return SequentialSampler(Rows())

        def create_scheduler(self, *arguments: Any, **more: Any) -> Any:
            schedule = super().create_scheduler(*arguments, **more)
            schedule.lr_lambdas = [_one_step_ahead(each, warmup_steps=warmup_steps) for each in schedule.lr_lambdas]
            for group, base, rate in zip(
                self.optimizer.param_groups, schedule.base_lrs, schedule.lr_lambdas, strict=True
            ):
                group["lr"] = base * rate(0)
            return schedule

    warmup_steps = math.ceil(training.warmup_ratio * steps)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    arguments = TrainingArguments(
        output_dir=str(directory),
        max_steps=steps,
        per_device_train_batch_size=training.global_batch_size // 2,
        gradient_accumulation_steps=2,
        max_grad_norm=training.max_gradient_norm,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.schedule,
        warmup_steps=warmup_steps,
        weight_decay=training.weight_decay,
        adam_beta1=training.adam_betas[0],
        adam_beta2=training.adam_betas[1],
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = InOrder(model=model, args=arguments, train_dataset=Rows(), data_collator=_padded)
    trainer.train()
    return [float(line["loss"]) for line in trainer.state.log_history if "loss" in line]


def _one_step_ahead(rate: Callable[[int], float], *, warmup_steps: int) -> Callable[[int], float]:
    return lambda step: rate(step + 1 if step < warmup_steps else step)


def _rows(batch: Batch) -> Iterator[dict[str, torch.Tensor]]:
    """The rows with labels that the library shifts itself."""
    for tokens, labels in zip(batch.input_ids, batch.labels, strict=True):
        yield {"input_ids": tokens, "labels": torch.cat([torch.tensor([IGNORE]), labels[:-1]])}


def _padded(rows: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    pad = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": pad([row["input_ids"] for row in rows], batch_first=True),
        "labels": pad([row["labels"] for row in rows], batch_first=True, padding_value=IGNORE),
    }
