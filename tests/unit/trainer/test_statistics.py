"""Statistics of scores: against scipy and statsmodels (golden/statistics), closed forms, and published cases."""

from __future__ import annotations

import itertools
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_trainer.evaluate import statistics
from rft_trainer.evaluate.statistics import (
    Interval,
    compare,
    holm,
    mcnemar,
    mean_and_stderr,
    paired_bootstrap,
    pass_at,
    score_interval,
    t_interval,
    t_quantile,
    verdict,
    wilson_interval,
)
from rft_trainer.evaluate.unpaired import compare_published, fisher_exact

GOLDEN: dict[str, list[Any]] = json.loads((Path(__file__).parent / "golden" / "statistics" / "random.json").read_text())


def close(value: float) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-9)


def ends(interval: Interval) -> list[float]:
    return [interval.low, interval.high]


def of(right: int, questions: int) -> list[float]:
    return [1.0] * right + [0.0] * (questions - right)


def paired(wins: int, losses: int, *, questions: int) -> tuple[list[float], list[float]]:
    equal = [1.0] * (questions - wins - losses)
    return [1.0] * wins + [0.0] * losses + equal, [0.0] * wins + [1.0] * losses + equal


def test_t_quantile_agrees_with_scipy() -> None:
    assert [t_quantile(freedom) for freedom, _ in GOLDEN["t_quantiles"]] == [close(q) for _, q in GOLDEN["t_quantiles"]]


@pytest.mark.parametrize("case", GOLDEN["means"])
def test_mean_stderr_and_t_interval_agree_with_scipy_on_random_data(case: dict[str, Any]) -> None:
    mean, stderr = mean_and_stderr([right / case["samples"] for right in case["rights"]])
    assert (mean, stderr) == (close(case["mean"]), close(case["stderr"]))
    assert ends(t_interval(mean, stderr, questions=len(case["rights"]))) == [close(each) for each in case["interval"]]


@pytest.mark.parametrize("case", GOLDEN["shares"])
def test_wilson_interval_agrees_with_statsmodels_on_random_data(case: dict[str, Any]) -> None:
    interval = wilson_interval(case["right"] / case["questions"], questions=case["questions"])
    assert ends(interval) == [close(each) for each in case["interval"]]
    assert score_interval(of(case["right"], case["questions"]), samples=1) == interval


@pytest.mark.parametrize("case", GOLDEN["pairs"])
def test_comparison_agrees_with_scipy_and_statsmodels_on_random_data(case: dict[str, Any]) -> None:
    found = compare(case["model"], case["other"], samples=1)
    assert (found.wins, found.losses, found.p_value) == (case["wins"], case["losses"], close(case["p"]))
    assert ends(found.interval) == [close(each) for each in case["interval"]]


@pytest.mark.parametrize("case", GOLDEN["alike"])
def test_interval_of_a_difference_has_a_width_when_all_questions_differ_alike(case: dict[str, Any]) -> None:
    found = statistics.difference_interval([case["difference"]] * case["questions"])
    assert ends(found) == [close(each) for each in case["interval"]]
    assert found.low < case["difference"] < found.high


@pytest.mark.parametrize("case", GOLDEN["unpaired"])
def test_comparison_with_a_published_score_agrees_with_scipy_and_statsmodels(case: dict[str, Any]) -> None:
    (right, questions), (other_right, others) = case["one"], case["other"]
    assert fisher_exact((right, questions), (other_right, others)) == close(case["p"])
    found = compare_published(of(right, questions), samples=1, published=other_right / others, questions=others)
    assert found.p_value == close(max(case["p"], 2.0 ** (1 - questions)))
    assert [max(-1.0, found.interval.low), min(1.0, found.interval.high)] == [close(each) for each in case["interval"]]


