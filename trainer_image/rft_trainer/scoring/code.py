"""The scorer ``code``: runs programs that a model wrote and judges what they print or return.

Invariant: a program is right only if the judge, in its own process, finds every output equal to what it alone knows.
How a program ends, what it prints about itself and what it does to its own interpreter decide nothing.
"""

from __future__ import annotations

from typing import Any

from rft_trainer.errors import NurseryLostError
from rft_trainer.sandbox.limits import Limits
from rft_trainer.sandbox.plain import encode
from rft_trainer.sandbox.sandbox import Ending, Run, Sandbox, Talk
from rft_trainer.scoring.code_tests import CodeTests, ExaminedTests, FunctionTests, ProgramTests
from rft_trainer.scoring.code_text import has_open_block, last_program, same_output, same_value
from rft_trainer.scoring.verdict import NO_ANSWER, Verdict, missing

NOT_CLOSED = "code not closed"
EQUAL, DIFFERENT = "equal", "different"
PRELUDE = """
from re import *
from string import *
from operator import *
from math import *
from itertools import *
from functools import *
from heapq import *
from bisect import *
from collections import *
from copy import copy, deepcopy
from builtins import *
from typing import *
import bisect, collections, copy, datetime, functools, heapq, itertools, json, math, operator, os, random, re
import statistics, string, sys, time
"""
"""Names that programs of LiveCodeBench may take for granted, as its own harness gives them."""
EXAMINER_FACTOR = 2
"""So much longer than the function may take, the benchmark's own test may."""
_TRIES = 2
_DETAIL_CHARACTERS = 300


class CodeJudge:
    """Keeps the sandboxes: one for programs, one for tests, so that neither finds a trace of the other."""

    def __init__(self) -> None:
        self._programs, self._tests = Sandbox(), Sandbox()

    def close(self) -> None:
        """End both."""
        self._programs.close()
        self._tests.close()

    def score(self, tests: CodeTests, part: str) -> Verdict:
        """Judge the program in the final part of an answer; raises SandboxError when it cannot be run safely."""
        code = last_program(part)
        if code is None or not code.strip():
            return missing(NOT_CLOSED if has_open_block(part) else NO_ANSWER)
        for attempt in range(_TRIES):
            try:
                return self._judged(tests, code)
            except NurseryLostError:
                if attempt + 1 == _TRIES:
                    raise
        raise AssertionError

    def _judged(self, tests: CodeTests, code: str) -> Verdict:
        if isinstance(tests, ExaminedTests):
            reason, detail = self._examine(tests, code)
            return Verdict(code, correct=reason == EQUAL, reason=reason, detail=detail or None)
        total = len(tests.outputs)
        for index in range(total):
            if isinstance(tests, ProgramTests):
                reason, detail = self._program(tests, code, index)
            else:
                reason, detail = self._function(tests, code, index)
            if reason != EQUAL:
                where = f"test {index + 1} of {total}" + (f": {detail}" if detail else "")
                return Verdict(code, correct=False, reason=reason, detail=where)
        return Verdict(code, correct=True, reason=EQUAL)

    def _program(self, tests: ProgramTests, code: str, index: int) -> tuple[str, str]:
        run = self._programs.run(code, stdin=tests.inputs[index], limits=tests.limits, prelude=PRELUDE)
        if run.ending is not Ending.DONE:
            return run.ending.value, _last_line(run)
        same = same_output(run.stdout.decode(errors="replace"), tests.outputs[index])
        return (EQUAL if same else DIFFERENT), ""

    def _function(self, tests: FunctionTests, code: str, index: int) -> tuple[str, str]:
        request = {"prelude": PRELUDE, "code": code, "function": tests.function}
        with self._programs.talk("function", request, limits=tests.limits) as talk:
            trouble = _begin(talk)
            if trouble is not None:
                return trouble
            talk.tell({"call": encode((tests.arguments[index], {}))})
            reply = talk.hear()
            if reply is None:
                return _how_it_ended(talk)
        trouble = _trouble_in(reply)
        if trouble is not None:
            return trouble
        return (EQUAL if same_value(reply["value"], tests.outputs[index]) else DIFFERENT), ""

    def _examine(self, tests: ExaminedTests, code: str) -> tuple[str, str]:
        request = {"prelude": tests.prompt, "code": code, "function": tests.function}
        longer = Limits(
            cpu_seconds=tests.limits.cpu_seconds * EXAMINER_FACTOR,
            wall_seconds=tests.limits.wall_seconds * EXAMINER_FACTOR,
            memory_bytes=tests.limits.memory_bytes,
        )
        test = {"prompt": tests.prompt, "test": tests.test, "function": tests.function}
        with self._programs.talk("function", request, limits=tests.limits) as program:
            trouble = _begin(program)
            if trouble is not None:
                return trouble
            with self._tests.talk("examiner", test, limits=longer) as examiner:
                return _relay(examiner, program)


def _relay(examiner: Talk, program: Talk) -> tuple[str, str]:
    """Carry calls to the program and values back, until the test has its verdict."""
    last: Any = None
    while (message := examiner.hear()) is not None:
        if "call" in message:
            program.tell({"call": message["call"]})
            last = program.hear()
            if last is None:
                return _how_it_ended(program)
            examiner.tell(last)
            continue
        if message.get("verdict") == "passed":
            return EQUAL, ""
        trouble = _trouble_in(last) if message.get("verdict") == "error" else None
        reason = DIFFERENT if message.get("verdict") == DIFFERENT else Ending.ERROR.value
        return trouble or (reason, str(message.get("why"))[:_DETAIL_CHARACTERS])
    run = examiner.ended()
    return (run.ending.value if run.ending is not Ending.DONE else Ending.ERROR.value), "while its values were examined"


def _begin(talk: Talk) -> tuple[str, str] | None:
    """Wait until the program has defined its function; the trouble if it does not."""
    first = talk.hear()
    if first is None:
        return _how_it_ended(talk)
    if isinstance(first, dict) and first.get("ready") is True:
        return None
    return Ending.ERROR.value, _words(first.get("broken") if isinstance(first, dict) else first)


def _how_it_ended(talk: Talk) -> tuple[str, str]:
    run = talk.ended()
    if run.ending is Ending.DONE:
        return Ending.ERROR.value, "ended before it gave a value"
    return run.ending.value, f"ended with {run.code}" if run.ending is Ending.ERROR else ""


def _trouble_in(reply: Any) -> tuple[str, str] | None:
    """Why a reply has no value; None if it has one."""
    if isinstance(reply, dict):
        if "value" in reply:
            return None
        raised = reply.get("raised")
        if isinstance(raised, list) and raised:
            memory = raised[0] == "MemoryError"
            return (Ending.MEMORY if memory else Ending.ERROR).value, _words(raised[-1])
        if "refused" in reply:
            return Ending.ERROR.value, _words(reply["refused"])
    return Ending.ERROR.value, "gave no value"


def _words(value: object) -> str:
    return str(value)[:_DETAIL_CHARACTERS]


def _last_line(run: Run) -> str:
    lines = [line for line in run.stderr.splitlines() if line.strip()]
    return _words(lines[-1].strip()) if lines and run.ending is Ending.ERROR else ""
