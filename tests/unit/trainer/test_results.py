"""The stage's last words fit the kubelet's share and never lie by omission."""

from __future__ import annotations

from pathlib import Path

import pytest

from rft_trainer.contract import (
    TERMINATION_MESSAGE_LIMIT_BYTES,
    EvaluateSummary,
    Outcome,
    Score,
    Stage,
    StageResult,
)
from rft_trainer.evaluate.statistics import mean_and_stderr
from rft_trainer.results import failed, read_result, termination_message, write_result


def test_message_fits_and_parses_when_the_error_is_long() -> None:
    message = termination_message(failed(Stage.TRAIN, "äöü" * 2000))
    assert len(message) <= TERMINATION_MESSAGE_LIMIT_BYTES
    assert StageResult.model_validate_json(message).outcome is Outcome.FAILED


def test_message_keeps_every_benchmark_when_there_are_sixteen() -> None:
    score = Score(
        benchmark="b" * 40, metric="mean@16", value=0.123456, stderr=0.012345, questions=500, samples=16,
        no_answer=321, baseline=0.654321, baseline_stderr=0.012345, interval=(0.101234, 0.145678),
        wins=12, losses=345, p_value=0.000123, verdict="Regressed",
    )  # fmt: skip
    summary = EvaluateSummary(scores=(score,) * 16, artifacts="/rft/data/" + "x" * 60)
    result = StageResult(stage=Stage.EVALUATE, outcome=Outcome.COMPLETED, evaluate=summary)
    message = termination_message(result)
    assert len(message) <= TERMINATION_MESSAGE_LIMIT_BYTES
    kept = StageResult.model_validate_json(message).evaluate
    assert kept is not None
    assert [s.value for s in kept.scores] == [0.123456] * 16
    assert [s.no_answer for s in kept.scores] == [321] * 16


def test_message_keeps_every_verdict_when_there_are_six_benchmarks() -> None:
    score = Score(
        benchmark="gpqa-diamond", metric="mean@16", value=0.123456, stderr=0.012345, questions=500, samples=16,
        no_answer=321, baseline=0.654321, baseline_stderr=0.012345, interval=(0.101234, 0.145678),
        wins=12, losses=345, p_value=0.000123, verdict="Regressed",
    )  # fmt: skip
    summary = EvaluateSummary(scores=(score,) * 6, artifacts="/rft/data/" + "x" * 60)
    message = termination_message(StageResult(stage=Stage.EVALUATE, outcome=Outcome.COMPLETED, evaluate=summary))
    assert len(message) <= TERMINATION_MESSAGE_LIMIT_BYTES
    assert StageResult.model_validate_json(message).evaluate == summary


def test_result_is_none_when_it_is_of_another_stage_or_broken(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    assert read_result(path, stage=Stage.TRAIN) is None
    path.write_text('{"stage": "train"')
    assert read_result(path, stage=Stage.TRAIN) is None
    write_result(path, failed(Stage.PREPARE, "no"))
    assert read_result(path, stage=Stage.TRAIN) is None
    assert read_result(path, stage=Stage.PREPARE) is not None


def test_standard_error_is_over_questions_when_scores_differ() -> None:
    assert mean_and_stderr([1.0, 0.0, 1.0, 1.0]) == (0.75, 0.25)
    assert mean_and_stderr([0.5]) == (0.5, 0.0)
    with pytest.raises(ValueError, match="no questions"):
        mean_and_stderr([])
