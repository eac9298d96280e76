"""Reads the rows of a benchmark's files, and one of them again by its place.

Invariant: a row that was read once is found again where it was, without what stands before it being kept in memory.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rft_trainer.errors import BadInputError
from rft_trainer.prepare.rows import json_object, read_rows

Row = Mapping[str, Any]


def placed_rows(file: Path) -> Iterator[tuple[str, Row, int]]:
    """The rows of a file, each with its name in errors and its place.

    The place is the byte at which it begins where every line is a row, else its number.
    """
    if file.name.endswith(".jsonl"):
        yield from _lines(file, at=0)
    else:
        for number, (where, row) in enumerate(_csv_rows(file) if file.suffix == ".csv" else read_rows(file)):
            yield where, row, number


class RowReader:
    """Reads rows again; those of one file fastest in their order."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._next = 0
        self._rows: Iterator[tuple[str, Row, int]] = iter(())

    def read(self, file: Path, at: int) -> Row:
        """The row at a place; raises :class:`BadInputError` where there is none any more."""
        if file.name.endswith(".jsonl"):
            found = next(_lines(file, at=at), None)
        else:
            if file != self._file or at < self._next:
                self._file, self._next, self._rows = file, 0, placed_rows(file)
            found = next((each for each in self._rows if each[2] == at), None)
            self._next = at + 1
        if found is None:
            raise BadInputError(
                f"{file.name}: is shorter than when its questions were read; give it back, or begin anew"
            )
        return found[1]


def _lines(file: Path, *, at: int) -> Iterator[tuple[str, Row, int]]:
    with file.open("rb") as stream:
        stream.seek(at)
        for number, line in enumerate(stream, start=1):
            if line.strip():
                where = f"{file.name}:{number}" if at == 0 else f"{file.name} at byte {at}"
                yield *json_object(line, where=where), stream.tell() - len(line)


def _csv_rows(path: Path) -> Iterator[tuple[str, Row]]:
    with path.open(newline="", encoding="utf-8-sig") as stream:
        try:
            for index, row in enumerate(csv.DictReader(stream)):
                yield f"{path.name}[{index}]", {name: value for name, value in row.items() if name is not None}
        except (csv.Error, UnicodeDecodeError) as error:
            raise BadInputError(f"{path.name}: is not a CSV file ({error})") from error
