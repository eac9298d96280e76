"""``rft lm-eval``: what lm-evaluation-harness wrote is read as it wrote it, and judged like our own scores.

The golden files are those of lm_eval 0.4.13 with a model that knows some answers: twelve sums, read by two filters, and
twelve questions with choices.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rft_operator.cli.main import main
from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.lm_eval import read_run
from rft_trainer.evaluate.lm_eval_scores import scores_of

GOLDEN = Path(__file__).parent / "golden" / "lm_eval"
STRICT = ("own_sums", "strict-match", "exact_match")
PLACES = [
    ("own_choices", "none", "acc"),
    ("own_choices", "none", "acc_norm"),
    STRICT,
    ("own_sums", "flexible-extract", "exact_match"),
]
Row = dict[str, Any]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A copy of both runs."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "runs"))


def samples(folder: Path, task: str = "own_sums") -> Path:
    [path] = folder.rglob(f"samples_{task}_*.jsonl")
    return path


def change_rows(path: Path, change: Callable[[Row], Row | None]) -> None:
    rows = (change(json.loads(line)) for line in path.read_text().splitlines())
    path.write_text("".join(json.dumps(row) + "\n" for row in rows if row is not None))


def change_results(folder: Path, change: Callable[[Row], object]) -> None:
    [path] = folder.rglob("results_*.json")
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def rft(*words: str) -> Result:
    return CliRunner().invoke(main, ["lm-eval", *words])


@pytest.mark.parametrize("model", ["trained", "base"])
def test_every_score_is_the_one_that_the_harness_computed(model: str) -> None:
    run = read_run(GOLDEN / model)
    [path] = (GOLDEN / model).rglob("results_*.json")
    told = json.loads(path.read_text())["results"]
    assert list(run.scores) == PLACES
    for (task, filter_, metric), score in run.scores.items():
        assert score.measured.value == pytest.approx(told[task][f"{metric},{filter_}"])
        assert (len(score.rights), score.asked) == (12, 12)
    assert run.not_counted == {}


def test_answers_that_a_filter_did_not_find_are_told() -> None:
    scores = read_run(GOLDEN / "trained").scores
    assert {place[:2]: score.not_parsed for place, score in scores.items()} == {
        ("own_choices", "none"): 0,
        ("own_sums", "strict-match"): 2,
        ("own_sums", "flexible-extract"): 1,
    }


def test_sample_is_one_line_when_a_model_wrote_other_ends_of_lines(runs: Path) -> None:
    path = samples(runs / "trained")
    rows = [{**json.loads(line), "resps": [["one\u2028two\x85three"]]} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    assert read_run(runs / "trained").scores == read_run(GOLDEN / "trained").scores


def test_models_are_compared_question_by_question_and_all_scores_together() -> None:
    found = scores_of(GOLDEN / "trained", GOLDEN / "base")
    for score in found.scores:
        assert score.it.comparison is not None
        assert (score.it.comparison.wins, score.it.comparison.losses) == (7, 1)
        assert score.it.comparison.p_value == pytest.approx(2 * (1 + 8) / 2**8), "McNemar, exactly"
        assert score.it.adjusted_p == pytest.approx(4 * 2 * (1 + 8) / 2**8), "Holm: there are four"
        assert score.it.verdict == "Inconclusive"
    row = found.document()["scores"][2]
    assert (row["task"], row["filter"], row["metric"]) == STRICT
    assert (row["value"], row["base"]["value"], row["comparison"]["delta"]) == (0.75, 0.25, 0.5)
    assert row["comparison"]["prompts"] == "same"
    assert row["protocol"]["harness"] == "lm_eval 0.4.13"
    assert row["protocol"]["generation_kwargs"] == {"until": ["\n"], "do_sample": False}
    assert len(row["protocol"]["hash"]) == 64


def test_command_says_it_in_lines_and_in_a_file(tmp_path: Path) -> None:
    done = rft(str(GOLDEN / "trained"), "--base", str(GOLDEN / "base"), "-o", str(tmp_path / "scores.json"))
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[2] == (
        "own_sums: exact_match (strict-match) 0.750 ± 0.131 [0.468, 0.911], base 0.250: Inconclusive (7 better, "
        "1 worse, p 0.281); 2 of 12 not parsed"
    )
    document = json.loads((tmp_path / "scores.json").read_text())
    assert [(row["task"], row["filter"], row["metric"]) for row in document["scores"]] == PLACES
    alone = rft(str(GOLDEN / "trained"))
    assert alone.output.splitlines()[0] == "own_choices: acc 0.750 ± 0.131 [0.468, 0.911]; 0 of 12 not parsed"


def test_prompts_may_differ_and_it_is_told(runs: Path) -> None:
    change_rows(samples(runs / "base"), lambda row: {**row, "prompt_hash": "another template"})
    found = scores_of(runs / "trained", runs / "base")
    assert [row["comparison"]["prompts"] for row in found.document()["scores"]] == ["same"] * 2 + ["different"] * 2
    assert "; prompts differ" in found.lines()[2]
    assert "; prompts differ" not in found.lines()[0]


def no_last(row: Row) -> Row | None:
    return None if row["doc_id"] == 11 else row


def another_question(row: Row) -> Row:
    return {**row, "doc_hash": "another"} if row["doc_id"] == 3 else row


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda run: change_results(run, lambda it: it["versions"].update(own_sums=3.0)),
            "not the same exam: version 2.0 against 3.0",
        ),
        (
            lambda run: change_results(run, lambda it: it["n-shot"].update(own_sums=5)),
            "not the same exam: num_fewshot 0 against 5",
        ),
        (
            lambda run: change_results(run, lambda it: it["configs"]["own_sums"].update(generation_kwargs={})),
            "not the same exam: generation_kwargs",
        ),
        (lambda run: change_rows(samples(run), another_question), "not the same exam: questions_sha256"),
        (lambda run: change_rows(samples(run), no_last), "only 11 of 12 questions were answered"),
        (lambda run: samples(run).unlink(), "the base was not asked"),
        (
            lambda run: change_rows(samples(run), lambda row: {**row, "exact_match": 0.5}),
            "of the base it is not right or wrong for each question",
        ),
    ],
)  # fmt: skip
def test_scores_of_different_exams_are_not_compared(runs: Path, change: Callable[[Path], object], said: str) -> None:
    change(runs / "base")
    found = scores_of(runs / "trained", runs / "base")
    choices, sums = found.scores[:2], found.scores[2:]
    assert all(score.it.verdict is not None and score.it.adjusted_p == pytest.approx(0.140625) for score in choices)
    assert all(score.it.comparison is None and score.not_compared is not None for score in sums)
    assert f"; NOT COMPARED, {said}" in found.lines()[2]
    assert found.document()["scores"][2]["comparison"] is None


def test_part_of_a_score_is_no_score_to_compare(runs: Path) -> None:
    change_rows(samples(runs / "trained"), no_last)
    found = scores_of(runs / "trained", runs / "base")
    assert found.scores[2].not_compared == "only 11 of 12 questions were answered"
    row = found.document()["scores"][2]
    assert (row["questions"], row["of_questions"]) == (11, 12)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (
            lambda run: change_rows(samples(run), lambda row: {**row, "exact_match": [0.5, 3]}),
            "it is not right or wrong for each question",
        ),
        (
            lambda run: change_results(run, lambda it: it["higher_is_better"]["own_sums"].update(exact_match=False)),
            "less of it is better",
        ),
    ],
)
def test_metric_that_is_something_else_than_right_or_wrong_is_named(
    runs: Path, change: Callable[[Path], object], why: str
) -> None:
    change(runs / "trained")
    found = scores_of(runs / "trained", None)
    assert [score.trained.place for score in found.scores] == PLACES[:2]
    assert found.lines()[2] == f"own_sums: exact_match (strict-match): not counted, {why}"
    assert found.document()["not_counted"][0]["reason"] == why


def test_newest_run_is_read_when_there_are_several(runs: Path) -> None:
    [results] = (runs / "trained").rglob("results_*.json")
    stamp = results.stem.removeprefix("results_")
    for path in list(results.parent.iterdir()):
        shutil.copy(path, path.with_name(path.name.replace(stamp, "2031-01-01T00-00-00.000000")))
    change_rows(next(results.parent.glob("samples_own_sums_2031*")), lambda row: {**row, "exact_match": 1.0})
    assert read_run(runs / "trained").scores[STRICT].measured.value == 1.0


def clear(path: Path, text: str = "") -> None:
    path.write_text(text)


def clear_all(run: Path) -> None:
    for path in run.rglob("samples_*"):
        clear(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda run: shutil.rmtree(run / "fixed"), r"has no results_\*.json; run lm_eval with --output_path"),
        (lambda run: [path.unlink() for path in run.rglob("samples_*")], "run lm_eval with --log_samples"),
        (lambda run: shutil.copytree(run / "fixed", run / "other"), "name one of .*fixed, .*other"),
        (lambda run: clear(next(run.rglob("results_*")), "[]"), "is not what lm_eval writes as its results"),
        (lambda run: clear(samples(run), "{}\n"), r"own_sums.*jsonl:1: is no sample of lm_eval: 'doc_id'"),
        (lambda run: clear(samples(run), "{"), r"jsonl:1: is no sample of lm_eval"),
        (
            lambda run: clear(samples(run), 2 * samples(run).read_text()),
            "question 0 is there twice for the filter strict",
        ),
        (clear_all, "none of its metrics is right or wrong"),
    ],
)
def test_error_says_what_is_wrong_with_a_folder(runs: Path, change: Callable[[Path], object], said: str) -> None:
    change(runs / "trained")
    with pytest.raises(BadInputError, match=said):
        scores_of(runs / "trained", None)
    done = rft(str(runs / "trained"))
    assert done.exit_code == 2
    assert "Traceback" not in done.output
