"""The tokenised rows on the volume.

Invariant: what is written is memory-mapped by every rank, appears whole or not at all, and carries the hash of its
content, so a checkpoint knows the rows it was trained on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rft_trainer.errors import BadInputError
from rft_trainer.files import fresh_directory, publish_directory, read_json, write_json
from rft_trainer.prepare.chat import EncodedRow

_ARRAYS = ("tokens", "target", "row_offsets", "sequence_rows", "sequence_offsets")
VERSION = 1
COUNTED_ROWS = 1_024
"""Rows whose marks are added up at once."""


@dataclass(frozen=True)
class PreparedDataset:
    """Rows one after another, and the sequences made of them."""

    tokens: NDArray[np.int32]
    target: NDArray[np.uint8]
    row_offsets: NDArray[np.int64]
    sequence_rows: NDArray[np.int64]
    sequence_offsets: NDArray[np.int64]
    question_hashes: frozenset[str]
    sha256: str

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.sequence_offsets) - 1

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.row_offsets) - 1

    def sequence(self, index: int) -> list[EncodedRow]:
        """The rows of one sequence."""
        start, end = self.sequence_offsets[index], self.sequence_offsets[index + 1]
        return [self.row(int(row)) for row in self.sequence_rows[start:end]]

    def row(self, index: int) -> EncodedRow:
        """One row's tokens and trained marks."""
        start, end = self.row_offsets[index], self.row_offsets[index + 1]
        return EncodedRow(tokens=self.tokens[start:end], target=self.target[start:end])

    def sequence_lengths(self) -> NDArray[np.int64]:
        """Tokens of every sequence."""
        return self._per_sequence(np.diff(self.row_offsets))

    def sequence_targets(self) -> NDArray[np.int64]:
        """Tokens of every sequence that carry loss: a row's first token is never predicted."""
        counted = np.empty(self.rows, dtype=np.int64)
        # every rank of a node counts, and a billion marks of a byte each are 24 GB where they are added up at once
        for start in range(0, self.rows, COUNTED_ROWS):
            offsets = self.row_offsets[start : start + COUNTED_ROWS + 1]
            marks, begins = self.target[offsets[0] : offsets[-1]], offsets[:-1] - offsets[0]
            sums = np.add.reduceat(marks, begins, dtype=np.int64)
            counted[start : start + len(begins)] = sums - marks[begins]
        return self._per_sequence(counted)

    def _per_sequence(self, per_row: NDArray[np.int64]) -> NDArray[np.int64]:
        totals = np.concatenate([[0], np.cumsum(per_row[self.sequence_rows])])
        return np.asarray(np.diff(totals[self.sequence_offsets]), dtype=np.int64)


def build(
    rows: Sequence[EncodedRow], sequences: Sequence[Sequence[int]], *, question_hashes: frozenset[str]
) -> PreparedDataset:
    """Join rows and sequences into flat arrays."""
    tokens = np.concatenate([row.tokens for row in rows])
    target = np.concatenate([row.target for row in rows])
    row_offsets = _offsets([len(row.tokens) for row in rows])
    sequence_rows = np.asarray([row for sequence in sequences for row in sequence], dtype=np.int64)
    sequence_offsets = _offsets([len(sequence) for sequence in sequences])
    digest = hashlib.sha256()
    for array in (tokens, target, row_offsets, sequence_rows, sequence_offsets):
        digest.update(np.ascontiguousarray(array).data)
    return PreparedDataset(
        tokens, target, row_offsets, sequence_rows, sequence_offsets, question_hashes, digest.hexdigest()
    )


def _offsets(lengths: Sequence[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))]).astype(np.int64)


def save(dataset: PreparedDataset, destination: Path) -> None:
    """Write the dataset; ``destination`` appears whole."""
    temporary = fresh_directory(destination.with_name(f".{destination.name}.part"))
    for name in _ARRAYS:
        np.save(temporary / f"{name}.npy", getattr(dataset, name), allow_pickle=False)
    meta = {"version": VERSION, "sha256": dataset.sha256, "question_hashes": sorted(dataset.question_hashes)}
    write_json(temporary / "dataset.json", meta)
    publish_directory(temporary, destination)


def load(path: Path) -> PreparedDataset:
    """Map a saved dataset; raises :class:`BadInputError` when it is absent or of another version."""
    meta = read_json(path / "dataset.json")
    if not isinstance(meta, dict) or meta.get("version") != VERSION:
        raise BadInputError(f"{path}: holds no prepared dataset of version {VERSION}; run the prepare stage first")
    arrays = {name: np.load(path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
    return PreparedDataset(**arrays, question_hashes=frozenset(meta["question_hashes"]), sha256=meta["sha256"])


def question_hash(question: str) -> str:
    """The key by which training and held-out questions are compared: case and white space do not count."""
    return hashlib.sha256(" ".join(question.lower().split()).encode()).hexdigest()[:16]
