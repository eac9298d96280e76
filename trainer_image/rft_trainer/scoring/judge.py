"""The scorers: math, integer, letter, gsm8k, code.

Invariant: a verdict says what was extracted and why it is right or wrong; no answer is never right, and a scorer that
cannot work, or a right answer that it cannot read, raises instead of giving 0.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from types import TracebackType

from rft_trainer.errors import BadInputError, SandboxError
from rft_trainer.scoring import extract
from rft_trainer.scoring.code import CodeJudge
from rft_trainer.scoring.code_tests import CodeTests, parse_tests
from rft_trainer.scoring.mathematics import Mathematics
from rft_trainer.scoring.verdict import NO_ANSWER, NOT_CLOSED, NOT_ENDED, Verdict, is_answered, missing

SCORERS = ("math", "integer", "letter", "gsm8k", "code")
__all__ = [
    "NOT_CLOSED",
    "NOT_ENDED",
    "NO_ANSWER",
    "SANDBOXED",
    "SCORERS",
    "Judge",
    "Verdict",
    "check_answer",
    "is_answered",
]
SANDBOXED = frozenset({"code"})
"""Scorers that run what the model wrote: never on a machine with a GPU, a token or a network to lose."""
VERSION = 4
"""Part of the protocol: raised when a change of the scorers can change a verdict."""
_OPERATOR = re.compile(r"[\^/+*(]|\\[a-zA-Z]|\d\s*-")
_LETTER_ALONE = re.compile(r"[^A-Za-z0-9]*([A-Ja-j])[^A-Za-z0-9]*")
# An "A" or "I" before a lower-case word is that word, but not in "A because".
_LETTER = re.compile(
    r"(?<![A-Za-z0-9'])(?:([B-HJ])|([AI])(?![ \t]+(?!(?:because|since|as|for|is|and|or)\b)[a-z]))(?![A-Za-z0-9'])"
)
_LETTER_STATED = re.compile(
    r"(?i:correct|right|best)\s+(?i:option|choice|one)\s*(?i::|is:?)\s*\W*([A-J])\b"
    r"|(?:^|[.\n]|\b(?i:therefore|thus|hence|so|option|choice))[\s,*]{0,64}\(?([A-J])\)?\**"
    r"\s+(?i:is|must be)\s+(?i:the\s+)?(?i:correct|right)\b"
)
_BASED = re.compile(r"(-?)(\d[0-9A-F]*)_\{?(\d{1,2})\}?")
_LETTER_LINE = re.compile(r"\(([A-J])\)|^[\s*]{0,64}([A-J])[).]?[\s*]{0,64}$", re.MULTILINE)
"""As above of bounded length, for of empty lines there may be thousands."""


def check_answer(scorer: str, answer: str) -> None:
    """Raise :class:`BadInputError` when no text could ever be right."""
    if scorer not in SCORERS:
        raise BadInputError(f"scorer {scorer!r} is unknown; use {', '.join(SCORERS)}")
    if not answer.strip():
        raise BadInputError("answer is empty; give the right answer")
    if scorer == "code":
        parse_tests(answer)
    if scorer == "letter" and _gold_letter(answer) is None:
        raise BadInputError(f"answer {answer!r} is not one letter of A to J; use another scorer")
    if scorer in ("integer", "gsm8k") and _gold_number(scorer, answer) is None:
        raise BadInputError(f"answer {answer!r} is not a number; use scorer math")


class Judge:
    """Scores answers; a context manager, for ``math`` and ``code`` keep processes."""

    def __init__(self, *, programs: bool = False) -> None:
        """``programs``: whether this place may run what a model wrote: no pod with GPUs, token or network may."""
        self._mathematics = Mathematics()
        self._programs = programs
        self._code: CodeJudge | None = None
        self._scorers: dict[str, Callable[[str, str], Verdict]] = {
            "math": self._math,
            "integer": self._integer,
            "letter": _letter,
            "gsm8k": self._gsm8k,
        }

    @property
    def runs_programs(self) -> bool:
        """Whether scorers of :data:`SANDBOXED` work here."""
        return self._programs

    def __enter__(self) -> Judge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._mathematics.close()
        if self._code is not None:
            self._code.close()

    def score(self, scorer: str, *, answer: str, text: str) -> Verdict:
        """Judge the model's ``text`` against the right ``answer``: for ``code`` the tests, as JSON text."""
        check_answer(scorer, answer)
        if scorer == "code":
            return self.score_program(parse_tests(answer), text)
        part = extract.final_part(text)
        if part is None:
            return missing(NOT_ENDED)
        if extract.last_boxed(part) is None and extract.has_open_box(part):
            return missing(NOT_CLOSED)
        return self._scorers[scorer](answer, part)

    def score_program(self, tests: CodeTests, text: str) -> Verdict:
        """Judge the program in the model's ``text``."""
        part = extract.final_part(text)
        if part is None:
            return missing(NOT_ENDED)
        if not self._programs:
            raise SandboxError("scorer code: programs are not run here, but in a pod of their own, or by rft score")
        self._code = self._code or CodeJudge()
        return self._code.score(tests, part)

    def _math(self, answer: str, part: str) -> Verdict:
        boxed = extract.last_boxed(part)
        found = boxed or extract.marked_expression(part) or extract.last_expression(part)
        if found is None:
            return missing()
        if _plain(found) == _plain(answer):
            return Verdict(found, correct=True, reason="equal")
        based = _same_in_bases(answer, found)
        if based is not None:
            return Verdict(found, correct=based, reason="equal" if based else "different")
        if boxed is None and extract.is_prose(found) and not extract.is_prose(answer):
            return Verdict(found, correct=False, reason="unparsed")
        return self._compared(answer, found, expression=found)

    def _compared(self, answer: str, found: str, *, expression: str) -> Verdict:
        verdict = self._mathematics.compare(gold=answer, answer=expression)
        return Verdict(found, correct=verdict == "equal", reason=verdict)

    def _integer(self, answer: str, part: str) -> Verdict:
        return self._number(
            _gold_number("integer", answer),
            extract.last_boxed(part) or _marked_number(part) or extract.last_number(part),
        )

    def _gsm8k(self, answer: str, part: str) -> Verdict:
        return self._number(
            _gold_number("gsm8k", answer),
            extract.after_hashes(part) or extract.last_boxed(part) or _marked_number(part) or extract.last_number(part),
        )

    def _number(self, wanted: Decimal | None, found: str | None) -> Verdict:
        assert wanted is not None
        if found is None:
            return missing()
        expression = extract.without_prose(found)
        given = _number(found)
        if given is None:
            given = _only_number(expression)
        if given is not None:
            return Verdict(found, correct=given == wanted, reason="equal" if given == wanted else "different")
        if not extract.numbers(expression):
            return Verdict(found, correct=False, reason="unparsed")
        return self._compared(f"{wanted:f}", found, expression=expression)


