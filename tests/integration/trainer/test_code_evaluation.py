"""An evaluation whose answers are programs: given in one place, run in another, scored as if it had been one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rft_operator.cli.main import main
from rft_trainer.benchmarks import Question
from rft_trainer.contract import Outcome, RunConfig, Stage
from rft_trainer.errors import BadInputError, SandboxError
from rft_trainer.evaluate import main as evaluate_main
from rft_trainer.evaluate import programs, score_main
from rft_trainer.evaluate.main import exam_of
from rft_trainer.evaluate.record import AnswerFile
from rft_trainer.evaluate.runner import Model
from rft_trainer.evaluate.sampler import BatchWindow, Completion, CompletionRequest, Finish, Window
from rft_trainer.evaluate.session import Candidate, Session
from rft_trainer.evaluate.stopping import Stop, StoppedError
from rft_trainer.evaluate.waiting import FILE, NoSampler, Waiting
from rft_trainer.files import write_json
from rft_trainer.launch import main as launch
from rft_trainer.paths import Layout, RunPaths
from rft_trainer.prepare.tiny import build_model
from rft_trainer.publish.main import publish
from rft_trainer.report import Work
from rft_trainer.results import read_result, termination_message
from rft_trainer.sandbox import sandbox as sandbox_module
from rft_trainer.scoring import Judge, Verdict
from rft_trainer.scoring.code_tests import CodeTests
from rft_trainer.scoring.verdict import PENDING
from rft_trainer.stage_results import EvaluateSummary, StageResult
from rft_trainer.uris import parse_uri
from unit.trainer.factory import run_config

BENCHMARK = [
    {
        "id": f"times-{factor}",
        "problem": f"times {factor}",
        "tests": {"inputs": [f"{value}\n" for value in (1, 7)], "outputs": [f"{factor * value}\n" for value in (1, 7)]},
    }
    for factor in range(2, 8)
]
SUMS = [{"id": "one", "problem": "sum of 1 and 1", "answer": "2", "scorer": "integer"}]


class Coder:
    """Writes the right program for the first so many questions, and harmful ones for the others."""

    context_tokens = None
    identity = {"engine": "scripted"}

    def __init__(self, right: int) -> None:
        self._right, self.requests = right, 0

    def count(self, text: str) -> int:
        return len(text.split())

    def window(self) -> Window:
        return BatchWindow(self._complete)

    def _complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        self.requests += len(requests)
        return [Completion(self._answer(each.prompt), 5, Finish.EOS) for each in requests]

    def _answer(self, prompt: str) -> str:
        if "sum" in prompt:
            return "Answer: 2"
        factor = int(prompt.rsplit(maxsplit=1)[-1])
        code = f"print({factor} * int(input()))" if factor < 2 + self._right else "import os\nos._exit(0)"
        return f"```python\n{code}\n```"


class Pod:
    """A run's volume, and the two places that work on it."""

    def __init__(self, root: Path, config: RunConfig) -> None:
        self.layout, self.config = Layout(root), config
        self.paths = RunPaths.of(self.layout, config)
        write_json(self.layout.config_file, config.model_dump(mode="json"))
        self.layout.run.mkdir(parents=True, exist_ok=True)
        self.trained, self.base = Coder(5), Coder(1)

    def answer(self, *, requests: float = float("inf")) -> EvaluateSummary:
        """As the pod with GPUs does; its time is up after so many requests."""
        session = Session(
            exam=exam_of(self.config, self.layout, self.paths),
            directory=self.paths.evaluation,
            artifacts=self.paths.pod_path(self.paths.evaluation),
            stop=Stop(deadline=requests, clock=lambda: self.trained.requests + self.base.requests),
            work=Work(None),
            baselines=self.layout.baselines,
        )
        return session.run(self._candidate("step-5", self.trained), self._candidate("base", self.base))

    def score(self) -> int:
        """As the pod without does."""
        return score_main.main(["--root", str(self.layout.root)])

    @staticmethod
    def _candidate(name: str, coder: Coder) -> Candidate:
        def load() -> Model:
            return Model(name, sampler=coder, render=lambda turns: turns[-1].content)

        return Candidate(name=name, fingerprint=f"files:{name}", load=load)


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    for name, rows in (("times", BENCHMARK), ("sums", SUMS)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    benchmarks = [
        {"name": name, "uri": f"file://{tmp_path}/{name}.jsonl", "max_tokens": 24} for name in ("times", "sums")
    ]
    return Pod(tmp_path / "rft", run_config(evaluation__benchmarks=benchmarks, evaluation__batch_size=1))


def test_programs_wait_and_are_scored_later_as_if_they_had_been_run_at_once(pod: Pod) -> None:
    waiting = pod.answer()
    assert (waiting.pending, waiting.scores) == (12, ())
    assert not (pod.paths.evaluation / "results.json").exists(), "nothing is scored that was not run"
    asked = (pod.trained.requests, pod.base.requests)

    assert pod.score() == 0
    result = read_result(pod.layout.result_file, stage=Stage.SCORE)
    assert result is not None
    assert result.outcome is Outcome.COMPLETED
    assert result.evaluate is not None
    times, sums = result.evaluate.scores
    assert (times.benchmark, times.value, times.baseline) == ("times", round(5 / 6, 6), round(1 / 6, 6))
    assert (times.wins, times.losses, times.no_answer, times.comparison) == (4, 0, 0, "paired")
    assert (sums.value, sums.baseline) == (1.0, 1.0)
    assert len(result.evaluate.base_answers) == 2, "the base model's verdicts are handed on once they are known"
    assert (pod.trained.requests, pod.base.requests) == asked, "no model is asked"
    document = json.loads((pod.paths.evaluation / "results.json").read_text())
    assert document["scores"][0]["of_trained"]["reasons"] == {"different": 1, "equal": 5}


def test_an_evaluation_that_runs_again_asks_nothing_and_waits_for_what_was_not_run(pod: Pod) -> None:
    first = pod.answer()
    asked = pod.trained.requests
    assert pod.answer().pending == first.pending
    assert pod.score() == 0
    assert pod.answer().pending == 0
    assert pod.trained.requests == asked


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        (4, {"times": (4, 6, None)}),
        (6, {"times": (6, None, None)}),
        (10, {"times": (6, None, None), "sums": (1, None, None)}),
        (13, {"times": (6, None, round(1 / 6, 6)), "sums": (1, None, None)}),
    ],
)
def test_programs_answered_before_the_time_was_up_are_scored_as_a_part(
    pod: Pod, requests: int, expected: dict[str, tuple[int, int | None, float | None]]
) -> None:
    waiting = pod.answer(requests=requests)
    assert (waiting.stopped, waiting.scores) == ("deadline", ())
    assert waiting.pending == sum(min(6, count) for count in (requests, requests - 7) if count > 0)
    asked = (pod.trained.requests, pod.base.requests)

    assert pod.score() == 0
    result = read_result(pod.layout.result_file, stage=Stage.SCORE)
    assert result is not None
    assert (result.outcome, (pod.trained.requests, pod.base.requests)) == (Outcome.COMPLETED, asked)
    assert result.evaluate is not None
    assert (result.evaluate.stopped, result.evaluate.pending) == ("deadline", 0)
    scores = result.evaluate.scores
    assert {each.benchmark: (each.questions, each.of_answers, each.baseline) for each in scores} == expected
    document = json.loads((pod.paths.evaluation / "results.json").read_text())
    assert document["stopped"] == "deadline"
    assert {row["benchmark"] for row in document["missing"]} == {"times", "sums"} - set(expected)


