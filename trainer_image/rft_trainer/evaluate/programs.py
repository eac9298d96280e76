"""Runs the programs among a benchmark's answers, several at once.

Invariant: a verdict is on the volume before it counts, so a killed pod runs no program twice; the order in which
programs end changes nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

from rft_trainer.benchmarks import Question
from rft_trainer.evaluate.record import AnswerFile, AnswerRecord
from rft_trainer.evaluate.stopping import Stop
from rft_trainer.scoring import Judge, Verdict
from rft_trainer.scoring.verdict import PENDING

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_SAID_EVERY = 100


def run_programs(answers: AnswerFile, questions: Sequence[Question], *, stop: Stop, workers: int | None = None) -> None:
    """Judge what was not run yet; raises ``StoppedError`` when there is no more time, keeping what is judged."""
    by_id = {question.id: question for question in questions}
    waiting = iter([each for each in answers.records.values() if each.reason == PENDING and each.id in by_id])
    count = workers or processors()
    judges: SimpleQueue[Judge] = SimpleQueue()
    for _ in range(count):
        judges.put(Judge(programs=True))

    def judged(record: AnswerRecord) -> tuple[AnswerRecord, Verdict]:
        judge, question = judges.get(), by_id[record.id]
        try:
            return record, judge.score(question.scorer, answer=question.answer, text=record.text)
        finally:
            judges.put(judge)

    done = 0
    with ThreadPoolExecutor(count, thread_name_prefix="judge") as pool:
        under_way: list[Future[tuple[AnswerRecord, Verdict]]] = []
        try:
            while True:
                under_way += [pool.submit(judged, each) for each in islice(waiting, count - len(under_way))]
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
            for each in under_way:
                each.cancel()
            pool.shutdown(wait=True)
            for _ in range(count):
                judges.get().close()


def processors() -> int:
    """How many this process may use: of a pod, what its limit on CPU comes to."""
    available = len(os.sched_getaffinity(0))
    try:
        quota, period = _QUOTA.read_text().split()
        allowed = int(quota) // int(period)
    except (OSError, ValueError):  # no bound, or another version of control groups
        return available
    return max(1, min(available, allowed))
