"""From ``spec.evaluation`` to what the trainer measures: the user's words, then the preset's, then the defaults."""

from __future__ import annotations

from typing import Any

import pytest

from rft_operator.api.evaluation import EvaluationPreset
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Attempt
from rft_operator.domain.facts import Settings
from rft_operator.domain.manifests import references
from rft_operator.domain.pods import pod_template
from rft_operator.domain.resolve import resolve
from rft_operator.errors import InvalidResource
from rft_trainer.contract import Benchmark, BudgetForcing, EvaluationConfig, Stage
from rft_trainer.presets import BENCHMARKS, PRESETS
from support.builders import resource
from support.objects import stored_run

QWEN = {"uri": "hf://Qwen/Qwen2.5-32B-Instruct"}
SEVERAL = ("math500", "aime24", "aime25", "gpqa-diamond", "gsm8k")
SUMS = {"name": "sums", "uri": "gym://chain_sum", "limit": 10}


def parsed(**evaluation: Any) -> ReasoningFinetune:
    spec = resource(evaluation={"benchmarks": [SUMS], **evaluation}, model=QWEN)["spec"]
    return ReasoningFinetune.model_validate(stored_run(spec=spec))


def resolved(**evaluation: Any) -> EvaluationConfig:
    config = resolve(parsed(**evaluation), Settings(trainer_image="rft-trainer:test")).config.evaluation
    assert config is not None
    return config


def test_defaults_are_one_greedy_answer_asked_as_the_training_rows_are() -> None:
    it = resolved()
    assert it.benchmarks == (Benchmark(name="sums", uri="gym://chain_sum", limit=10, max_tokens=8_192),)
    assert (it.prompt, it.precision, it.engine, it.gpus, it.seed) == ("format", "auto", "transformers", 1, 42)
    assert (it.preset, it.budget_forcing, it.baseline) == (None, None, "measure")


def test_built_in_benchmark_knows_its_rows_and_its_scorer() -> None:
    it = resolved(benchmarks=[{"name": name} for name in BENCHMARKS])
    assert [(each.uri, each.scorer) for each in it.benchmarks] == [
        (known.uri, known.scorer) for known in BENCHMARKS.values()
    ]
    [own] = resolved(benchmarks=[{"name": "math500", "uri": "pvc://data/math500.jsonl"}]).benchmarks
    assert (own.uri, own.scorer) == ("pvc://data/math500.jsonl", "math")


def test_every_preset_of_the_resource_is_known_to_the_trainer() -> None:
    assert {each.value for each in EvaluationPreset} == set(PRESETS)


@pytest.mark.parametrize(
    ("preset", "prompt", "temperature", "top_p", "precision", "samples"),
    [
        ("reasoning-v1", "boxed-last", 0.6, 0.95, "auto", {"math500": 1, "aime24": 16, "gpqa-diamond": 4}),
        ("s1", "bare", 0.0, 1.0, "fp32", {"math500": 1, "aime24": 1, "gpqa-diamond": 1}),
        ("skythought", "skythought", 0.0, 1.0, "auto", {"math500": 1, "aime24": 1, "gpqa-diamond": 1}),
    ],
)
def test_preset_has_the_published_values(
    preset: str, prompt: str, temperature: float, top_p: float, precision: str, samples: dict[str, int]
) -> None:
    it = resolved(preset=preset, benchmarks=[{"name": name} for name in samples])
    assert (it.prompt, it.precision, it.preset) == (prompt, precision, preset)
    assert {each.name: each.samples for each in it.benchmarks} == samples
    assert {(each.temperature, each.top_p) for each in it.benchmarks} == {(temperature, top_p)}
    forcing = BudgetForcing(waits=(0, 1, 2, 4), max_thinking_tokens=28_672)
    assert it.budget_forcing == (forcing if preset == "s1" else None)


def test_users_words_win_over_the_preset() -> None:
    it = resolved(
        preset="s1",
        benchmarks=[{"name": "aime24", "samples": 2, "temperature": "0.5", "topP": "0.9", "maxTokens": 100}],
        budgetForcing={"maxThinkingTokens": 60, "sweepThinkingTokens": [12, 24]},
        seed=7,
    )
    [benchmark] = it.benchmarks
    assert (benchmark.samples, benchmark.temperature, benchmark.top_p, benchmark.max_tokens) == (2, 0.5, 0.9, 100)
    assert it.budget_forcing == BudgetForcing(waits=(0,), max_thinking_tokens=60, sweep_thinking_tokens=(12, 24))
    assert it.seed == 7


