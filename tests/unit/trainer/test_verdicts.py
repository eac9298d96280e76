"""Scores get their interval and a verdict that accounts for all benchmarks of an evaluation."""

from __future__ import annotations

import pytest

from rft_trainer.contract import Score
from rft_trainer.evaluate.verdicts import judged, pass_curve


def score(per_question: list[float], *, samples: int = 1) -> Score:
    value = sum(per_question) / len(per_question)
    return Score(
        benchmark="sums", metric="accuracy", value=value, stderr=0.0, questions=len(per_question), samples=samples
    )


BETTER = ([1.0] * 9 + [0.0] * 21, [0.0] * 8 + [0.0] + [1.0] + [0.0] * 20)
SAME = ([1.0] * 15 + [0.0] * 15, [1.0] * 15 + [0.0] * 15)


def test_score_is_improved_when_one_benchmark_was_asked_and_inconclusive_among_many() -> None:
    (alone,) = judged([score(BETTER[0])], pairs=[BETTER])
    assert (alone.verdict, alone.wins, alone.losses, alone.p_value) == ("Improved", 9, 1, 0.0214844)
    among = judged([score(BETTER[0]), *[score(SAME[0])] * 3], pairs=[BETTER, SAME, SAME, SAME])
    assert [each.verdict for each in among] == ["Inconclusive"] * 4
    assert [each.p_value for each in among] == [0.0859375, 1.0, 1.0, 1.0]


def test_score_is_regressed_when_the_base_model_was_better() -> None:
    (row,) = judged([score(BETTER[1])], pairs=[(BETTER[1], BETTER[0])])
    assert (row.verdict, row.wins, row.losses) == ("Regressed", 1, 9)


def test_score_has_an_interval_and_no_verdict_when_there_is_no_base_model() -> None:
    (row,) = judged([score(SAME[0])], pairs=[(SAME[0], None)])
    assert (row.verdict, row.wins, row.losses, row.p_value) == (None, None, None, None)
    assert row.interval == (0.331541, 0.668459)
    assert Score.model_validate(row.model_dump()) == row


def test_pass_curve_rises_with_the_answers_that_may_be_tried() -> None:
    curve = pass_curve([0.5, 0.0, 1.0], samples=6)
    assert list(curve) == ["pass@1", "pass@2", "pass@4", "pass@6"]
    assert curve["pass@1"] == 0.5
    assert curve["pass@2"] == pytest.approx((1 - 3 / 15 + 0 + 1) / 3, abs=1e-6)
    assert curve["pass@6"] == pytest.approx(2 / 3, abs=1e-6)
