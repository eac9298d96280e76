"""The same training without DeepSpeed and without our loop: what the trainer is held against."""

from __future__ import annotations

from collections.abc import Iterator
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
        yield collate(dataset, plan.step(step, rank=0).micro_batches[0], pad_id=0)


def adamw(model: Any, training: TrainingConfig) -> torch.optim.AdamW:
    """The recipe's optimizer; its learning rate is set for every step."""
    return torch.optim.AdamW(model.parameters(), lr=1.0, betas=training.adam_betas, weight_decay=training.weight_decay)


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
    """The losses of ``transformers.Trainer`` on equal data; half a global batch at once, so that it accumulates."""
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

    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32)
    optimizer = adamw(model, training)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate(training, step=min(step, steps - 1), total_steps=steps)
    )
    arguments = TrainingArguments(
        output_dir=str(directory),
        max_steps=steps,
        per_device_train_batch_size=training.global_batch_size // 2,
        gradient_accumulation_steps=2,
        max_grad_norm=training.max_gradient_norm,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = InOrder(
        model=model, args=arguments, train_dataset=Rows(), data_collator=_padded, optimizers=(optimizer, schedule)
    )
    trainer.train()
    return [float(line["loss"]) for line in trainer.state.log_history if "loss" in line]


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