def test_the_evaluate_stage_says_how_many_programs_wait_when_its_time_was_up(pod: Pod) -> None:
    exam = exam_of(pod.config, pod.layout, pod.paths)
    result = evaluate_main._result(pod.answer(requests=4), exam)
    assert result.outcome is Outcome.DRAINED
    said = StageResult.model_validate_json(termination_message(result))
    assert said.error is not None
    assert "4 answers are programs that wait to be run; the answers are kept" in said.error
    assert said.evaluate is not None
    assert (said.evaluate.pending, said.evaluate.stopped) == (4, "deadline")


def test_an_evaluation_whose_part_was_scored_goes_on_and_comes_to_the_scores_of_one_that_was_not_ended(
    pod: Pod, tmp_path: Path
) -> None:
    pod.answer(requests=3)
    assert pod.score() == 0
    assert pod.answer().stopped is None
    assert pod.score() == 0
    ended = read_result(pod.layout.result_file, stage=Stage.SCORE)
    undisturbed = Pod(tmp_path / "undisturbed", pod.config)
    undisturbed.answer()
    assert undisturbed.score() == 0
    whole = read_result(undisturbed.layout.result_file, stage=Stage.SCORE)
    assert ended is not None
    assert whole is not None
    assert ended.evaluate is not None
    assert whole.evaluate is not None
    assert ended.evaluate.scores == whole.evaluate.scores
    assert ended.evaluate.stopped is None


