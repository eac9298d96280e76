"""Finds the program in what a model wrote, and compares what programs print.

Invariant: as in LiveCodeBench, the last block of code counts, and blanks at the ends of lines do not.
"""

from __future__ import annotations

import ast
import re
from decimal import Decimal, InvalidOperation

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*$", re.MULTILINE)
_PYTHON = frozenset({"python", "python3", "py", "py3"})


def last_program(text: str) -> str | None:
    """The last closed block of Python, else the last closed block, else a text that is Python as it stands."""
    blocks, is_open = _blocks(text)
    python = [code for language, code in blocks if language in _PYTHON]
    found = python or [code for language, code in blocks if not language]
    if found:
        return found[-1]
    return text if not blocks and not is_open and _is_program(text) else None


def has_open_block(text: str) -> bool:
    """Whether the last block of code was never closed: the program in it was cut."""
    return _blocks(text)[1]


def _blocks(text: str) -> tuple[list[tuple[str, str]], bool]:
    blocks: list[tuple[str, str]] = []
    opened: re.Match[str] | None = None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and not fence[2]:
            blocks.append((opened[2].lower(), text[opened.end() + 1 : fence.start()]))
            opened = None
    return blocks, opened is not None


def _is_program(text: str) -> bool:
    try:
        body = ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return any(not isinstance(each, ast.Expr) or isinstance(each.value, ast.Call) for each in body)


def same_output(given: str, wanted: str) -> bool:
    """Whether two outputs say the same: line by line, blanks at both ends aside; numbers by their value."""
    lines, wanted_lines = _lines(given), _lines(wanted)
    return len(lines) == len(wanted_lines) and all(map(_same_line, lines, wanted_lines))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().split("\n")]


def _same_line(given: str, wanted: str) -> bool:
    if given == wanted:
        return True
    words, wanted_words = given.split(), wanted.split()
    if len(words) != len(wanted_words):
        return False
    numbers, wanted_numbers = list(map(_number, words)), list(map(_number, wanted_words))
    return None not in numbers and numbers == wanted_numbers


def _number(word: str) -> Decimal | None:
    try:
        number = Decimal(word)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def same_value(given: object, wanted: object) -> bool:
    """Whether a function's value is the wanted one; a tuple is as good as a list, which is all that JSON has."""
    return _listed(given) == wanted


def _listed(value: object) -> object:
    if isinstance(value, list | tuple):
        return [_listed(each) for each in value]
    if isinstance(value, dict):
        return {_key(key): _listed(each) for key, each in value.items()}
    return value


def _key(key: object) -> object:
    """JSON has text alone for keys."""
    return str(key) if isinstance(key, int) and not isinstance(key, bool) else key