def _plain(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm|mathbf)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\\[,;!: ]|\\left(?![a-z])|\\right(?![a-z])|(?<!\d)\s+|\s+(?!\d)|\\?\$", "", text)
    return text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").rstrip(".")


def _same_in_bases(answer: str, found: str) -> bool | None:
    """Whether numbers are the same where the given one names its base; one without is in that of the question."""
    given, gold = _based(found), _based(answer)
    if given is None:
        return None
    if gold is not None:
        return given == gold
    number = _number(answer)
    return None if number is None else given == number


def _based(text: str) -> int | None:
    match = _BASED.fullmatch(_plain(text))
    if match is None:
        return None
    try:
        return int(match[1] + match[2], int(match[3]))
    except ValueError:  # no such base, or not its digits
        return None


def _marked_number(part: str) -> str | None:
    """What a mark marks: as it is written where that is a number, else the mathematics of it."""
    mark = extract.marked(part)
    return mark if mark is None or _number(mark) is not None else extract.marked_expression(part)


def _gold_letter(answer: str) -> str | None:
    match = _LETTER_ALONE.fullmatch(answer)
    return match[1].upper() if match is not None else None


def _gold_number(scorer: str, answer: str) -> Decimal | None:
    return _number((extract.after_hashes(answer) if scorer == "gsm8k" else None) or answer)


def _number(text: str) -> Decimal | None:
    cleaned = re.sub(r"\\text\{[^{}]*\}", "", text.replace("\N{MINUS SIGN}", "-"))
    cleaned = re.sub(r"(?<=\d),(?=\d{3}(?!\d))|\\?[$%]|\\[!,;]|[{}*]", "", cleaned).strip().rstrip(".")
    if not re.fullmatch(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)", cleaned):
        return None
    try:
        return Decimal(cleaned)
    except InvalidOperation:
        return None


def _only_number(text: str) -> Decimal | None:
    """The number of ``x = 33 cm``; None where several, or an operator, make it a guess."""
    right = re.sub(r"\\text\{[^{}]*\}", " ", text).rsplit("=", 1)[-1]
    found = extract.numbers(right)
    if len(found) != 1 or _OPERATOR.search(right):
        return None
    return _number(found[0])


def _letter(answer: str, part: str) -> Verdict:
    for text in (extract.last_boxed(part), extract.marked(part)):
        found = _letters(text) if text is not None else set()
        if len(found) == 1:
            return _letter_verdict(answer, found.pop())
        if found:
            return Verdict(text, correct=False, reason="unparsed")
    stated = _LETTER_STATED.findall(_plain_letters(part))
    if stated:
        return _letter_verdict(answer, stated[-1][0] or stated[-1][1])
    alone = _LETTER_LINE.findall(part)
    return _letter_verdict(answer, alone[-1][0] or alone[-1][1]) if alone else missing()


def _letters(text: str) -> set[str]:
    """The letters named in a short text; the first alone when punctuation sets it off, as in ``B) 1.5 A``."""
    plain = _plain_letters(text)
    alone = _LETTER_ALONE.fullmatch(plain)
    if alone is not None:
        return {alone[1].upper()}
    leading = re.match(r"\W*(?:(?i:option|choice)\s+\W*)?([A-J])\s*[).:]", plain)
    if leading is not None:
        return {leading[1]}
    return {match[1] or match[2] for match in _LETTER.finditer(plain)}


def _plain_letters(text: str) -> str:
    return re.sub(r"\\(?:text|textbf|mathrm|mathbf|boxed)\s*\{([^{}]*)\}", r"\1", text)


def _letter_verdict(answer: str, found: str) -> Verdict:
    correct = found == _gold_letter(answer)
    return Verdict(found, correct=correct, reason="equal" if correct else "different")
