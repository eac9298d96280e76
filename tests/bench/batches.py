"""``python -m bench.batches``: what GPUs compute for one useful token, by how the rows of a step are arranged.

Nothing is trained and no clock is read: the trainer's own code plans one epoch of rows with lengths like Sky-T1's, and
the tokens are counted. In a micro-step all ranks wait for the one with the longest row, so a micro-step costs as many
tokens as if every row were that long; padding is in them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click
import numpy as np
from numpy.typing import NDArray

from rft_operator.cli.output import table
from rft_operator.domain.estimate_data import PUBLISHED
from rft_trainer.prepare.packing import pack
from rft_trainer.train.plan import BatchPlan

DATA = PUBLISHED["NovaSky-AI/Sky-T1_data_17k"]
LIMIT = 16_384
RANKS, GLOBAL_BATCH, SEED = 8, 96, 42
ORDERED_TARGET, PACKED_TARGET = 1.3, 1.8
"""Useful tokens per computed token, over those of the plain order."""

Lengths = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """One epoch in one arrangement."""

    name: str
    rows_per_step: float
    micro_steps: int
    useful_tokens: int
    computed_tokens: int
    """On all ranks; waiting counts as computing."""

    @property
    def computed_per_useful(self) -> float:
        """Return the tokens computed for one useful token."""
        return self.computed_tokens / self.useful_tokens


def sky_t1_lengths(*, rows: int = DATA.rows) -> Lengths:
    """Lognormal lengths with Sky-T1's mean and spread, none above its limit."""
    middle = np.log(DATA.mean_tokens) - DATA.spread**2 / 2
    drawn = np.random.Generator(np.random.PCG64(SEED)).lognormal(middle, DATA.spread, size=rows)
    return np.clip(np.rint(drawn), 1, LIMIT).astype(np.int64)


def arrangements(lengths: Lengths, *, micro_batch_size: int) -> list[Arrangement]:
    """Plain, ordered by length, packed."""
    packed = np.asarray([lengths[rows].sum() for rows in pack(lengths.tolist(), capacity=LIMIT)])
    return [
        _count("plain", lengths, rows=len(lengths), micro=micro_batch_size, ordered=False),
        _count("ordered by length", lengths, rows=len(lengths), micro=micro_batch_size, ordered=True),
        _count("packed", packed, rows=len(lengths), micro=micro_batch_size, ordered=True),
    ]


def _count(name: str, sequences: Lengths, *, rows: int, micro: int, ordered: bool) -> Arrangement:
    micro_steps = [sequences[held] for held in _micro_steps(sequences, micro=micro, ordered=ordered)]
    return Arrangement(
        name=name,
        rows_per_step=GLOBAL_BATCH * rows / len(sequences),
        micro_steps=len(micro_steps),
        useful_tokens=sum(int(held.sum()) for held in micro_steps),
        computed_tokens=sum(int(held.max()) * held.size for held in micro_steps),
    )


def _micro_steps(sequences: Lengths, *, micro: int, ordered: bool) -> Iterator[Lengths]:
    """Give what all ranks hold in each micro-step of an epoch: rank x sequence."""
    plan = BatchPlan(
        lengths=sequences,
        targets=sequences,
        seed=SEED,
        global_batch_size=GLOBAL_BATCH,
        micro_batch_size=micro,
        world_size=RANKS,
    )
    for step in range(-(-len(sequences) // GLOBAL_BATCH)):
        if ordered:
            of_rank = [plan.step(step, rank=rank).micro_batches for rank in range(RANKS)]
            yield from (np.asarray(held) for held in zip(*of_rank, strict=True))
        else:
            yield from plan.global_batch(step).reshape(-1, RANKS, micro)


@click.command()
def main() -> None:
    """Print the table of docs/benchmarks.md."""
    lengths = sky_t1_lengths()
    click.echo(
        f"{len(lengths):,} rows, {lengths.sum():,} tokens, {RANKS} ranks, {GLOBAL_BATCH} sequences a step, one epoch\n"
    )
    lines = [("ROWS AT ONCE", "ARRANGEMENT", "ROWS A STEP", "MICRO-STEPS", "COMPUTED PER USEFUL", "GAIN", "TARGET")]
    for micro in (1, 2, 4):
        found = arrangements(lengths, micro_batch_size=micro)
        for each, target in zip(found, (None, ORDERED_TARGET, PACKED_TARGET), strict=True):
            gain = found[0].computed_per_useful / each.computed_per_useful
            lines.append(
                (
                    f"{micro}",
                    each.name,
                    f"{each.rows_per_step:.0f}",
                    f"{each.micro_steps:,}",
                    f"{each.computed_per_useful:.3f}",
                    f"{gain:.2f}",
                    "" if target is None else f"{target}, {'met' if gain >= target else 'missed'}",
                )
            )
    for line in table(lines):
        click.echo(line)


if __name__ == "__main__":
    main()
