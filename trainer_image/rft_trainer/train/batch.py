"""Sequences -> tensors.

Invariant: a token attends only to tokens of its own row, packed or not, and only trained tokens carry a label.
Padding stands on the right, where causal attention never sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rft_trainer.prepare.chat import EncodedRow
from rft_trainer.prepare.dataset import PreparedDataset

IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """One micro batch; ``labels`` are already shifted: position t holds the token that t must predict."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    attention_mask: torch.Tensor | None
    """Absent when every sequence is one row: causal attention needs no mask then."""

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        mask = None if self.attention_mask is None else self.attention_mask.to(device)
        return Batch(self.input_ids.to(device), self.position_ids.to(device), self.labels.to(device), mask)


def collate(dataset: PreparedDataset, sequences: Sequence[int], *, pad_id: int) -> Batch:
    """Build a micro batch, padded to its own longest sequence."""
    rows = [dataset.sequence(index) for index in sequences]
    width = max(sum(len(row.tokens) for row in sequence) for sequence in rows)
    shape = (len(rows), width)
    tokens = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORE, dtype=np.int64)
    positions = np.tile(np.arange(width, dtype=np.int64), (len(rows), 1))
    segments = np.zeros(shape, dtype=np.int64)
    for index, sequence in enumerate(rows):
        _place(sequence, tokens[index], labels[index], positions[index], segments[index])
    packed = any(len(sequence) > 1 for sequence in rows)
    return Batch(
        input_ids=torch.from_numpy(tokens),
        position_ids=torch.from_numpy(positions),
        labels=torch.from_numpy(labels),
        attention_mask=_segment_mask(torch.from_numpy(segments)) if packed else None,
    )


def _place(
    sequence: Sequence[EncodedRow],
    tokens: np.ndarray,
    labels: np.ndarray,
    positions: np.ndarray,
    segments: np.ndarray,
) -> None:
    start = 0
    for number, row in enumerate(sequence, start=1):
        end = start + len(row.tokens)
        tokens[start:end] = row.tokens
        labels[start : end - 1] = np.where(row.target[1:] == 1, row.tokens[1:], IGNORE)
        positions[start:end] = np.arange(end - start)
        segments[start:end] = number
        start = end
    positions[start:] = np.arange(len(tokens) - start)


def _segment_mask(segments: torch.Tensor) -> torch.Tensor:
    """True where attention is allowed: same segment, not later. Padding is a segment too, so no row is empty."""
    same = segments[:, None, :, None] == segments[:, None, None, :]
    width = segments.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    return same & causal