@pytest.mark.parametrize(
    ("rights", "published", "questions"),
    [
        ((1,), 0.84, 500),
        ((0,), 0.84, 500),
        ((0, 0, 0), 0.267, 30),
        ((1,), 0.0, 500),
        ((0,), 1.0, 500),
        ((1,) * 5, 0.0, 500),
    ],
)
def test_published_comparison_is_inconclusive_when_few_questions_were_asked(
    rights: tuple[float, ...], published: float, questions: int
) -> None:
    for samples in (1, 16):
        found = compare_published(rights, samples=samples, published=published, questions=questions)
        assert verdict(found, adjusted_p=found.p_value) == "Inconclusive"
        assert found.stderr > 0.1
        assert found.interval.high - found.interval.low > 0.2


def test_published_comparison_sees_a_difference_when_there_are_questions_enough() -> None:
    found = compare_published(of(0, 60), samples=1, published=0.84, questions=500)
    assert verdict(found, adjusted_p=found.p_value) == "Regressed"
    found = compare_published([1.0] * 40, samples=16, published=0.5, questions=30)
    assert verdict(found, adjusted_p=found.p_value) == "Improved"


def test_published_comparison_counts_several_answers_as_one_rounded_to_the_published_score() -> None:
    better = compare_published([0.75, 0.5] * 15, samples=4, published=8 / 30, questions=30)
    assert better.p_value == fisher_exact((18, 30), (8, 30)) > fisher_exact((19, 30), (8, 30))
    worse = compare_published([0.25, 0.0] * 15, samples=4, published=24 / 30, questions=30)
    assert worse.p_value == fisher_exact((4, 30), (24, 30)) > fisher_exact((3, 30), (24, 30))


@pytest.mark.parametrize("case", GOLDEN["several"])
def test_holm_agrees_with_statsmodels_on_random_data(case: dict[str, Any]) -> None:
    adjusted = holm({str(index): p for index, p in enumerate(case["p"])})
    assert list(adjusted.values()) == [close(each) for each in case["adjusted"]]


def test_t_quantile_has_its_closed_form_for_one_and_two_degrees_of_freedom() -> None:
    assert t_quantile(1) == close(math.tan(math.pi * 0.475))
    assert t_quantile(2) == close(0.95 * math.sqrt(2 / (1 - 0.95**2)))


@given(st.integers(0, 12), st.integers(0, 12))
def test_mcnemar_is_the_share_of_coin_throws_at_least_as_uneven(wins: int, losses: int) -> None:
    differing = wins + losses
    uneven = sum(
        math.comb(differing, heads)
        for heads in range(differing + 1)
        if abs(2 * heads - differing) >= abs(wins - losses)
    )
    assert mcnemar(wins, losses) == close(float(Fraction(uneven, 2**differing)))


@given(st.integers(1, 7), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_answer(samples: int, data: st.DataObject) -> None:
    correct, k = data.draw(st.integers(0, samples)), data.draw(st.integers(1, samples))
    draws = list(itertools.combinations([True] * correct + [False] * (samples - correct), k))
    assert pass_at(k, samples=samples, correct=correct) == close(sum(map(any, draws)) / len(draws))


@pytest.mark.parametrize(("k", "samples", "correct"), [(0, 4, 1), (5, 4, 1), (1, 4, 5), (1, 4, -1)])
def test_pass_at_k_is_refused_when_it_is_not_defined(k: int, samples: int, correct: int) -> None:
    with pytest.raises(ValueError, match="is not defined"):
        pass_at(k, samples=samples, correct=correct)


@pytest.mark.parametrize(
    ("right", "questions", "points"),
    [(15, 30, 9.3), (432, 500, 1.5), (465, 500, 1.1), (112, 198, 3.5), (1_258, 1_319, 0.6)],
)
def test_standard_error_is_that_of_published_benchmarks(right: int, questions: int, points: float) -> None:
    assert round(100 * mean_and_stderr(of(right, questions))[1], 1) == points


def test_wilson_interval_of_half_of_thirty_questions_is_a_third_to_two_thirds() -> None:
    assert [round(each, 2) for each in ends(score_interval(of(15, 30), samples=1))] == [0.33, 0.67]


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [(8, 0, 0.008), (9, 1, 0.021), (11, 3, 0.057), (2, 0, 0.5)],
)
def test_mcnemar_gives_the_p_of_published_comparisons(wins: int, losses: int, p: float) -> None:
    assert round(mcnemar(wins, losses), 3) == p