def test_scoring_a_part_that_is_asked_to_stop_is_no_result_and_goes_on(pod: Pod) -> None:
    pod.answer(requests=4)
    pod.layout.stop_file.write_text("SIGTERM")
    assert pod.score() != 0
    stopped = read_result(pod.layout.result_file, stage=Stage.SCORE)
    assert stopped is not None
    assert (stopped.outcome, stopped.evaluate) == (Outcome.DRAINED, None)
    pod.layout.stop_file.unlink()
    assert pod.score() == 0
    done = read_result(pod.layout.result_file, stage=Stage.SCORE)
    assert done is not None
    assert done.evaluate is not None
    assert [each.questions for each in done.evaluate.scores] == [4]


def test_the_pods_first_process_says_what_came_of_it(pod: Pod, capfd: pytest.CaptureFixture[str]) -> None:
    pod.answer()
    assert launch.main(["score", "--root", str(pod.layout.root)]) == 0
    result = StageResult.model_validate_json(pod.layout.termination_log.read_bytes())
    assert (result.stage, result.outcome) == (Stage.SCORE, Outcome.COMPLETED)
    assert result.evaluate is not None
    assert len(result.evaluate.scores) == 2
    assert "sandbox: Python" in capfd.readouterr().out


def test_scoring_fails_and_no_score_appears_when_programs_cannot_be_run_safely(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod.answer()
    monkeypatch.setattr(sandbox_module, "PROBE", "print('read files')\nprint('sealed')")
    assert pod.score() == SandboxError.exit_code
    result = read_result(pod.layout.result_file, stage=Stage.SCORE)
    assert result is not None
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert "can still read files" in result.error
    assert not (pod.paths.evaluation / "results.json").exists()


def test_scoring_says_that_it_comes_too_early_when_nothing_was_evaluated(pod: Pod) -> None:
    assert pod.score() == BadInputError.exit_code
    result = read_result(pod.layout.result_file, stage=Stage.SCORE)
    assert result is not None
    assert result.error is not None
    assert FILE in result.error
    assert "evaluate first" in result.error


def test_scoring_that_is_asked_to_stop_keeps_its_verdicts_and_goes_on(pod: Pod) -> None:
    pod.answer()
    pod.layout.stop_file.write_text("SIGTERM")
    assert pod.score() != 0
    result = read_result(pod.layout.result_file, stage=Stage.SCORE)
    assert result is not None
    assert result.outcome is Outcome.DRAINED
    assert result.evaluate is None
    pod.layout.stop_file.unlink()
    assert pod.score() == 0


def test_no_program_is_run_twice_when_a_pod_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [
        Question(str(number), "q", json.dumps({"inputs": ["1"], "outputs": ["1"]}), "code") for number in range(6)
    ]
    path = tmp_path / "answers.jsonl"
    for number in range(6):
        record = {"id": str(number), "sample": 0, "text": "```python\nprint(1)\n```", "tokens": 1, "finished": True}
        with path.open("a") as stream:
            stream.write(json.dumps({**record, "extracted": None, "correct": False, "reason": PENDING}) + "\n")
    run: list[str] = []
    original = Judge.score_program

    def score(self: Judge, tests: CodeTests, text: str) -> Verdict:
        run.append(text)
        return original(self, tests, text)

    monkeypatch.setattr(Judge, "score_program", score)
    ticks = iter(range(100))
    with pytest.raises(StoppedError):
        programs.run_programs(AnswerFile(path), questions, stop=Stop(deadline=3, clock=lambda: next(ticks)), workers=1)
    judged = sum(each.reason != PENDING for each in AnswerFile(path).records.values())
    assert 0 < judged < 6
    before = len(run)
    programs.run_programs(AnswerFile(path), questions, stop=Stop(), workers=2)
    assert all(each.correct for each in AnswerFile(path).records.values())
    assert len(run) - before == 6 - judged


def test_the_models_card_tells_the_scores_as_they_were_found(pod: Pod, tmp_path: Path) -> None:
    pod.answer()
    assert pod.score() == 0
    pod.paths.export.mkdir()
    (pod.paths.export / "model.safetensors").write_bytes(b"weights")
    write_json(pod.paths.export / "rft-export.json", {"version": 1, "step": 5})
    publish(pod.paths, "file:///published", folder=tmp_path / "published")
    text = (tmp_path / "published" / "README.md").read_text()
    assert "| times | accuracy | 83.3 % ± 16.7 | 43.6 to 97.0 % | 6 | 16.7 % | 4, 0 | 0.25 | Inconclusive |" in text
    protocol = json.loads((tmp_path / "published" / "evaluation" / "protocol.json").read_text())
    assert f"sha256:{protocol['hash']}" in text


def test_the_command_line_runs_programs_only_when_it_is_told_to(tmp_path: Path) -> None:
    uri = parse_uri("init://tiny-qwen2?hidden=32&layers=1&vocab=320&positions=256")
    build_model(uri, tmp_path / "model", texts=["times 7 and 8"], seed=1, max_sequence_length=256)
    (tmp_path / "times.jsonl").write_text("".join(json.dumps(row) + "\n" for row in BENCHMARK))
    words = ["evaluate", str(tmp_path / "model"), "-b", f"times={tmp_path}/times.jsonl", "--max-tokens", "4"]
    words += ["-o", str(tmp_path / "out")]
    careful = CliRunner().invoke(main, words)
    assert careful.exit_code != 0
    assert "6 answers are programs" in careful.stderr
    assert "--run-code" in careful.stderr
    told = CliRunner().invoke(main, [*words, "--run-code"])
    assert told.exit_code == 0, told.output
    assert "times: accuracy 0.000" in told.output
    assert "6 of 6 without an answer" in told.output


NOTE = {"version": 1, "trained": {"name": "a", "fingerprint": "b"}, "base": None, "engine": {}}


@pytest.mark.parametrize("note", [{}, {"version": 2}, [], {**NOTE, "trained": {}}, {**NOTE, "stopped": "weary"}])
def test_a_note_that_cannot_be_read_is_bad_input(tmp_path: Path, note: Any) -> None:
    write_json(tmp_path / FILE, note)
    with pytest.raises(BadInputError, match="evaluate first"):
        Waiting.read(tmp_path)


def test_a_note_of_an_evaluation_that_was_not_ended_need_not_say_so(tmp_path: Path) -> None:
    write_json(tmp_path / FILE, NOTE)
    assert Waiting.read(tmp_path).stopped is None


def test_no_answer_is_made_up_where_there_is_no_model() -> None:
    sampler = NoSampler({"engine": "scripted"})
    with pytest.raises(BadInputError, match="answers are missing"):
        sampler.window()
    with pytest.raises(BadInputError, match="an answer is missing"):
        sampler.count("q")
