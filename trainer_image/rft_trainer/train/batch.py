"""Sequences -> tensors.

Invariant: a token attends only to tokens of its own row, packed or not, and only trained tokens carry a label; the
last token of a row predicts nothing. There is no mask: ``position_ids`` begin at 0 with every packed row, and the
models of ``KEEP_ROWS_APART`` keep rows apart by them, with whatever attention kernel they run; other models get no
packed rows. Padding stands on the right, where causal attention never sees it; unless rows are packed its positions go
on, so that plain causal attention is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rft_trainer.errors import BadInputError
from rft_trainer.prepare.chat import EncodedRow
from rft_trainer.prepare.dataset import PreparedDataset

IGNORE = -100
PAD = 0
"""A token that every model has: nothing reads padding, and the pad token of many a tokenizer is beyond its model."""
KEEP_ROWS_APART = frozenset(
    {
        "apertus", "arcee", "cwm", "ernie4_5", "exaone4", "gemma", "gemma3_text", "glm", "glm4", "granite",
        "helium", "hunyuan_v1_dense", "hyperclovax", "internlm3", "jais2", "llama", "ministral", "ministral3",
        "mistral", "nemotron", "olmo", "olmo2", "olmo3", "persimmon", "phi", "phi3", "qwen2", "qwen3", "seed_oss",
        "smollm3", "stablelm", "starcoder2",
    }
)  # fmt: skip
"""Families (``model_type``) that mix tokens by attention alone and give the positions to all of it.

Layers with a state (Mamba, the linear attention of Qwen3.5) or a convolution (LFM) go on from one row to the next
whatever the positions say, and some models with plain attention do not show the positions to it. A test tries each.
"""


@dataclass(frozen=True)
class Batch:
    """One micro batch; ``labels`` are already shifted: position t holds the token that t must predict."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        return Batch(self.input_ids.to(device), self.position_ids.to(device), self.labels.to(device))


def collate(dataset: PreparedDataset, sequences: Sequence[int], *, flat: bool = False) -> Batch:
    """Build a micro batch, padded to its own longest sequence.

    ``flat`` puts all rows end to end into one line without padding: flash attention tells rows apart in one line alone.
    """
    lines = [dataset.sequence(index) for index in sequences]
    if flat:
        lines = [[row for line in lines for row in line]]
    packed = any(len(line) > 1 for line in lines)
    shape = (len(lines), max(sum(len(row.tokens) for row in line) for line in lines))
    tokens = np.full(shape, PAD, dtype=np.int64)
    labels = np.full(shape, IGNORE, dtype=np.int64)
    positions = np.tile(np.arange(shape[1], dtype=np.int64), (len(lines), 1))
    for index, line in enumerate(lines):
        end = _place(line, tokens[index], labels[index], positions[index])
        if packed:
            positions[index, end:] -= end
    return Batch(torch.from_numpy(tokens), torch.from_numpy(positions), torch.from_numpy(labels))


def keeps_rows_apart(model: Any) -> bool:
    """Whether rows in one line are nothing to each other."""
    return model.config.model_type in KEEP_ROWS_APART


def check_packing(model: Any) -> None:
    """Raise :class:`BadInputError` when packed rows would read each other."""
    if not keeps_rows_apart(model):
        raise BadInputError(
            f"training.packing: models of type {model.config.model_type} are not known to keep the rows of a sequence "
            "apart; set packing: false"
        )


def _place(
    line: Sequence[EncodedRow], tokens: NDArray[np.int64], labels: NDArray[np.int64], positions: NDArray[np.int64]
) -> int:
    start = 0
    for row in line:
        end = start + len(row.tokens)
        tokens[start:end] = row.tokens
        labels[start : end - 1] = np.where(row.target[1:] == 1, row.tokens[1:], IGNORE)
        positions[start:end] = np.arange(end - start)
        start = end
    return start
