"""The tests of programs, kept where they are and read one problem at a time.

Why: those of LiveCodeBench are many times larger than its questions (docs/code-execution.md), and a pod that only asks
the questions has no use for any of them. Invariant: a question holds the place and the hash of its tests, never the
tests.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rft_trainer.errors import BadInputError
from rft_trainer.question_rows import Row, RowReader
from rft_trainer.sandbox.limits import memory_mib_for, programs_in
from rft_trainer.scoring.code_rows import memory_mib, row_tests, sha256_of_tests
from rft_trainer.scoring.code_tests import CodeTests, read_tests


@dataclass(frozen=True, kw_only=True)
class StoredTests:
    """The tests of one question."""

    file: Path
    at: int
    """Of its row in the file (:mod:`rft_trainer.question_rows`)."""
    sha256: str
    """Of the tests as the row has them."""
    memory_mib: int
    """What a program may take."""

    def read(self, rows: RowReader | None = None) -> CodeTests:
        """Read and unpack them; raises :class:`BadInputError` where they are not those that the hash is of."""
        row = (rows or RowReader()).read(self.file, self.at)
        if sha256_of_tests(row) != self.sha256:
            raise BadInputError(f"{self.file.name}: has changed since its questions were read; give the old one back")
        return read_tests(row_tests(row))


def stored_tests(row: Row, *, file: Path, at: int) -> StoredTests:
    """Where the tests of a row are."""
    return StoredTests(file=file, at=at, sha256=sha256_of_tests(row), memory_mib=memory_mib(row))


def check_room(tests: Iterable[StoredTests | None], *, memory_mib: int, where: str) -> None:
    """Raise :class:`BadInputError` where a program may take more than a pod with so much memory can give it."""
    largest = max((each.memory_mib for each in tests if each is not None), default=0)
    if largest and programs_in(memory_mib, program_mib=largest) == 0:
        raise BadInputError(
            f"{where}: a program may take {largest} MiB (tests.memory_mib), which the {memory_mib} MiB of "
            "evaluation.codeExecution.memory have no room for; give at least "
            f"{memory_mib_for(1, program_mib=largest)}Mi"
        )
