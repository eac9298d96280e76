"""The Evaluate stage as a pod runs it: sweeps, stops in the middle, partial results, what is paid for once."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rft_trainer.contract import ExitCode, Outcome
from rft_trainer.evaluate.record import AnswerFile
from rft_trainer.stage_results import EvaluateSummary, KeptBaseAnswers
from rft_trainer.train.export import MARKER
from unit.trainer.factory import GYM, Pod, wait_until

MakePod = Callable[..., Pod]


@pytest.fixture
def make_trained_pod(make_pod: MakePod) -> MakePod:
    """Makes pods whose trained model is there: the base model as it is."""

    def make(**overrides: Any) -> Pod:
        pod = make_pod(**overrides)
        shutil.copytree(pod.paths.model, pod.paths.export)
        (pod.paths.export / MARKER).write_text('{"step": 6}')
        return pod

    return make


def summary_of(pod: Pod) -> EvaluateSummary:
    found = pod.result().evaluate
    assert found is not None, "an evaluation that ends has a summary"
    return found


def lines_of(folder: Path) -> dict[str, list[str]]:
    return {path.name: path.read_text().splitlines() for path in folder.glob("*.jsonl")}


def test_sweep_scores_each_setting_draws_the_curve_and_spares_a_later_run_the_base_model(
    make_trained_pod: MakePod, capsys: pytest.CaptureFixture[str]
) -> None:
    forcing = {"waits": [0, 1], "max_thinking_tokens": 12, "sweep_thinking_tokens": [4]}
    pod = make_trained_pod(evaluation__budget_forcing=forcing)
    assert pod.run_here("evaluate") == ExitCode.DONE
    summary = summary_of(pod)
    assert [score.metric for score in summary.scores] == [
        f"accuracy@wait={waits},think={tokens}" for tokens in (12, 4) for waits in (0, 1)
    ]
    for waits, tokens in ((0, 4), (1, 4), (0, 12), (1, 12)):
        [path] = pod.paths.evaluation.glob(f"sums-step-6-wait-{waits}-think-{tokens}-*.jsonl")
        records = list(AnswerFile(path).records.values())
        assert len(records) == 8
        for record in records:
            assert record.thinking is not None
            assert record.thinking.waits <= waits
            assert record.thinking.tokens <= tokens
            assert record.text.startswith("<|im_start|>think")
            assert "<|im_start|>answer" in record.text
    [curve] = summary.scaling
    assert (curve.benchmark, curve.control) == ("sums", 1.0)
    document = json.loads((pod.paths.evaluation / "results.json").read_text())
    assert document["protocol"] == summary.protocol
    assert len(document["scaling"][0]["points"]) == 4
    assert document["stopped"] is None
    capsys.readouterr()
    check_later_run(make_trained_pod(evaluation__budget_forcing=forcing), first=summary)
    assert capsys.readouterr().out.count("taken over from first, nothing is asked") == 4


def check_later_run(pod: Pod, *, first: EvaluateSummary) -> None:
    """What is kept of the base model's answers is found again by the same weights under the same protocol."""
    pod.layout.baselines.mkdir()
    for entry in first.base_answers:
        kept = KeptBaseAnswers(measured_by="first", measured_at="2026-01-01T00:00:00Z", answers=entry)
        (pod.layout.baselines / entry.key).write_text(kept.model_dump_json())
    assert pod.run_here("evaluate") == ExitCode.DONE
    assert not list(pod.paths.evaluation.glob("sums-base-*"))
    assert summary_of(pod).scores == first.scores


def test_part_is_marked_as_part_and_gone_on_with_when_the_pod_is_stopped(make_trained_pod: MakePod) -> None:
    benchmark = {
        "name": "sums",
        "uri": f"{GYM}&seed=10000000",
        "limit": 8,
        "samples": 60,
        "temperature": 1.0,
        "max_tokens": 48,
    }
    pod = make_trained_pod(evaluation__benchmarks=[benchmark], evaluation__batch_size=2)
    process = pod.start("evaluate")
    wait_until(
        lambda: any(len(lines) >= 4 for lines in lines_of(pod.paths.evaluation).values()) or process.poll() is not None,
        what="answers",
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == ExitCode.DRAINED_WITHOUT_CHECKPOINT, pod.log("evaluate")
    assert pod.result().outcome is Outcome.DRAINED
    summary = summary_of(pod)
    [score] = summary.scores
    assert summary.stopped == "asked"
    assert score.of_answers == 480
    assert 4 <= score.questions * score.samples < 480
    assert (score.baseline, score.verdict) == (None, None)
    before = lines_of(pod.paths.evaluation)
    pod.start("evaluate")
    wait_until(lambda: lines_of(pod.paths.evaluation) != before, what="more answers")
    pod.power_off()
    after = lines_of(pod.paths.evaluation)
    for name, lines in before.items():
        assert after[name][: len(lines)] == lines, "what was answered stays as it was"
        found = [(row["id"], row["sample"]) for row in map(json.loads, after[name][:-1])]
        assert len(set(found)) == len(found), "no question is asked twice"


def test_nothing_is_scored_when_there_was_no_time_for_any_question(make_trained_pod: MakePod) -> None:
    pod = make_trained_pod(evaluation__max_seconds=0)
    assert pod.run_here("evaluate") == ExitCode.DRAINED_WITHOUT_CHECKPOINT
    summary = summary_of(pod)
    assert (summary.scores, summary.stopped) == ((), "deadline")
    assert pod.result().error == "evaluation.maxSeconds is used up: 0 of 1 scores are complete; the answers are kept"
