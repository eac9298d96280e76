"""The scorers: math, integer, letter, gsm8k.

Invariant: a verdict says what was extracted and why it is right or wrong; no answer is never right, and a scorer that
cannot work raises instead of giving 0.
"""

from __future__ import annotations

import json
import re
import select
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from types import TracebackType

from rft_trainer.errors import BadInputError, StageError
from rft_trainer.scoring import extract

MATH_TIMEOUT_SECONDS = 10.0
START_TIMEOUT_SECONDS = 120.0
_LETTER = re.compile(r"(?<![A-Za-z])\(?([A-J])\)?(?![A-Za-z])")


@dataclass(frozen=True)
class Verdict:
    """The judgement of one answer."""

    extracted: str | None
    correct: bool
    reason: str
    """equal, different, no answer, unparsed, or timeout."""


class Judge:
    """Scores answers; a context manager, for ``math`` keeps a worker process."""

    def __init__(self) -> None:
        self._worker: subprocess.Popen[str] | None = None
        self._scorers: dict[str, Callable[[str, str], Verdict]] = {
            "math": self._math,
            "integer": _integer,
            "letter": _letter,
            "gsm8k": _gsm8k,
        }

    def __enter__(self) -> Judge:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def score(self, scorer: str, *, answer: str, text: str) -> Verdict:
        """Judge the model's ``text`` against the right ``answer``."""
        judge = self._scorers.get(scorer)
        if judge is None:
            raise BadInputError(f"scorer {scorer!r}: is unknown; use {', '.join(self._scorers)}")
        part = extract.final_part(text)
        if not part:
            return Verdict(None, correct=False, reason="no answer")
        return judge(answer, part)

    def _math(self, answer: str, part: str) -> Verdict:
        found = extract.last_boxed(part) or extract.marked(part) or part
        if _plain(found) == _plain(answer):
            return Verdict(found, correct=True, reason="equal")
        verdict = self._compare(gold=answer, answer=found)
        if verdict == "unparsed" and found == part:
            return Verdict(None, correct=False, reason="no answer")
        return Verdict(found, correct=verdict == "equal", reason=verdict)

    def _compare(self, *, gold: str, answer: str) -> str:
        fresh = self._worker is None
        worker = self._worker or self._start()
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            worker.stdin.write(json.dumps({"gold": gold, "answer": answer}) + "\n")
            worker.stdin.flush()
        except BrokenPipeError:
            self.close()
            return "unparsed"
        bound_seconds = START_TIMEOUT_SECONDS if fresh else MATH_TIMEOUT_SECONDS
        ready, _, _ = select.select([worker.stdout], [], [], bound_seconds)
        line = worker.stdout.readline() if ready else ""
        if not line:
            self.close()
            return "unparsed" if ready else "timeout"
        return str(json.loads(line)["verdict"])

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-W", "ignore", "-m", "rft_trainer.scoring.math_worker"]
        self._worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        self._worker.stdin.write(json.dumps({"gold": "1", "answer": "1"}) + "\n")
        self._worker.stdin.flush()
        ready, _, _ = select.select([self._worker.stdout], [], [], START_TIMEOUT_SECONDS)
        if not ready or not self._worker.stdout.readline():
            self.close()
            raise StageError("scorer math: math-verify does not start; is it installed in this image?")
        return self._worker

    def close(self) -> None:
        """End the worker."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.kill()
        worker.wait()
        for stream in (worker.stdin, worker.stdout):
            if stream is not None:
                stream.close()


def _plain(text: str) -> str:
    text = re.sub(r"\\(?:text|mathrm|mathbf)\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[,;!: ]|\\left|\\right|\s|\$", "", text)
    return text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac").strip(".")


def _number(text: str) -> Decimal | None:
    cleaned = re.sub(r"[,$%\s]|\\[!,;]|\{|\}", "", text).rstrip(".")
    try:
        value = Decimal(cleaned)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _compare_numbers(answer: str, found: str | None) -> Verdict:
    wanted = _number(answer)
    if wanted is None:
        raise BadInputError(f"answer {answer!r}: is not a number; use scorer math")
    if found is None:
        return Verdict(None, correct=False, reason="no answer")
    given = _number(found)
    if given is None:
        inside = extract.last_number(found)
        given = _number(inside) if inside is not None else None
    if given is None:
        return Verdict(found, correct=False, reason="unparsed")
    return Verdict(found, correct=given == wanted, reason="equal" if given == wanted else "different")


def _integer(answer: str, part: str) -> Verdict:
    return _compare_numbers(answer, extract.last_boxed(part) or extract.marked(part) or extract.last_number(part))


def _gsm8k(answer: str, part: str) -> Verdict:
    gold = extract.after_hashes(answer) or answer
    found = extract.after_hashes(part) or extract.last_boxed(part) or extract.marked(part) or extract.last_number(part)
    return _compare_numbers(gold, found)


def _letter(answer: str, part: str) -> Verdict:
    wanted = answer.strip().strip("().").upper()
    found = None
    for text in (extract.last_boxed(part), extract.marked(part)):
        letters = _LETTER.findall(_plain(text)) or _LETTER.findall(text) if text is not None else []
        if letters:
            found = str(letters[0])
            break
    else:
        alone = re.findall(r"\(([A-J])\)|^\s*([A-J])[).]?\s*$", part, re.MULTILINE)
        found = (alone[-1][0] or alone[-1][1]) if alone else None
    if found is None:
        return Verdict(None, correct=False, reason="no answer")
    return Verdict(found, correct=found == wanted, reason="equal" if found == wanted else "different")
