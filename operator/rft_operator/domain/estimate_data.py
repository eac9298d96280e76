"""How many rows a dataset has and how long they are: published figures, and the lengths an estimate computes with.

Time and memory do not go by the mean alone: ranks in lockstep wait for the longest row, so the spread of the lengths
matters. Lengths are taken as lognormal, which reasoning traces are near to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist

from rft_operator.errors import InvalidResource
from rft_trainer.errors import BadInputError
from rft_trainer.uris import Uri, parse_uri

POINTS = 256
"""Equally likely lengths that stand for the distribution."""
DEFAULT_SPREAD = 0.7
"""Standard deviation of the logarithm of the lengths where nothing is known: that of Sky-T1's teacher (below)."""
PACKING_FILL = 0.97
"""Share of a packed sequence that holds rows: best-fit decreasing leaves little of a sequence of several rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataShape:
    """Rows and their lengths in tokens, prompt included."""

    rows: int
    mean_tokens: int
    spread: float = DEFAULT_SPREAD
    longest_tokens: int | None = None
    """No row is longer; None if that is not known."""
    source: str = "given"


PUBLISHED = {
    "NovaSky-AI/Sky-T1_data_17k": DataShape(
        rows=16_401,
        mean_tokens=4_650,
        spread=0.7,
        longest_tokens=16_384,
        source="NovaSky-AI/Sky-T1_data_17k: 15,446 bytes a row at 3.21 bytes a token",
    ),
    "simplescaling/s1K": DataShape(
        rows=1_000,
        mean_tokens=4_850,
        spread=0.22,
        source="s1 paper, table 5: 4.7 M tokens in 1,000 rows, and about 150 a row of question and chat markup",
    ),
    "simplescaling/s1K-1.1": DataShape(
        rows=1_000,
        mean_tokens=9_600,
        spread=0.5,
        longest_tokens=32_768,
        source="30.7 kB of text a row (DeepSeek-R1's traces) at 3.21 bytes a token",
    ),
}
"""Hub name -> shape.

Sky-T1: the bytes are the data set's size on the hub less the system prompt, the bytes per token those of Qwen's
tokenizer on QwQ's writing. The teacher, QwQ-32B-Preview, was cut at 16,384 tokens; its mean lengths on seven
benchmarks (card of Sky-T1-32B-Flash: 1,041 to 10,450 tokens) have a spread of 0.74 between them.
s1K: 74 % of the rows are longer than 4,096 tokens (s1 paper, appendix D.1), which with this mean gives the spread.
s1K-1.1: derived from the size of a copy with the rendered text; its spread is assumed.
"""
GYM = {
    "chain_sum?max_digits=2&max_terms=2&min_digits=2&min_terms=2": DataShape(
        rows=1,
        mean_tokens=88,
        spread=0.05,
        longest_tokens=93,
        source="2,000 rows of the generator, tokenised by tiny-qwen2: 81 to 93 tokens",
    ),
}
"""Generator and the options that change its lengths -> shape of its rows."""
_NO_LENGTH = frozenset({"seed", "size", "allow_negation"})


def known_data(uri: str, *, max_samples: int | None) -> DataShape | None:
    """Return the shape of a published dataset or a measured generator, or None; raises InvalidResource."""
    try:
        parsed = parse_uri(uri)
    except BadInputError as error:
        raise InvalidResource("InvalidSpec", f"spec.dataset.uri: {error}") from error
    if parsed.scheme == "gym":
        found = GYM.get(_generator(parsed))
        return None if found is None or max_samples is None else replace(found, rows=max_samples)
    published = PUBLISHED.get(parsed.target) if parsed.scheme == "hf" else None
    if published is None or max_samples is None:
        return published
    return replace(published, rows=min(published.rows, max_samples))


def _generator(uri: Uri) -> str:
    options = sorted(f"{key}={value}" for key, value in uri.options.items() if key not in _NO_LENGTH)
    return f"{uri.target}?{'&'.join(options)}" if options else uri.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequences:
    """What the ranks are given: equally likely lengths, ascending, and how many there are."""

    count: int
    rows: int
    dropped_rows: int
    lengths: tuple[float, ...]
    longest: int
    """What memory must hold: the longest row there can be."""
    packed: bool = False

    @property
    def mean(self) -> float:
        """Return the mean length."""
        return math.fsum(self.lengths) / len(self.lengths)

    def mean_of(self, cost: Callable[[float], float]) -> float:
        """Return the mean of what a sequence costs."""
        return math.fsum(cost(length) for length in self.lengths) / len(self.lengths)

    def mean_of_longest(self, cost: Callable[[float], float], *, of: int) -> float:
        """Return the mean of what the longest of ``of`` random sequences costs."""
        points = len(self.lengths)
        chances = [(index / points) ** of for index in range(points + 1)]
        return math.fsum(
            cost(length) * (above - below)
            for length, below, above in zip(self.lengths, chances, chances[1:], strict=False)
        )

    def ranked(self, position: int, *, of: int) -> float:
        """Return the usual length of the sequence at ``position`` (0 is the longest) of ``of`` random ones."""
        # Blom's approximation of the mean of an order statistic.
        share = (of - position - 0.375) / (of + 0.25)
        return self.lengths[min(len(self.lengths) - 1, int(share * len(self.lengths)))]


def sequences(data: DataShape, *, limit: int, packing: bool) -> Sequences:
    """Return what training sees of a dataset: longer rows are dropped whole, as the trainer does.

    Raises InvalidResource when no row is short enough.
    """
    everything = _lengths(data)
    kept = tuple(length for length in everything if round(length) <= limit)
    if not kept:
        raise InvalidResource(
            "InvalidSpec",
            f"spec.training.maxSequenceLength is {limit}, and rows have about {data.mean_tokens} tokens: every row "
            "would be dropped; raise it",
        )
    rows = max(1, data.rows * len(kept) // len(everything))
    longest = limit if data.longest_tokens is None else min(limit, max(data.longest_tokens, math.ceil(kept[-1])))
    found = Sequences(count=rows, rows=rows, dropped_rows=data.rows - rows, lengths=kept, longest=longest)
    return _packed(found, limit=limit) if packing else found


def _packed(single: Sequences, *, limit: int) -> Sequences:
    tokens = single.rows * single.mean
    alone = sum(length > limit / 2 for length in single.lengths) / len(single.lengths)
    count = max(1, math.ceil(tokens / (limit * PACKING_FILL)), math.ceil(single.rows * alone))
    return replace(single, count=count, lengths=(tokens / count,), longest=limit, packed=True)


@lru_cache(maxsize=64)
def _lengths(data: DataShape) -> tuple[float, ...]:
    """Return the quantiles of a lognormal that is cut at the longest row and has the given mean."""
    normal, mean = NormalDist(), float(data.mean_tokens)
    shape = [math.exp(data.spread * normal.inv_cdf((index + 0.5) / POINTS)) for index in range(POINTS)]
    scale = mean * POINTS / math.fsum(shape)
    if data.longest_tokens is None:
        return tuple(scale * point for point in shape)
    top = max(float(data.longest_tokens), mean)
    # Cutting lowers the mean, so the rest must be longer: at most so that every row is cut.
    low, high = scale, top / shape[0]
    for _ in range(60):
        scale = (low + high) / 2
        short = math.fsum(min(top, scale * point) for point in shape) < mean * POINTS
        low, high = (scale, high) if short else (low, scale)
    return tuple(min(top, high * point) for point in shape)
