"""The stage's last words fit the kubelet's share and never lie by omission."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path

import pytest

from rft_trainer.contract import TERMINATION_MESSAGE_LIMIT_BYTES, Outcome, Stage
from rft_trainer.evaluate.base_answers import to_hand_on
from rft_trainer.evaluate.measured import Measured
from rft_trainer.evaluate.statistics import mean_and_stderr
from rft_trainer.packed_answers import unpacked
from rft_trainer.results import failed, read_result, termination_message, write_result
from rft_trainer.stage_results import BaseAnswers, EvaluateSummary, Scaling, Score, StageResult


def test_message_fits_and_parses_when_the_error_is_long() -> None:
    message = termination_message(failed(Stage.TRAIN, "äöü" * 2000))
    assert len(message) <= TERMINATION_MESSAGE_LIMIT_BYTES
    assert StageResult.model_validate_json(message).outcome is Outcome.FAILED


def test_message_says_the_error_when_it_has_what_no_message_can_hold() -> None:
    """A name of a file that is not UTF-8, and what drives a terminal: six bytes of the message for each."""
    words = "\x1b[1;31mERROR\x1b[0m " * 90 + os.fsdecode(b"donn\xe9es.jsonl") + ":1: is not JSON\x07"
    error = StageResult.model_validate_json(termination_message(failed(Stage.PREPARE, words))).error
    assert error is not None
    assert error.startswith("ERROR ERROR ")
    assert error.endswith("ERROR donn\\udce9es.jsonl:1: is not JSON")


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


FULL = Score(
    benchmark="gpqa-diamond", metric="mean@16@wait=4", value=0.123456, stderr=0.012345, questions=500, samples=16,
    no_answer=321, capped=210, thinking_tokens=12345.6, baseline=0.654321, baseline_stderr=0.012345,
    interval=(0.101234, 0.145678), comparison="paired", wins=12, losses=345, p_value=0.000123, verdict="Regressed",
)  # fmt: skip


def said(summary: EvaluateSummary) -> EvaluateSummary:
    """What the operator reads of a summary."""
    message = termination_message(StageResult(stage=Stage.EVALUATE, outcome=Outcome.COMPLETED, evaluate=summary))
    assert len(message) <= TERMINATION_MESSAGE_LIMIT_BYTES
    kept = StageResult.model_validate_json(message).evaluate
    assert kept is not None
    return kept


def test_message_keeps_everything_when_there_are_ten_benchmarks() -> None:
    summary = EvaluateSummary(scores=(FULL,) * 10, artifacts="/rft/data/" + "x" * 60, protocol="a" * 64)
    assert said(summary) == summary


def test_message_keeps_verdict_and_protocol_of_every_benchmark_when_there_are_sixteen() -> None:
    curve = Scaling(benchmark="gpqa-diamond", control=1.0, slope=12.345, performance=0.123456)
    kept = said(EvaluateSummary(scores=(FULL,) * 16, protocol="a" * 64, scaling=(curve,) * 4))
    assert [(s.value, s.verdict, s.no_answer, s.capped) for s in kept.scores] == [
        (0.123456, "Regressed", 321, 210)
    ] * 16
    assert (kept.protocol, len(kept.scaling)) == ("a" * 64, 4)


@pytest.mark.parametrize("scores", range(1, 17))
def test_message_says_what_a_verdict_was_found_against_when_it_is_shortened(scores: int) -> None:
    published = {"comparison": "published", "wins": None, "losses": None, "baseline_stderr": None}
    curve = Scaling(benchmark="gpqa-diamond", control=1.0, slope=12.345, performance=0.123456)
    for length in (13, 40):
        long = {"benchmark": "b" * length, "metric": "mean@16@wait=4,think=28000"[: 40 if length == 13 else 26]}
        row = Score.model_validate({**FULL.model_dump(), **published, **long})
        kept = said(EvaluateSummary(scores=(row,) * scores, protocol="a" * 64, scaling=(curve,) * min(scores, 8)))
        assert {(each.baseline, each.comparison is None and each.verdict is not None) for each in kept.scores} == {
            (0.654321, False)
        }


def test_message_leaves_out_the_longest_answers_of_the_base_model_first() -> None:
    entries = tuple(
        BaseAnswers(key=f"{size:040x}", questions=size, samples=1, rights="A" * size) for size in (30, 900, 1_200)
    )
    kept = said(EvaluateSummary(scores=(FULL,) * 6, base_answers=entries))
    assert kept.scores == (FULL,) * 6
    assert kept.base_answers == entries[:0]
    assert unpacked(kept.packed_base_answers) == entries, "together they take little room"
    many = tuple(random_answers(900, seed=seed) for seed in range(12))
    fewer = said(EvaluateSummary(scores=(FULL,) * 6, base_answers=(entries[0], *many)))
    assert [(each.value, each.interval, each.no_answer) for each in fewer.scores] == [
        (0.123456, (0.1012, 0.1457), 321)
    ] * 6
    assert 1 < len(found := unpacked(fewer.packed_base_answers)) < 13
    assert found[0] == entries[0]
    assert said(EvaluateSummary(scores=(FULL,) * 16, base_answers=many)).scores[0].verdict == "Regressed"


def random_answers(questions: int, *, seed: int) -> BaseAnswers:
    chance = random.Random(seed)
    rights = tuple(chance.randrange(2) for _ in range(questions))
    measured = Measured(rights=rights, samples=1, asked=questions, no_answer=seed, capped=3, thinking_tokens=812.5)
    entry = to_hand_on(hashlib.sha256(str(seed).encode()).hexdigest()[:40], measured)
    assert entry is not None
    return entry


def test_answers_of_the_base_model_to_a_whole_sweep_of_the_s1_preset_are_handed_on() -> None:
    """The next run of the same base model would else pay for a part of them again."""
    places = [(name, waits) for name in ("math500", "aime24") for waits in (0, 1, 2, 4)]
    sizes = {"math500": 500, "aime24": 30}
    entries = tuple(random_answers(sizes[name], seed=seed) for seed, (name, _) in enumerate(places))
    scores = tuple(
        FULL.model_copy(update={"benchmark": name, "metric": f"accuracy@wait={waits}", "samples": 1})
        for name, waits in places
    )
    kept = said(EvaluateSummary(scores=scores, artifacts="/rft/data/x", protocol="a" * 64, base_answers=entries))
    assert unpacked(kept.packed_base_answers) == entries
    assert [(each.benchmark, each.value, each.verdict, each.wins) for each in kept.scores] == [
        (name, 0.123456, "Regressed", 12) for name, _ in places
    ]
    assert said(EvaluateSummary(scores=(FULL,) * 10, artifacts="/rft/data/x", base_answers=entries)).artifacts is None


@pytest.mark.parametrize("text", [None, "", "!", "QUFB", "a" * 4_000, "eJwrSVRwAgADVgEK"])
def test_nothing_is_handed_on_when_it_cannot_be_read(text: str | None) -> None:
    assert unpacked(text) == ()


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