def test_preset_skythought_asks_the_second_release_of_livecodebench_unless_rows_are_named() -> None:
    [it] = resolved(preset="skythought", benchmarks=[{"name": "livecodebench"}]).benchmarks
    assert it.uri == "hf://livecodebench/code_generation_lite/test.jsonl,test2.jsonl"
    [own] = resolved(preset="skythought", benchmarks=[{"name": "livecodebench", "uri": "pvc://data/a"}]).benchmarks
    assert own.uri == "pvc://data/a"


def test_greedy_answer_is_asked_once_when_the_preset_would_ask_often() -> None:
    [benchmark] = resolved(preset="reasoning-v1", benchmarks=[{"name": "aime24", "temperature": "0"}]).benchmarks
    assert (benchmark.samples, benchmark.temperature) == (1, 0.0)


def test_published_score_is_the_users_or_a_known_one() -> None:
    asked = [{"name": "math500"}, {"name": "aime24", "published": "0.2"}]
    for preset, known in (("s1", 0.84), ("skythought", 0.814)):
        it = resolved(preset=preset, baseline="published", benchmarks=asked)
        assert [each.published for each in it.benchmarks] == [known, 0.2]
    limits = [{"name": "aime24", "limit": 30}, {"name": "math500", "limit": 50, "published": "0.9"}]
    limited = resolved(preset="s1", baseline="published", benchmarks=limits)
    assert [each.published for each in limited.benchmarks] == [0.267, 0.9]
    measured = resolved(benchmarks=[{"name": "math500"}]).benchmarks
    assert measured[0].published is None


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        ({"benchmarks": [{"name": "own"}]}, "own has no uri; say where its rows are"),
        ({"benchmarks": [{**SUMS, "samples": 4}]}, "sums asks for 4 answers of temperature 0, which are all the same"),
        ({"preset": "s1", "benchmarks": [{**SUMS, "maxTokens": 100}]}, "maxThinkingTokens is 28672, and sums has"),
        ({"preset": "s1", "benchmarks": [{"name": name} for name in SEVERAL]}, "5 benchmarks x 4 settings"),
        ({"baseline": "published"}, "no score of hf://Qwen/Qwen2.5-32B-Instruct is known for sums under this preset:"),
        (
            {"baseline": "published", "preset": "s1", "benchmarks": [{"name": "math500", "limit": 50}]},
            "math500 has limit 50, and its published score is over all 500 questions",
        ),
        (
            {"baseline": "published", "preset": "reasoning-v1", "benchmarks": [{"name": "math500"}]},
            "is known for math500 under this preset (it is under s1, skythought)",
        ),
    ],
    ids=str,
)
def test_run_is_not_accepted_when_preset_and_fields_contradict_each_other(
    evaluation: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidResource, match=r"evaluation") as error:
        resolved(**evaluation)
    assert words in str(error.value)


def mounted(run: ReasoningFinetune, stage: Stage) -> dict[str, dict[str, Any]]:
    """The ConfigMap volumes of a stage's pod, by mount path."""
    settings = Settings(trainer_image="rft-trainer:test")
    attempt = Attempt(stage=stage.value, number=1, start_time="2026-01-01T00:00:00Z")
    pod = pod_template(run, resolve(run, settings), settings, attempt=attempt)["spec"]
    places = {each["name"]: each for each in pod["containers"][0]["volumeMounts"]}
    found = {}
    for volume in pod["volumes"]:
        if "configMap" in volume:
            place = places[volume["name"]]
            assert place["readOnly"]
            found[place["mountPath"]] = volume["configMap"]
    return found


def test_rows_in_a_config_map_are_mounted_where_questions_are_read() -> None:
    rows = [
        {"name": "a", "uri": "configmap://questions/a.jsonl"},
        {"name": "b", "uri": "configmap://questions/b.jsonl"},
    ]
    run = parsed(benchmarks=rows, baseline="none")
    assert ("ConfigMap", "questions") in references(run.spec)
    place = {"/rft/configmaps/questions": {"name": "questions"}}
    assert mounted(run, Stage.PREPARE) == place
    assert mounted(run, Stage.EVALUATE) == place
    assert mounted(run, Stage.TRAIN) == {}


def test_kept_base_answers_are_mounted_only_where_the_base_model_is_measured() -> None:
    [(path, source)] = mounted(parsed(), Stage.EVALUATE).items()
    assert path == "/rft/baselines"
    assert source["optional"] is True
    assert mounted(parsed(), Stage.TRAIN) == mounted(parsed(), Stage.PREPARE) == {}
    assert mounted(parsed(baseline="none"), Stage.EVALUATE) == {}
