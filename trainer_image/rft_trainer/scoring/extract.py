r"""Finds the final answer in what a model wrote.

Invariant: only text after the last end of thinking counts, and of several ``\boxed{}`` only the last one: a model that
reconsiders writes two. Thinking that never ended has no answer, whatever numbers it mentions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_THINK_ENDS = ("<|im_start|>answer", "<|end_of_thought|>", "</think>")
_THINK_STARTS = ("<|im_start|>think", "<|begin_of_thought|>", "<think>")
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|end_of_solution|>")
_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*\{")
_MARKED = re.compile(r"(?<!\w)answer\**\s*(?::|\bis\b:?)\s*(.*)", re.IGNORECASE)
_HASHES = re.compile(r"####\s*(.+)")
# Not an exponent, an index or a part of a name; a minus after a number or a bracket is an operator.
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-+])?\$?(?:(?<![\w^])(?<!\^\{)(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+)(?:/\d+)?"
)
_FORMULA = re.compile(r"(?<!\\)\$\$(.+?)\$\$|(?<![\\$])\$([^$\n]+?)(?<!\\)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_FUNCTIONS = "sqrt|sin|cos|tan|sec|csc|cot|log|exp|infty|inf|max|min|gcd|lcm"
_WORD = re.compile(rf"(?<![\\A-Za-z])(?!(?:{_FUNCTIONS})\b)(?:[A-Za-z]{{3,}}|is|of|to|so|we|it|as|at)(?![A-Za-z])")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf|textbf)\s*\{[^{}]*\}")


def final_part(text: str) -> str | None:
    """The text after the last end of thinking; None when thinking began and did not end."""
    cut = max((text.rfind(mark) + len(mark) for mark in _THINK_ENDS if mark in text), default=0)
    if any(text.rfind(mark) >= cut for mark in _THINK_STARTS):
        return None
    part = text[cut:].replace("\N{MINUS SIGN}", "-")
    for mark in _ENDS:
        part = part.split(mark)[0]
    return part.replace("<|begin_of_solution|>", "").strip()


def opened_thinking(prompt: str) -> str:
    """The mark with which a prompt opens the thinking itself, as some chat templates do; empty if it opens none."""
    end = prompt.rstrip()
    return next((mark for mark in _THINK_STARTS if end.endswith(mark)), "")


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` with balanced braces that is not empty."""
    for match in reversed(list(_BOX.finditer(text))):
        content = _balanced(text, match.end())
        if content:
            return content
    return None


def has_open_box(text: str) -> bool:
    """Whether a box was begun and never closed: the answer in it was cut."""
    return any(_balanced(text, match.end()) is None for match in _BOX.finditer(text))


def _balanced(text: str, start: int) -> str | None:
    depth, position = 1, start
    while position < len(text):
        if text[position] == "\\":
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position].strip()
        position += 1
    return None


def marked(text: str) -> str | None:
    """What follows the last ``Answer:`` or ``answer is`` that anything follows."""
    found = [_trimmed(match[1]) for match in _MARKED.finditer(text)]
    return next((each for each in reversed(found) if each), None)


def after_hashes(text: str) -> str | None:
    """What follows the last ``####``, as in GSM8K."""
    found = _HASHES.findall(text)
    return str(found[-1]).strip() if found else None


def numbers(text: str) -> list[str]:
    """All numbers as they are written; a fraction is one."""
    return [match[0] for match in _NUMBER.finditer(text)]


def last_number(text: str) -> str | None:
    """The last number in the text."""
    found = numbers(text)
    return found[-1] if found else None


def last_expression(text: str) -> str | None:
    """The formula or the number that ends last."""
    candidates = [(match.end(), formula) for match, formula in _formulas(text)]
    candidates += [(match.end(), match[0]) for match in _NUMBER.finditer(text)]
    return max(candidates, key=lambda each: each[0])[1] if candidates else None


def without_prose(text: str) -> str:
    """The mathematics of ``5 dollars, for it rains.``: the first formula, else what stands before, or after, words."""
    formula = next((formula for _, formula in _formulas(text)), None)
    if formula is not None:
        return formula
    sentence = re.split(r"\.(?=\s|$)", text)[0].strip()
    if "\\" in sentence or not _WORD.search(sentence):
        return sentence
    pieces = (piece.strip(" ,;:*").rstrip("( ") for piece in _WORD.split(sentence))
    return next((piece for piece in pieces if piece), sentence)


def _formulas(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Formulas between their delimiters; what stands between two prices is none."""
    for match in _FORMULA.finditer(text):
        content = next(group for group in match.groups() if group is not None).strip()
        if content and not _WORD.search(_TEXT.sub("", content)):
            yield match, content


def _trimmed(text: str) -> str:
    """Without emphasis and the full stop of the sentence."""
    return text.strip(" *").rstrip(".").strip(" *")
