r"""Finds the final answer in what a model wrote.

Invariant: only text after the last end of thinking counts, and of several ``\boxed{}`` only the last one: a model that
reconsiders writes two. Thinking that never ended has no answer, whatever numbers it mentions.
"""

from __future__ import annotations

import re

_THINK_ENDS = ("<|im_start|>answer", "<|end_of_thought|>", "</think>")
_THINK_STARTS = ("<|im_start|>think", "<|begin_of_thought|>", "<think>")
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|end_of_solution|>")
_MARKED = re.compile(r"(?:^|[^\w])answer\s*(?::|\bis\b:?)[ \t]*(.*)", re.IGNORECASE)
_HASHES = re.compile(r"####\s*(.+)")
_NUMBER = re.compile(r"[-+]?\$?\d[\d,]*(?:\.\d+)?")


def final_part(text: str) -> str | None:
    """The text after the last end of thinking; None when thinking began and never ended."""
    cut = max((text.rfind(mark) + len(mark) for mark in _THINK_ENDS if mark in text), default=None)
    if cut is None:
        if any(mark in text for mark in _THINK_STARTS):
            return None
        cut = 0
    part = text[cut:]
    for mark in _ENDS:
        part = part.split(mark)[0]
    return part.replace("<|begin_of_solution|>", "").strip()


def last_boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}`` with balanced braces."""
    for match in reversed(list(re.finditer(r"\\f?boxed\s*\{", text))):
        depth, start = 1, match.end()
        for position in range(start, len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[start:position].strip()
    return None


def marked(text: str) -> str | None:
    """What follows the last ``Answer:`` or ``answer is``."""
    found = [match[1].strip() for match in _MARKED.finditer(text)]
    return _trimmed(found[-1]) if found and found[-1] else None


def after_hashes(text: str) -> str | None:
    """What follows the last ``####``, as in GSM8K."""
    found = _HASHES.findall(text)
    return str(found[-1]).strip() if found else None


def last_number(text: str) -> str | None:
    """The last number in the text."""
    found = _NUMBER.findall(text)
    return str(found[-1]) if found else None


def _trimmed(text: str) -> str:
    """Without emphasis and the full stop of the sentence."""
    return text.strip(" *").rstrip(".").strip(" *")
