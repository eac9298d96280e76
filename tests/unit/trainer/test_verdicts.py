"""Scores get their interval and a verdict that accounts for all benchmarks of an evaluation."""

from __future__ import annotations

import pytest

from rft_trainer.evaluate.measured import Measured
from rft_trainer.evaluate.unpaired import fisher_exact
from rft_trainer.evaluate.verdicts import Published, judged, pass_curve


def answered(right: int, wrong: int, *more: int, asked: int | None = None) -> Measured:
    """``right`` questions answered rightly, then ``wrong`` ones, and so on in turns."""
    rights: list[int] = []
    for index, count in enumerate((right, wrong, *more)):
        rights += [1 - index % 2] * count
    return Measured(rights=tuple(rights), samples=1, asked=len(rights) if asked is None else asked)


BETTER = (answered(9, 21), answered(0, 9, 1, 20))
SAME = (answered(15, 15), answered(15, 15))


def test_score_is_improved_when_one_benchmark_was_asked_and_inconclusive_among_many() -> None:
    (alone,) = judged([BETTER])
    assert alone.comparison is not None
    assert (alone.verdict, alone.comparison.wins, alone.comparison.losses) == ("Improved", 9, 1)
    assert alone.adjusted_p == pytest.approx(0.021484375)
    among = judged([BETTER, SAME, SAME, SAME])
    assert [each.verdict for each in among] == ["Inconclusive"] * 4
    assert [each.adjusted_p for each in among] == [0.0859375, 1.0, 1.0, 1.0]


def test_score_is_regressed_when_the_base_model_was_better() -> None:
    (row,) = judged([(BETTER[1], BETTER[0])])
    assert row.comparison is not None
    assert (row.verdict, row.comparison.wins, row.comparison.losses) == ("Regressed", 1, 9)


def test_score_has_an_interval_and_no_verdict_when_there_is_no_base_model() -> None:
    (row,) = judged([(SAME[0], None)])
    assert (row.verdict, row.comparison, row.adjusted_p) == (None, None, None)
    assert (round(row.interval.low, 6), round(row.interval.high, 6)) == (0.331541, 0.668459)


@pytest.mark.parametrize("pair", [(answered(9, 3, asked=30), BETTER[1]), (BETTER[0], answered(0, 9, asked=30))])
def test_nothing_is_compared_when_one_of_the_two_is_partial(pair: tuple[Measured, Measured]) -> None:
    complete, partial = judged([BETTER, pair])
    assert partial.verdict is None
    assert complete.adjusted_p == pytest.approx(0.021484375), "what is not compared is no further chance"


def test_published_score_is_compared_as_if_of_other_questions() -> None:
    paired, published = judged([BETTER])[0], judged([(BETTER[0], Published(value=1 / 30, questions=30))])[0]
    assert paired.comparison is not None
    assert published.comparison is not None
    assert published.comparison.delta == pytest.approx(paired.comparison.delta)
    assert (published.comparison.wins, published.comparison.losses) == (None, None)
    # a difference of 8/30 with the standard errors of 9 of 30 and of a published 1 of 30
    spread = (0.3 * 0.7 / 29 + (1 / 30) * (29 / 30) / 30) ** 0.5
    assert published.comparison.stderr == pytest.approx(spread)
    assert published.adjusted_p == pytest.approx(fisher_exact((9, 30), (1, 30)))
    assert published.verdict == "Improved"


def test_pass_curve_rises_with_the_answers_that_may_be_tried() -> None:
    curve = pass_curve([3, 0, 6], samples=6)
    assert list(curve) == ["pass@1", "pass@2", "pass@4", "pass@6"]
    assert curve["pass@1"] == 0.5
    assert curve["pass@2"] == pytest.approx((1 - 3 / 15 + 0 + 1) / 3, abs=1e-6)
    assert curve["pass@6"] == pytest.approx(2 / 3, abs=1e-6)