def test_two_questions_more_of_thirty_are_inconclusive() -> None:
    found = compare(*paired(2, 0, questions=30), samples=1)
    assert found.delta == pytest.approx(2 / 30)
    assert verdict(found, adjusted_p=found.p_value) == "Inconclusive"


def test_twenty_five_questions_more_of_five_hundred_are_an_improvement() -> None:
    found = compare(*paired(35, 10, questions=500), samples=1)
    assert found.p_value < 0.001
    assert verdict(found, adjusted_p=found.p_value) == "Improved"
    reverse = compare(*reversed(paired(35, 10, questions=500)), samples=1)
    assert verdict(reverse, adjusted_p=reverse.p_value) == "Regressed"


def test_verdict_follows_the_adjusted_p_when_there_are_many_benchmarks() -> None:
    found = compare(*paired(9, 1, questions=30), samples=1)
    adjusted = holm({"aime24": found.p_value, **{f"other-{index}": 0.5 for index in range(3)}})
    assert found.p_value < 0.05 < adjusted["aime24"]
    assert verdict(found, adjusted_p=adjusted["aime24"]) == "Inconclusive"


def test_holm_keeps_the_order_of_the_benchmarks_and_never_exceeds_one() -> None:
    assert list(holm({"b": 0.9, "a": 0.01, "c": 0.8}).items()) == [("b", 1.0), ("a", 0.03), ("c", 1.0)]


def test_bootstrap_agrees_with_the_normal_law_when_there_are_many_questions() -> None:
    differences = [0.25, -0.25, 0.5, -0.5, 0.0, 0.25, -0.25, 0.75] * 40
    mean, stderr = mean_and_stderr(differences)
    wanted = math.erfc(mean / stderr / math.sqrt(2))
    assert paired_bootstrap(differences) == pytest.approx(wanted, abs=0.01)
    small = [*differences, *[-each for each in differences[:160]]]
    mean, stderr = mean_and_stderr(small)
    assert paired_bootstrap(small) == pytest.approx(math.erfc(mean / stderr / math.sqrt(2)), abs=0.02)


def test_bootstrap_gives_the_same_p_for_the_same_differences() -> None:
    differences = [0.25, -0.125, 0.5, 0.0, -0.25] * 6
    assert paired_bootstrap(differences) == paired_bootstrap(differences)
    assert paired_bootstrap(differences) == pytest.approx(paired_bootstrap(differences, seed=1), abs=0.03)
    assert paired_bootstrap([-each for each in differences]) == pytest.approx(paired_bootstrap(differences), abs=0.03)


def test_bootstrap_is_not_certain_when_few_questions_differ() -> None:
    assert paired_bootstrap([0.5, 0.5, 0.5]) == 0.25
    assert paired_bootstrap([0.5] * 3 + [0.0] * 100) >= 0.25
    assert paired_bootstrap([0.0] * 30) == 1.0


def test_comparison_of_several_samples_uses_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "paired_bootstrap", lambda differences: 0.123)
    assert compare([0.5, 0.75], [0.25, 0.75], samples=4).p_value == 0.123


def test_comparison_is_refused_when_the_questions_are_not_the_same() -> None:
    with pytest.raises(ValueError, match="shorter"):
        compare([1.0, 0.0], [1.0], samples=1)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_interval_has_a_width_when_every_answer_is_the_same(value: float) -> None:
    interval = score_interval([value] * 100, samples=16)
    assert interval.low <= value <= interval.high
    assert 0.03 < interval.high - interval.low < 0.04


def test_interval_is_students_when_there_are_many_questions_of_several_samples() -> None:
    values = [0.25, 0.5, 0.75, 1.0] * 20
    assert score_interval(values, samples=4) == t_interval(*mean_and_stderr(values), questions=80)
    assert score_interval([1.0] * 39 + [0.5], samples=4).high == 1.0


def test_interval_of_one_question_bounds_nothing_but_zero_and_one() -> None:
    assert ends(t_interval(0.5, 0.0, questions=1)) == [-math.inf, math.inf]
    assert 0.7 < score_interval([1.0], samples=1).high - score_interval([1.0], samples=1).low < 1.0
