"""Cross-entropy that never holds all logits of a batch at once.

Invariant: the sum equals the plain cross-entropy over the labelled positions. The output layer runs once a
forward pass, whatever the number of chunks, for under ZeRO-3 every run of a layer is a collective.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from rft_trainer.errors import BadInputError
from rft_trainer.train.batch import IGNORE, Batch
from rft_trainer.train.speed import Stopwatch

CHUNK_ELEMENTS = 2**26
"""Logits held at once; times 4 bytes in fp32, and about three copies: under 1 GiB."""
LEAST_ROWS = 128
"""... but never fewer rows at once than keep a GPU busy."""
_UNSUPPORTED = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def summed_nll(head: nn.Linear, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of the negative log-likelihood of ``labels`` (n) given ``hidden`` (n x width), in fp32."""

    def part(states: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        logits = functional.linear(states, head.weight, head.bias).float()
        return functional.cross_entropy(logits, wanted, reduction="sum")

    size = max(LEAST_ROWS, CHUNK_ELEMENTS // head.out_features)
    if len(labels) <= size:
        return part(hidden, labels)
    total = hidden.new_zeros((), dtype=torch.float32)
    for start in range(0, len(labels), size):
        states, wanted = hidden[start : start + size], labels[start : start + size]
        total = total + checkpoint(part, states, wanted, use_reentrant=False)
    return total


def output_layer(model: Any) -> nn.Linear:
    """The layer whose logits the loss is of; raises :class:`BadInputError` for a model that computes them otherwise."""
    for name in _UNSUPPORTED:
        if getattr(model.config, name, None) not in (None, 1, 1.0):
            raise BadInputError(f"model: its configuration sets {name}, which this trainer does not support")
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise BadInputError(f"model: {type(model).__name__} has no linear output layer; use a decoder-only model")
    return head


class _HiddenStates(tuple[torch.Tensor, ...]):
    """What the output layer is given of a decoder, in every way to ask for it; of all else it has nothing."""

    @property
    def last_hidden_state(self) -> torch.Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def check_logits(model: Any) -> None:
    """Raise :class:`BadInputError` for a model that does more between its decoder and its logits than its output layer.

    The loss would be another one than that of the logits which it gives when it is used: Falcon-H1 multiplies them,
    MiniCPM 3 divides the hidden states. The decoder is not run, so the model may be without weights; it is of no use
    after.
    """
    head = output_layer(model)
    given, made = (
        torch.linspace(-8.0, 8.0, 2 * width, dtype=head.weight.dtype).reshape(1, 2, width)
        for width in (head.in_features, head.out_features)
    )
    taken: list[torch.Tensor] = []

    def observed(hidden: torch.Tensor) -> torch.Tensor:
        taken.append(hidden)
        return made

    head.forward = observed  # type: ignore[method-assign, assignment] # tells what it is given
    if model.base_model is not model:
        model.base_model.forward = lambda *_, **__: _HiddenStates((given,))
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.zeros(1, 2, dtype=torch.long), use_cache=False).logits
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise BadInputError(f"model: {type(model).__name__} is not known to be a plain decoder ({error})") from error
    if any(hidden.is_meta for hidden in taken):
        return  # of a decoder that cannot be replaced: nothing is known
    if len(taken) != 1 or not torch.equal(taken[0], given) or not torch.equal(logits, made.to(logits.dtype)):
        raise BadInputError(
            f"model: {type(model).__name__} does not take its logits from its output layer as they are, which this "
            "trainer does not support"
        )


class LossModel(nn.Module):
    """A causal language model whose forward pass returns the summed loss of a batch."""

    def __init__(self, model: Any, *, stopwatch: Stopwatch) -> None:
        super().__init__()
        head = output_layer(model)
        self.model = model

        def timed(hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            # The one large product of a rank that is over before the next collective under every ZeRO stage.
            with stopwatch.running():
                return summed_nll(head, hidden, labels)

        head.forward = timed  # type: ignore[method-assign, assignment] # our layer takes the labels too

    def forward(self, batch: Batch) -> torch.Tensor:
        """Sum of the loss over the batch's labelled positions."""
        output = self.model.base_model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=None,
            use_cache=False,
        )
        wanted = batch.labels != IGNORE
        loss: torch.Tensor = self.model.get_output_embeddings()(output.last_hidden_state[wanted], batch.labels[wanted])
        return loss
