r"""Finds the final answer in what a model wrote.

Invariant: only text after the last end of thinking counts, and of several ``\boxed{}`` only the last one: a model that
reconsiders writes two. Thinking that never ended has no answer, whatever numbers it mentions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_THINK_ENDS = ("<|im_start|>answer", "<|end_of_thought|>", "</think>")
_THINK_STARTS = ("<|im_start|>think", "<|begin_of_thought|>", "<think>")
_ENDS = ("<|im_end|>", "<|endoftext|>", "<|end_of_solution|>")
_BOX = re.compile(r"\\(?:f?boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
"""Or what a backslash escapes, which is none."""
_MARKED = re.compile(r"(?<!\w)answer\**\s*(?::|\bis\b:?)\s*(.*)", re.IGNORECASE)
_OPENING = re.compile(r"\W*(?:final\s+)?answer\**\s*:\s*(.*)", re.IGNORECASE | re.DOTALL)
_HASHES = re.compile(r"####\s*(.+)")
# Not an exponent, an index or a part of a name; a minus after a number or a bracket is an operator.
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-+])?\$?(?:(?<![\w^])(?<!\^\{)(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\w)\.\d+)(?:/\d+)?"
)
# Of bounded length: of a model that runs in circles thousands are begun, and none of them ends.
_FORMULA = re.compile(
    r"(?<!\\)\$\$(.{1,4096}?)\$\$|(?<![\\$])\$([^$\n]+?)(?<!\\)\$|\\\((.{1,4096}?)\\\)|\\\[(.{1,4096}?)\\\]", re.DOTALL
)
_FUNCTIONS = "sqrt|sin|cos|tan|sec|csc|cot|log|exp|infty|inf|max|min|gcd|lcm"
_WORD = re.compile(
    rf"(?<![\\A-Za-z])(?!(?:{_FUNCTIONS})\b)(?:[A-Za-z]{{3,}}|is|of|to|so|we|it|as|at|i\.e\.|e\.g\.)(?:'[a-z]+)?(?![A-Za-z])"
)
_BEGINS = re.compile(r"(?:I|A|An|By|If|In|On|As|At|It|So|To|We)(?=\s+[a-z])")
_SENTENCE_END = re.compile(r"[.?!](?=\s+[A-Z]|\s*$)|\n")
_LATEX_WORDS = re.compile(r"\\(?:text|math|mbox|operatorname|begin)")
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
    for start, end in reversed(_boxes(text)):
        content = text[start:end].strip() if end is not None else ""
        if content:
            return content
    return None


def has_open_box(text: str) -> bool:
    """Whether a box was begun and never closed: the answer in it was cut."""
    return any(end is None for _, end in _boxes(text))


def _boxes(text: str) -> list[tuple[int, int | None]]:
    """Where the content of each box begins and ends, in order; one that is never closed has no end.

    All in one pass: a model that runs in circles leaves thousands of boxes open.
    """
    ends: dict[int, int | None] = {match.end(): None for match in _BOX.finditer(text)}
    opened: list[int] = []
    for brace in _BRACE.finditer(text) if ends else ():
        if brace[0] == "{":
            opened.append(brace.end())
        elif brace[0] == "}" and opened:
            start = opened.pop()
            if start in ends:
                ends[start] = brace.start()
    return list(ends.items())


def marked(text: str) -> str | None:
    """What follows the last ``Answer:`` or ``answer is`` that anything follows."""
    found = [_trimmed(match[1]) for match in _MARKED.finditer(text)]
    return next((each for each in reversed(found) if each), None)


def marked_expression(text: str) -> str | None:
    """The mathematics of what follows the last mark.

    What opens a text is no more than a call for the answer, as those are that end a thinking which used up its budget:
    where words follow it, the model goes on to derive, and its last sentence with mathematics says what it comes to.
    """
    mark = marked(text)
    if mark is None:
        return None
    opening = _OPENING.match(text)
    if opening is not None and _trimmed(opening[1].split("\n")[0]) == mark and _begins_with_words(mark):
        return _concluded(reversed(_sentences(opening[1]))) or without_prose(mark)
    return without_prose(mark)


def is_prose(text: str) -> bool:
    """Whether a text is words alone: no number, and no formula."""
    return bool(_WORD.search(text)) and not re.search(r"\d|\\(?!text|math)|\$", text)


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
    """The mathematics of a short answer.

    Of ``5 dollars, for it rains.`` what stands before the words. Where words come first, as in ``the total of the 3
    cases is 42.``, what its first sentence with any mathematics ends with.
    """
    if _begins_with_words(text):
        return _concluded(_sentences(text)) or _pieces(_first_sentence(text))[0]
    formula = next((formula for _, formula in _formulas(text)), None)
    return formula if formula is not None else _pieces(_first_sentence(text))[0]


def _concluded(sentences: Iterable[str]) -> str | None:
    """What the first of the sentences that has any mathematics ends with."""
    for sentence in sentences:
        formulas = list(_formulas(sentence))
        after = sentence[formulas[-1][0].end() :] if formulas else sentence
        whole = _LATEX_WORDS.search(after) is not None
        counted = [piece for piece in ([after.strip()] if whole else _between_words(after)) if re.search(r"\d", piece)]
        if counted:
            return counted[-1]
        if formulas:
            return formulas[-1][1]
    return None


def _sentences(text: str) -> list[str]:
    return _SENTENCE_END.split(text)


def _first_sentence(text: str) -> str:
    return re.split(r"\.(?=\s|$)", text)[0].strip()


def _begins_with_words(text: str) -> bool:
    start = text.lstrip(" *_\"'([")
    return (_WORD.match(start) or _BEGINS.match(start)) is not None


def _pieces(sentence: str) -> list[str]:
    """What stands between the words; the sentence itself where that is nothing, or where it is LaTeX."""
    sentence = sentence.strip()
    if "\\" in sentence or not _WORD.search(sentence):
        return [sentence]
    return _between_words(sentence) or [sentence]


def _between_words(sentence: str) -> list[str]:
    pieces = (piece.strip(" ,;:*").rstrip("( ") for piece in _WORD.split(sentence))
    return [piece for piece in pieces if piece]


def _formulas(text: str) -> Iterator[tuple[re.Match[str], str]]:
    """Formulas between their delimiters; what stands between two prices is none."""
    for match in _FORMULA.finditer(text):
        content = next(group for group in match.groups() if group is not None).strip()
        if content and not _WORD.search(_TEXT.sub("", content)):
            yield match, content


def _trimmed(text: str) -> str:
    """Without emphasis and the full stop of the sentence."""
    return text.strip(" *").rstrip(".").strip(" *")
