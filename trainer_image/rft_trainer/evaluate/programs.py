"""Runs the programs among a benchmark's answers, several at once.

Invariant: a verdict is on the volume before it counts, so a killed pod runs no program twice; the order in which
programs end changes nothing. The tests of one problem after another are read, and let go of once its programs have run.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from queue import SimpleQueue

from rft_trainer.benchmarks import Question
from rft_trainer.evaluate.machine import programs_at_once
from rft_trainer.evaluate.record import AnswerFile, AnswerRecord
from rft_trainer.evaluate.stopping import Stop
from rft_trainer.question_rows import RowReader
from rft_trainer.sandbox.limits import MEBIBYTE
from rft_trainer.scoring import Judge, Verdict
from rft_trainer.scoring.code_tests import CodeTests, parse_tests
from rft_trainer.scoring.verdict import PENDING

_SAID_EVERY = 100


def run_programs(answers: AnswerFile, questions: Sequence[Question], *, stop: Stop, workers: int | None = None) -> None:
    """Judge what was not run yet; raises ``StoppedError`` when there is no more time, keeping what is judged.

    Raises :class:`BadInputError` where a program may take more memory than there is.
    """
    pending: defaultdict[str, list[AnswerRecord]] = defaultdict(list)
    for each in answers.records.values():
        if each.reason == PENDING:
            pending[each.id].append(each)
    questions = [each for each in questions if each.id in pending]
    if not questions:
        return
    waiting = _with_tests(pending, questions)
    count = workers or programs_at_once(program_mib=max(map(_program_mib, questions)))
    sys.stdout.write(f"{sum(map(len, pending.values()))} programs to run, {count} at once\n")
    sys.stdout.flush()
    judges: SimpleQueue[Judge] = SimpleQueue()
    for _ in range(count):
        judges.put(Judge(programs=True))

    def judged(record: AnswerRecord, tests: CodeTests) -> tuple[AnswerRecord, Verdict]:
        judge = judges.get()
        try:
            return record, judge.score_program(tests, record.text)
        finally:
            judges.put(judge)

    done = 0
    with ThreadPoolExecutor(count, thread_name_prefix="judge") as pool:
        under_way: list[Future[tuple[AnswerRecord, Verdict]]] = []
        try:
            while True:
                under_way += [pool.submit(judged, *each) for each in islice(waiting, count - len(under_way))]
                if not under_way:
                    break
                record, verdict = under_way.pop(0).result()
                answers.append(
                    replace(record, extracted=verdict.extracted, correct=verdict.correct, reason=verdict.reason)
                )
                done += 1
                if done % _SAID_EVERY == 0:
                    sys.stdout.write(f"{done} programs run\n")
                    sys.stdout.flush()
                stop.check()
        finally:
            for future in under_way:
                future.cancel()
            pool.shutdown(wait=True)
            for _ in range(count):
                judges.get().close()


def _with_tests(
    pending: Mapping[str, Sequence[AnswerRecord]], questions: Sequence[Question]
) -> Iterator[tuple[AnswerRecord, CodeTests]]:
    """All programs that were not run yet, question by question."""
    rows = RowReader()
    for question in questions:
        tests = parse_tests(question.answer) if question.tests is None else question.tests.read(rows)
        yield from ((record, tests) for record in pending[question.id])


def _program_mib(question: Question) -> int:
    if question.tests is not None:
        return question.tests.memory_mib
    return parse_tests(question.answer).limits.memory_bytes // MEBIBYTE
