"""Finds the program in what a model wrote, and compares what programs print.

Invariant: as in LiveCodeBench, the last block of code counts, and blanks at the ends of lines do not.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*$", re.MULTILINE)
# Not by the parser: what a model wrote is not fed to anything that it could bring down.
_STATEMENT = re.compile(
    r"^(?:import \w|from [\w.]+ import |def \w+\(|class \w+[:(]|print\(|(?:for|while|if) .+:[ \t]*$"
    r"|\w+(?:, ?\w+)* ?= ?\S)",
    re.MULTILINE,
)
_LONGEST_NUMBER = 100_000
_KEYS_BELOW = 10**100
_PYTHON = frozenset({"python", "python3", "py", "py3"})


def last_program(text: str) -> str | None:
    """The last closed block of Python, else the last closed block, else a text that is Python as it stands."""
    blocks, is_open = _blocks(text)
    python = [code for language, code in blocks if language in _PYTHON]
    found = python or [code for language, code in blocks if not language]
    if found:
        return found[-1]
    return text if not blocks and not is_open and _STATEMENT.search(text) else None


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


def same_value(given: Any, wanted: Any) -> bool:
    """Whether a function's encoded value (``sandbox.plain``) is the wanted one, which is what JSON can hold.

    A tuple is as good as a list. Nothing is made from what a tested program sent, for it could be chosen to take hours.
    """
    if isinstance(wanted, list):
        items = _content(given, "list", "tuple")
        return isinstance(items, list) and len(items) == len(wanted) and all(map(same_value, items, wanted))
    if isinstance(wanted, dict):
        pairs = _pairs(given)
        return pairs.keys() == wanted.keys() and all(same_value(pairs[key], wanted[key]) for key in wanted)
    if wanted is None or isinstance(wanted, str):
        return given is wanted if wanted is None else given == wanted
    number = _plain_number(given)
    return number is not None and number == wanted


def _content(given: Any, *kinds: str) -> Any:
    """What an encoded value of one of these kinds holds."""
    return given[1] if isinstance(given, list) and len(given) == 2 and given[0] in kinds else None


def _pairs(given: Any) -> dict[str, Any]:
    """An encoded dictionary by its keys as text, which is all that JSON has."""
    content = _content(given, "dict")
    if not isinstance(content, list) or not all(isinstance(each, list) and len(each) == 2 for each in content):
        return {}
    keyed = [(key if isinstance(key, str) else _plain_number(key), value) for key, value in content]
    return {
        str(key): value for key, value in keyed if isinstance(key, str) or (key is not None and abs(key) < _KEYS_BELOW)
    }


def _plain_number(given: Any) -> int | float | None:
    """An encoded number; one that is too long to be wanted by anybody is none."""
    if isinstance(given, bool):
        return int(given)
    text = _content(given, "int", "float")
    if not isinstance(text, str) or len(text) > _LONGEST_NUMBER:
        return None
    try:
        return int(text, 16) if given[0] == "int" else float.fromhex(text)
    except (ValueError, OverflowError):
        return None
