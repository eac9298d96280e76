"""A whole evaluation with scripted engines: scores with their certainty, partial results, what is paid for once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rft_trainer.benchmarks import Question
from rft_trainer.contract import EvaluationConfig, Outcome, Stage
from rft_trainer.evaluate.protocol import Exam
from rft_trainer.evaluate.runner import Model
from rft_trainer.evaluate.sampler import Completion, CompletionRequest
from rft_trainer.evaluate.session import Candidate, Session
from rft_trainer.evaluate.stopping import Stop
from rft_trainer.evaluate.unpaired import fisher_exact
from rft_trainer.evaluate.waiting import Waiting
from rft_trainer.report import Work
from rft_trainer.results import termination_message
from rft_trainer.stage_results import EvaluateSummary, KeptBaseAnswers, StageResult
from support.scripted_engine import EOS, ScriptedSampler

QUESTIONS = [Question(str(number), f"q{number}", str(number), "integer") for number in range(12)]
OTHERS = [Question(str(number), f"r{number}", str(number), "integer") for number in range(4)]


class Engine(ScriptedSampler):
    """Answers a question with its number, or with nonsense; ``clock`` ticks once a batch."""

    def __init__(self, right: Sequence[int], *, clock: list[int], silent: Sequence[int] = ()) -> None:
        super().__init__(
            {
                f"{letter}{number} ": ([] if number in silent else [f"Answer: {number if number in right else 99}"])
                + [EOS]
                for letter in "qr"
                for number in range(12)
            }
        )
        self._clock = clock

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        self._clock[0] += 1
        return super().complete(requests)


class Bench:
    """Runs evaluations of the same exam in one folder."""

    def __init__(
        self, root: Path, *, baseline: str = "measure", published: float | None = None, samples: int = 1
    ) -> None:
        self.root, self.clock = root, [0]
        own = {"uri": "file:///a", "max_tokens": 8, "samples": samples, "temperature": float(samples > 1)}
        self.evaluation = EvaluationConfig.model_validate(
            {
                "benchmarks": [{"name": "sums", **own, "published": published}, {"name": "others", **own}],
                "baseline": baseline,
                "batch_size": 4,
                "max_seconds": 1,
            }
        )
        questions = {"sums": QUESTIONS, "others": OTHERS}
        self.exam = Exam(evaluation=self.evaluation, format="s1", questions=questions)
        self.trained = Engine(range(12), clock=self.clock, silent=[11])
        self.base = Engine([0], clock=self.clock)

    def run(self, *, batches: float = float("inf"), folder: str = "evaluation") -> EvaluateSummary:
        session = Session(
            exam=self.exam,
            directory=self.root / folder,
            artifacts="/rft/data/x/evaluation",
            stop=Stop(deadline=batches, clock=lambda: self.clock[0]),
            work=Work(None),
            baselines=self.root / "baselines",
        )
        base = self._candidate("base", self.base) if self.evaluation.baseline == "measure" else None
        return session.run(self._candidate("step-5", self.trained), base)

    def results(self, folder: str = "evaluation") -> dict[str, Any]:
        document: dict[str, Any] = json.loads((self.root / folder / "results.json").read_text())
        return document

    def keep(self, summary: EvaluateSummary) -> None:
        """Do what the operator does with what a pod hands on."""
        result = StageResult(stage=Stage.EVALUATE, outcome=Outcome.COMPLETED, evaluate=summary)
        said = StageResult.model_validate_json(termination_message(result)).evaluate
        assert said is not None
        (self.root / "baselines").mkdir(exist_ok=True)
        for entry in said.base_answers:
            kept = KeptBaseAnswers(measured_by="first", measured_at="2026-01-01T00:00:00Z", answers=entry)
            (self.root / "baselines" / entry.key).write_text(kept.model_dump_json())

    @staticmethod
    def _candidate(name: str, engine: Engine) -> Candidate:
        def load() -> Model:
            return Model(name, sampler=engine, render=lambda turns: f"{turns[-1].content} ")

        return Candidate(name=name, fingerprint=f"files:{name}", load=load)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_scores_have_interval_verdict_and_what_was_not_answered(bench: Bench) -> None:
    summary = bench.run()
    first, second = summary.scores
    assert (first.benchmark, first.metric, first.value, first.questions) == ("sums", "accuracy", 0.916667, 12)
    assert (first.no_answer, first.capped, first.of_answers) == (1, 0, None)
    assert first.interval == (0.646120, 0.985135)
    assert (first.baseline, first.comparison, first.wins, first.losses) == (0.083333, "paired", 10, 0)
    assert first.p_value == pytest.approx(2 * 2 / 2**10), "Holm: twice, for there are two benchmarks"
    assert (first.verdict, second.verdict) == ("Improved", "Inconclusive")
    assert (summary.stopped, summary.artifacts) == (None, "/rft/data/x/evaluation")


def test_results_on_the_volume_say_all_that_the_message_has_no_room_for(bench: Bench) -> None:
    summary = bench.run()
    document = bench.results()
    protocol = json.loads((bench.root / "evaluation" / "protocol.json").read_text())
    assert document["protocol"] == protocol["hash"] == summary.protocol
    row = document["scores"][0]
    assert row["delta"]["value"] == pytest.approx(10 / 12, abs=1e-6)
    assert row["delta"]["p_value_unadjusted"] == pytest.approx(2 / 2**10, rel=1e-5)
    assert row["of_trained"]["reasons"] == {"equal": 11, "no answer": 1}
    assert row["of_base"]["pass_at"] == {"pass@1": 0.083333}
    assert row["protocol"] == protocol["scores"][0]["hash"]
    assert protocol["scores"][0]["protocol"]["scorers"]["math-verify"]
    assert document["missing"] == []


@pytest.mark.parametrize("batches", [0, 1, 2, 3])
def test_part_of_a_score_is_never_taken_for_the_whole_when_time_is_up(bench: Bench, batches: int) -> None:
    summary = bench.run(batches=batches)
    assert summary.stopped == "deadline"
    assert all(row.verdict is None and row.baseline is None for row in summary.scores)
    done = {row.benchmark: (row.questions, row.of_answers) for row in summary.scores}
    expected = {0: {}, 1: {"sums": (4, 12)}, 2: {"sums": (8, 12)}, 3: {"sums": (12, None)}}
    assert done == expected[batches]
    missing = {row["benchmark"] for row in bench.results()["missing"]}
    assert missing == {"sums", "others"} - set(done)
    assert summary.base_answers == ()


def test_all_questions_count_with_the_rounds_that_are_whole_when_time_is_up(tmp_path: Path) -> None:
    bench = Bench(tmp_path, samples=5)
    first = bench.run(batches=8).scores[0]
    assert (first.metric, first.questions, first.samples, first.of_answers) == ("mean@5", 12, 2, 60)
    assert first.value == 0.916667
    assert bench.results()["scores"][0]["of_trained"]["pass_at"] == {"pass@1": 0.916667, "pass@2": 0.916667}


def test_evaluation_goes_on_where_its_time_was_up_and_asks_nothing_twice(bench: Bench) -> None:
    for batches in range(2, 10, 2):
        bench.run(batches=batches)
    whole = bench.run()
    asked = [request.prompt for request in (*bench.trained.requests, *bench.base.requests)]
    assert len(asked) == 2 * (len(QUESTIONS) + len(OTHERS))
    assert len(set(bench.trained.requests)) == len(bench.trained.requests)
    undisturbed = Bench(bench.root / "undisturbed").run()
    assert whole == undisturbed


def test_base_model_is_paid_for_once(bench: Bench) -> None:
    first = bench.run()
    assert len(first.base_answers) == 2
    bench.keep(first)
    later = Bench(bench.root)
    second = later.run(folder="second")
    assert later.base.requests == []
    assert second.scores == first.scores
    assert second.base_answers == (), "what was taken over need not be kept again"
    assert later.results("second")["scores"][0]["of_base"]["measured_by"] == "first"


def test_base_answers_that_were_used_once_stay_used_when_the_cache_forgets_them(bench: Bench) -> None:
    bench.keep(bench.run())
    later = Bench(bench.root)
    second = later.run(folder="second")
    for path in (bench.root / "baselines").iterdir():
        path.unlink()
    resumed = Bench(bench.root)
    assert resumed.run(folder="second").scores == second.scores
    assert resumed.base.requests == resumed.trained.requests == []


def test_base_model_is_measured_where_what_is_kept_does_not_cover_it(bench: Bench) -> None:
    first = bench.run()
    bench.keep(first.model_copy(update={"base_answers": first.base_answers[1:]}))
    later = Bench(bench.root)
    second = later.run(folder="second")
    assert {request.prompt[0] for request in later.base.requests} == {"q"}
    assert second.scores == first.scores


def test_base_model_is_measured_when_the_protocol_is_another(bench: Bench) -> None:
    bench.keep(bench.run())
    later = Bench(bench.root)
    later.exam = Exam(
        evaluation=bench.evaluation.model_copy(update={"seed": 43}), format="s1", questions=bench.exam.questions
    )
    later.run(folder="second")
    assert len(later.base.requests) == len(QUESTIONS) + len(OTHERS)


def test_programs_answered_before_the_time_was_up_wait_with_the_reason(bench: Bench) -> None:
    tests = json.dumps({"inputs": ["1"], "outputs": ["1"]})
    programs = [Question(each.id, each.problem, tests, "code") for each in QUESTIONS]
    bench.exam = Exam(evaluation=bench.evaluation, format="s1", questions={"sums": programs, "others": OTHERS})
    summary = bench.run(batches=2)
    assert (summary.scores, summary.pending, summary.stopped) == ((), 8, "deadline")
    assert not (bench.root / "evaluation" / "results.json").exists(), "what was not run is scored nowhere"
    note = Waiting.read(bench.root / "evaluation")
    assert (note.stopped, note.trained.name, note.engine) == ("deadline", "step-5", {"engine": "scripted"})
    assert note.base is not None, "the base model is compared with what is scored later"


def test_answers_count_when_the_next_attempt_has_no_time_to_load_its_model(bench: Bench) -> None:
    first = bench.run(batches=2)
    assert [(row.benchmark, row.questions) for row in first.scores] == [("sums", 8)]
    again = Bench(bench.root)
    assert again.run(batches=0) == first
    assert again.trained.requests == []
    assert again.run().stopped is None, "and the one after it goes on"
    assert len(again.trained.requests) == len(QUESTIONS) + len(OTHERS) - 8


def test_answers_of_other_weights_do_not_count_when_there_is_no_time_to_load_the_model(bench: Bench) -> None:
    bench.run(batches=2)
    stale = bench.root / "evaluation" / "step-5-engine.json"
    stale.write_text(stale.read_text().replace("files:step-5", "files:another"))
    summary = Bench(bench.root).run(batches=0)
    assert (summary.scores, summary.stopped) == ((), "deadline")


def test_published_score_is_compared_where_there_is_one(tmp_path: Path) -> None:
    first, second = Bench(tmp_path, baseline="published", published=0.25).run().scores
    assert (first.baseline, first.baseline_stderr, first.comparison) == (0.25, None, "published")
    assert (first.wins, first.losses, first.verdict) == (None, None, "Improved")
    assert (second.baseline, second.comparison, second.verdict) == (None, None, None)


def test_published_score_is_marked_also_when_the_score_is_partial(tmp_path: Path) -> None:
    first = Bench(tmp_path, baseline="published", published=0.25).run(batches=1).scores[0]
    assert first.of_answers == 12
    assert (first.baseline, first.comparison, first.verdict) == (0.25, "published", None)


def test_published_score_counts_with_the_questions_that_were_asked_when_they_are_a_part_of_a_benchmark(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, baseline="published", published=0.25)
    named = bench.evaluation.benchmarks[0].model_copy(update={"name": "math500", "limit": 12})
    evaluation = bench.evaluation.model_copy(update={"benchmarks": (named,)})
    bench.exam = Exam(evaluation=evaluation, format="s1", questions={"math500": QUESTIONS})
    bench.run()
    [row] = bench.results()["scores"]
    assert row["delta"]["p_value_unadjusted"] == pytest.approx(fisher_exact((11, 12), (3, 12)), rel=1e-5)
