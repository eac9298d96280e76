"""A sweep measures each budget of thinking and each number of Waits, and generates what they share once."""

from __future__ import annotations

from typing import Any

import pytest

from rft_trainer.contract import Benchmark, EvaluationConfig
from rft_trainer.evaluate.answering import ask_all
from rft_trainer.evaluate.exchanges import Answer, Asked, Way
from rft_trainer.evaluate.forcing import S1
from rft_trainer.evaluate.scaling import Point, curve
from rft_trainer.evaluate.settings import settings_of
from support.scripted_engine import EOS, ScriptedSampler

BENCHMARK = {"name": "sums", "uri": "file:///a", "max_tokens": 70}


def evaluation(**forcing: Any) -> EvaluationConfig:
    return EvaluationConfig.model_validate(
        {
            "benchmarks": [BENCHMARK],
            "baseline": "none",
            "batch_size": 4,
            "max_seconds": 1,
            "budget_forcing": forcing or None,
        }
    )


@pytest.mark.parametrize(
    ("forcing", "names"),
    [
        ({}, [""]),
        ({"waits": [0, 2], "max_thinking_tokens": 60}, ["wait=0", "wait=2"]),
        ({"waits": [0], "max_thinking_tokens": 60}, ["wait=0"]),
        (
            {"waits": [0], "max_thinking_tokens": 60, "sweep_thinking_tokens": [24, 12]},
            ["think=60", "think=24", "think=12"],
        ),
        (
            {"waits": [1, 0], "max_thinking_tokens": 60, "sweep_thinking_tokens": [12]},
            ["wait=1,think=60", "wait=0,think=60", "wait=1,think=12", "wait=0,think=12"],
        ),
    ],
    ids=str,
)  # fmt: skip
def test_each_setting_has_a_name_that_says_what_is_swept(forcing: dict[str, Any], names: list[str]) -> None:
    assert [setting.name for setting in settings_of(evaluation(**forcing))] == names


def test_every_budget_keeps_as_many_tokens_for_the_answer() -> None:
    config = evaluation(waits=[0], max_thinking_tokens=60, sweep_thinking_tokens=[12, 24])
    budgets = [setting.budget(config.benchmarks[0], config) for setting in settings_of(config)]
    assert [(budget.thinking_tokens, budget.answer_tokens) for budget in budgets if budget] == [
        (60, 10),
        (24, 10),
        (12, 10),
    ]


def thinking_aloud(tokens: int) -> dict[str, list[str]]:
    """A model that thinks for so many tokens and knows the answer after 30 of them."""
    said = [f" {number}" for number in range(tokens)]
    script = {f"{S1.start}": [*said, S1.stops[0]], f"{S1.end}": ["\nAnswer: right", EOS]}
    for cut in (12, 24, 32):
        script["".join([S1.start, *said[:cut], f"\n{S1.end}\nFinal Answer:"])] = [
            " right" if cut > 30 else " wrong",
            EOS,
        ]
    return script


def run(engine: ScriptedSampler, config: EvaluationConfig) -> dict[str, Answer]:
    [benchmark], asked = config.benchmarks, Asked("q", seed=1)
    ways = {each.name: Way(benchmark, each.budget(benchmark, config), S1) for each in settings_of(config)}
    place = {name: way.exchange(asked, sampler=engine) for name, way in ways.items()}
    found = dict(ask_all(engine, [place], at_once=4))
    return {name: found[name] for name in ways}


def test_thinking_is_generated_once_when_several_budgets_are_measured() -> None:
    engine = ScriptedSampler(thinking_aloud(40))
    config = evaluation(waits=[0], max_thinking_tokens=60, sweep_thinking_tokens=[12, 24, 32])
    answers = run(engine, config)
    assert [answer.text.rpartition(" ")[2] for answer in answers.values()] == ["right", "right", "wrong", "wrong"]
    assert [answer.tokens for answer in answers.values()] == [40 + 1, 32 + 1, 24 + 1, 12 + 1]
    thought = [request.max_tokens for request in engine.requests if request.stops]
    assert thought == [12, 12, 8, 28], "the largest budget stops where the smaller ones are cut"
    assert sum(not request.stops for request in engine.requests) == 4


@pytest.mark.parametrize("cap", [12, 24, 32])
def test_answer_within_a_sweep_is_that_of_its_budget_alone(cap: int) -> None:
    swept = run(
        ScriptedSampler(thinking_aloud(40)),
        evaluation(waits=[0], max_thinking_tokens=60, sweep_thinking_tokens=[12, 24, 32]),
    )
    config = evaluation(waits=[0], max_thinking_tokens=cap)
    config = config.model_copy(
        update={"benchmarks": (Benchmark.model_validate({**BENCHMARK, "max_tokens": cap + 10}),)}
    )
    [alone] = run(ScriptedSampler(thinking_aloud(40)), config).values()
    assert swept[f"think={cap}"] == alone


def point(tokens: float, value: float, *, allowed: int = 100) -> Point:
    return Point(setting=f"think={tokens}", thinking_tokens=tokens, allowed_tokens=allowed, value=value, stderr=0.01)


def test_curve_has_the_slope_over_all_pairs_and_the_best_score() -> None:
    found = curve([point(60, 0.91), point(12, 0.0), point(32, 0.12)])
    assert found is not None
    assert [each.thinking_tokens for each in found.points] == [12, 32, 60]
    slopes = [100_000 * (0.12 - 0) / 20, 100_000 * 0.91 / 48, 100_000 * 0.79 / 28]
    assert found.slope == pytest.approx(sum(slopes) / 3)
    assert (found.control, found.performance) == (1.0, 0.91)


def test_curve_says_how_many_settings_kept_to_their_budget() -> None:
    found = curve([point(60, 0.5, allowed=50), point(12, 0.5)])
    assert found is not None
    assert (found.control, found.slope) == (0.5, 0.0)


def test_curve_is_flat_when_all_settings_think_alike_and_none_when_there_is_one() -> None:
    found = curve([point(60, 0.5), point(60, 0.7)])
    assert found is not None
    assert (found.slope, found.performance) == (0.0, 0.7)
    assert curve([point(60, 0.5)]) is None
