"""Worked solutions for generators that give none, in words a small model can learn digit by digit.

Invariant: a trace is computed from the question alone and ends in the right answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from rft_trainer.errors import BadInputError

_TOKEN = re.compile(r"\s*([+-]?\d+|[+-])")


def chain_sum_trace(metadata: Mapping[str, Any]) -> str:
    """A sum of whole numbers, term by term, column by column from the right, with carry and borrow written out."""
    terms = _terms(str(metadata["expression"]))
    total, lines = terms[0], []
    for term in terms[1:]:
        text, total = _combine(total, term)
        lines.append(text)
    return " ".join(lines) if lines else f"So {total}."


def _terms(expression: str) -> list[int]:
    sign, terms = 1, []
    for match in _TOKEN.finditer(expression):
        part = match[1]
        if part in "+-":
            sign = -sign if part == "-" else sign
            continue
        terms.append(sign * int(part))
        sign = 1
    if not terms or _TOKEN.sub("", expression).strip():
        raise BadInputError(f"expression {expression!r}: only sums and differences of whole numbers have a trace")
    return terms


def _combine(left: int, right: int) -> tuple[str, int]:
    if (left >= 0) == (right >= 0):
        steps, magnitude = _add(abs(left), abs(right))
        sign = -1 if left < 0 else 1
        prefix = "sign minus. " if sign < 0 else ""
    else:
        larger, smaller = sorted((abs(left), abs(right)), reverse=True)
        total = left + right
        sign = -1 if total < 0 else 1
        steps, magnitude = _subtract(larger, smaller)
        prefix = f"{larger} over {smaller}, sign {'minus' if sign < 0 else 'plus'}. "
    result = sign * magnitude
    return f"{prefix}{' '.join(steps)} So {result}.", result


def _columns(left: int, right: int) -> list[tuple[int, int]]:
    width = max(len(str(left)), len(str(right)))
    pairs = zip(str(left).zfill(width), str(right).zfill(width), strict=True)
    return [(int(a), int(b)) for a, b in pairs][::-1]


def _add(left: int, right: int) -> tuple[list[str], int]:
    steps, carry = [], 0
    columns = _columns(left, right)
    for index, (a, b) in enumerate(columns):
        total = a + b
        text = f"{a} + {b} = {total}"
        if index > 0:
            total += carry
            text += f", + {carry} = {total}"
        carry = total // 10
        steps.append(f"{text}, carry {carry}." if index < len(columns) - 1 else f"{text}.")
    return steps, left + right


def _subtract(larger: int, smaller: int) -> tuple[list[str], int]:
    steps, borrow = [], 0
    columns = _columns(larger, smaller)
    for index, (a, b) in enumerate(columns):
        need = b + borrow
        lend = 1 if a < need else 0
        value = a + 10 * lend
        text = f"{value} - {b} = {value - b}"
        if index > 0:
            text += f", - {borrow} = {value - need}"
        borrow = lend
        steps.append(f"{text}, borrow {borrow}." if index < len(columns) - 1 else f"{text}.")
    return steps, larger - smaller


TRACES: dict[str, Callable[[Mapping[str, Any]], str]] = {"chain_sum": chain_sum_trace}
"""Task name -> worked solution from the entry's metadata."""
