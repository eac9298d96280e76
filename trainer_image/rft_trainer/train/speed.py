"""How much a rank computes, and how long it takes for what it computes alone.

Invariant: nothing here waits for the device: its clock is read after the step boundary, where all ranks wait anyway.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rft_trainer.peaks import peak_of_device
from rft_trainer.prepare.dataset import PreparedDataset

_WINDOWED = "sliding_attention"
_LINEAR = frozenset({"linear_attention", "conv", "mamba"})
"""Kinds of layers in a configuration's words; what the last ones do beside their weights is small."""


@dataclass(frozen=True)
class Arithmetic:
    """Floating point operations of forward and backward pass; recomputed activations do not count."""

    per_token: int
    per_squared_row: int
    """Attention: per square of a row's length, half of it masked by causality."""
    per_windowed_row: int = 0
    """The same in layers whose tokens see no more than a window."""
    window: int | None = None

    def of(self, *, tokens: int, squared_rows: int, windowed_rows: int) -> int:
        """The operations for so many tokens in rows of such lengths."""
        return self.per_token * tokens + self.per_squared_row * squared_rows + self.per_windowed_row * windowed_rows


def arithmetic(model: Any) -> Arithmetic:
    """Count a model's operations, whether ZeRO has split its parameters or not."""
    config = model.config
    tied = bool(getattr(config, "tie_word_embeddings", False))
    looked_up = 0 if tied else _size(model.get_input_embeddings().weight)
    every = [(_size(parameter), parameter.requires_grad) for parameter in model.parameters()]
    multiplied = sum(size for size, _ in every) - looked_up
    trained = sum(size for size, requires_grad in every if requires_grad)
    trained = min(trained, multiplied)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 6 * config.num_attention_heads * head
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None) or [_WINDOWED if window else ""] * config.num_hidden_layers
    windowed = sum(kind == _WINDOWED for kind in kinds) if window else 0
    return Arithmetic(
        per_token=4 * multiplied + 2 * trained,
        per_squared_row=attention * (sum(kind not in _LINEAR for kind in kinds) - windowed),
        per_windowed_row=attention * windowed,
        window=window,
    )


def _size(parameter: Any) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def squared_rows(dataset: PreparedDataset, *, window: int | None = None) -> NDArray[np.int64]:
    """For every sequence the sum of its rows' squared lengths: a row attends to itself alone.

    With a window, less what its tokens no longer see.
    """
    lengths = np.diff(dataset.row_offsets)[dataset.sequence_rows].astype(np.int64)
    beyond = 0 if window is None else np.maximum(lengths - window, 0)
    totals = np.concatenate([[0], np.cumsum(lengths**2 - beyond**2)])
    return np.asarray(np.diff(totals[dataset.sequence_offsets]), dtype=np.int64)


def peak_flops(device: torch.device, *, precision: str) -> int | None:
    """What one device computes a second at most; None for a CPU or an unknown GPU."""
    if device.type != "cuda":
        return None
    peak = peak_of_device(torch.cuda.get_device_name(device))
    if peak is None:
        return None
    return peak.bf16 if precision == "bf16" else peak.fp32


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call] # not annotated
    return event


class Stopwatch:
    """Time that the device spends on the enclosed work, of which no part waits for another rank."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._seconds = 0.0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Measure the enclosed work."""
        if self._cuda:
            start, end = _event(), _event()
            start.record()
            yield
            end.record()
            self._events.append((start, end))
            return
        started = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - started

    def take(self) -> float:
        """The seconds since the last call; the device must have finished its work."""
        for start, end in self._events:
            end.synchronize()
            self._seconds += start.elapsed_time(end) / 1_000
        taken, self._seconds, self._events = self._seconds, 0.0, []
        return taken
