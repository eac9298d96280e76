"""The report as a page: what it tells, where it has it from, and that it needs nothing else."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_operator.api.ledger import Ledger, LedgerTotal
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Attempt, Status
from rft_operator.domain.bill import bill
from rft_operator.domain.spend import lines_of, spend_points
from rft_operator.domain.timestamps import epoch, rfc3339
from rft_operator.errors import ReportError
from rft_operator.report.from_folder import losses_and_times, story_of_folder
from rft_operator.report.from_status import curves_of, story_of_run
from rft_operator.report.page import page
from rft_operator.report.story import LossPoint, Story
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.command_line import COMPLETE, TIME, CommandLine, run_in
from support.objects import stored_run
from support.stage import World

NOW = epoch("2026-01-01T10:00:00Z")


class Checked(HTMLParser):
    """A page that is well-formed, refers to nothing outside, and runs nothing."""

    VOID = frozenset({"meta", "br", "link", "img", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.words: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))
        assert not {"script", "link", "iframe", "img", "object"} & set(self.tags)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), name
            if name in ("href", "src", "xlink:href"):
                assert (value or "").startswith("#"), value
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())

    @property
    def text(self) -> str:
        """All words."""
        return " ".join(word for word in self.words if word)


async def completed(**spec: Any) -> World:
    world = World(**spec)
    await world.to_training()
    world.report(step=20, checkpoint=20)
    await world.after(600)
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await world.after(30)
    await world.after(30)
    world.run_pods(Stage.TRAIN, 2)
    await world.after(600)
    world.complete(Stage.TRAIN, 2)
    await world.after(1)
    world.run_pods(Stage.EVALUATE)
    await world.after(100)
    world.complete(Stage.EVALUATE)
    await world.settle()
    return world


LOSSES = [LossPoint(step=step, loss=2 - step / 100) for step in range(1, 51)]


async def test_page_tells_all_of_a_completed_run_without_any_other_file() -> None:
    world = await completed()
    found = Checked(page(story_of_run(world.run, now=world.now, losses=LOSSES)))
    for part in (
        "team/demo", "Complete", "Improved", "90 / 0", "0.826 to 0.945", "stage: train", "waste: lostWork", "train 2",
        "Loss", "step 50", "limit", "stop line of training", "Run card", "init://tiny-qwen2",
    ):  # fmt: skip
        assert part in found.text, part
    assert f"{world.status.cost.display} of $10.00" in found.text
    assert found.tags.count("svg") == 4


async def test_page_is_the_same_for_the_same_story() -> None:
    story = story_of_run((await completed()).run, now=NOW, losses=LOSSES)
    assert page(story) == page(story)


async def test_page_of_a_new_run_says_what_is_missing_and_why() -> None:
    found = Checked(page(story_of_run(World().run, now=NOW)))
    for part in ("Not started", "No GPU was held yet", "No score was posted", "No step is known"):
        assert part in found.text


async def test_page_of_a_running_run_draws_its_forecast_and_warns() -> None:
    world = World(budget={"limitUSD": 3})
    await world.to_training()
    world.report(step=20, checkpoint=20, eta_seconds=2_000)
    await world.after(600)
    lines = lines_of(world.run)
    assert lines.forecast_at == world.now - 600 + 2_000
    assert (lines.forecast or 0) > lines.limit
    found = Checked(page(story_of_run(world.run, now=world.now)))
    for part in ("forecast", "ForecastOverLimit: ", "minutes since the first GPU was held", "10 min 7 s ago"):
        assert part in found.text, part


async def test_page_says_why_a_run_failed() -> None:
    world = World(retries={"maxRestarts": 0})
    await world.to_training()
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await world.settle()
    assert "BackoffLimitExceeded: " in Checked(page(story_of_run(world.run, now=world.now))).text


async def test_words_of_others_cannot_change_the_page() -> None:
    story = story_of_run((await completed()).run, now=NOW)
    evil = "</section><script>alert(1)</script>$x^2$ & <b>"
    assert story.evaluation is not None
    result = story.evaluation.results[0].model_copy(update={"benchmark": evil, "metric": evil})
    story = replace(
        story,
        title=evil,
        why=evil,
        facts=((evil, evil),),
        card={evil: evil},
        attempts=tuple(replace(each, result=evil, message=evil) for each in story.attempts),
        evaluation=story.evaluation.model_copy(update={"results": [result]}),
    )
    text = page(story)
    Checked(text)
    assert "<script" not in text


def sweep(waits: int, tokens: str, value: str) -> dict[str, Any]:
    metric = f"accuracy@wait={waits}"
    return {"benchmark": "math500", "metric": metric, "value": value, "questions": 500, "thinkingTokens": tokens}


def test_accuracy_is_drawn_against_thinking_tokens_where_several_settings_were_measured() -> None:
    rows = [sweep(0, "2100.0", "0.81"), sweep(2, "3700.0", "0.84"), sweep(1, "2900.0", "0.82")]
    rows[1]["metric"] = "mean@4@wait=2"
    other = {"benchmark": "aime24", "metric": "mean@16", "value": "0.4", "questions": 30}
    run = ReasoningFinetune.parse(stored_run(status={"evaluation": {"results": [*rows, other]}}))
    (curve,) = curves_of(story_of_run(run, now=NOW).scores)
    assert [(point.setting, point.thinking_tokens) for point in curve.points] == [
        ("wait=0", 2_100),
        ("wait=1", 2_900),
        ("wait=2", 3_700),
    ]
    found = Checked(page(story_of_run(run, now=NOW)))
    assert "Accuracy against thinking" in found.text
    assert "math500, trained model" in found.text


def test_plan_is_drawn_where_the_estimate_knows_model_and_data() -> None:
    known = stored_run(status={"cost": {"usdPerGpuHour": "2.000000"}})
    known["spec"] |= {
        "model": {"uri": "hf://Qwen/Qwen2.5-32B-Instruct"},
        "dataset": {"uri": "hf://NovaSky-AI/Sky-T1_data_17k", "format": "sky-t1"},
        "resources": {"nodes": 1, "gpusPerNode": 8},
        "training": {"globalBatchSize": 96},
    }
    story = story_of_run(ReasoningFinetune.parse(known), now=NOW)
    assert story.money is not None
    assert story.money.plan is not None
    assert story.money.plan.micro_usd > 10**7
    unknown = story_of_run(ReasoningFinetune.parse(stored_run(status=known["status"])), now=NOW)
    assert unknown.money is not None
    assert unknown.money.plan is None
    assert unknown.money.plan_note


# -- spending over time ----------------------------------------------------------------------------------------------


stages = st.sampled_from(["train", "evaluate"])
spans = st.tuples(stages, st.integers(0, 10_000), st.integers(1, 16))


@given(st.lists(spans, max_size=6), st.integers(0, 10**7), st.integers(0, 10**6))
def test_spending_never_falls_and_ends_at_the_ledgers_sum(
    held: list[tuple[str, int, int]], trained: int, evaluated: int
) -> None:
    attempts, at = [], NOW - 100_000
    for number, (stage, seconds, gpus) in enumerate(held, start=1):
        start, at = at, at + seconds
        attempts.append(Attempt(stage=stage, number=number, start_time=rfc3339(start), end_time=rfc3339(at), gpus=gpus))
    there = {stage for stage, _, _ in held}
    totals = [
        LedgerTotal(stage=stage, gpu_seconds=seconds, amount=str(seconds * 3_600_000))
        for stage, seconds in (("train", trained), ("evaluate", evaluated))
        if stage in there
    ]
    run = ReasoningFinetune.parse(stored_run())
    run = run.model_copy(update={"status": Status(attempts=attempts, ledger=Ledger(totals=totals))})
    points = spend_points(run, now=NOW)
    assert [each.micro_usd for each in points] == sorted(each.micro_usd for each in points)
    assert [each.at for each in points] == sorted(each.at for each in points)
    if points:
        assert points[-1].micro_usd == bill(run.status.ledger, now=NOW).spent_micro_usd


async def test_stop_line_leaves_room_for_the_stop_and_the_evaluation() -> None:
    world = await completed()
    lines = lines_of(world.run)
    # $10 less the evaluation's $0.66, and two GPUs at $3.60 for the grace of 60 s and 30 s of slack.
    assert (lines.limit, lines.reserve, lines.stop) == (10_000_000, 660_000, 9_160_000)


# -- the run's folder -------------------------------------------------------------------------------------------------


def step(number: int, loss: float | None, second: int = 0) -> str:
    return json.dumps({"step": number, "loss": loss, "ts": f"2026-01-01T00:00:{second:02d}Z"})


def test_steps_that_a_resume_made_anew_are_told_once() -> None:
    lines = [
        step(1, 3.0),
        step(2, 2.0),
        step(3, 1.0),
        step(2, 2.5, 9),
        "no step",
        '{"step": 3, "los',
        '{"step": 4, "loss": 1e99}',
        step(4, None),
    ]
    points, stamps = losses_and_times(lines)
    assert [(point.step, point.loss) for point in points] == [(1, 3.0), (2, 2.5)]
    assert stamps[-1] - stamps[0] == 0
    assert max(stamps) - stamps[0] == 9


def folder(path: Path) -> Path:
    score = {
        "benchmark": "sums", "metric": "accuracy", "value": 0.9, "stderr": 0.01, "questions": 100, "samples": 1,
        "interval": [0.82, 0.94], "baseline": 0.1, "wins": 80, "losses": 0, "p_value": 1e-9, "verdict": "Improved",
        "comparison": "paired", "setting": {"name": ""}, "protocol": "ab",
    }  # fmt: skip
    point = {"setting": "wait=0", "thinking_tokens": 10.5, "allowed_tokens": 12, "value": 0.5, "stderr": 0.05}
    points = [point, {**point, "setting": "wait=1", "thinking_tokens": 20.5, "value": 0.6}]
    measures = {"control": 1.0, "slope_points_per_1000_tokens": 10_000.0, "performance": 0.6, "points": points}
    curves = [{"benchmark": "sums", "of": of, **measures} for of in ("trained", "base")]
    (path / "evaluation").mkdir(parents=True)
    results = {"version": 1, "scores": [score], "scaling": curves, "protocol": "cd" * 32, "stopped": None}
    (path / "evaluation" / "results.json").write_text(json.dumps(results))
    (path / "steps.jsonl").write_text("\n".join(step(number, 2 / number) for number in range(1, 30)))
    (path / "prepared.json").write_text(json.dumps({"fingerprint": "x", "summary": {"steps": 40}}))
    card = {
        "run": {"namespace": "team", "name": "demo", "training": {"seed": 7}},
        "model": {"uri": "hf://org/m", "commit": "c0ffee"},
        "data": {"sha256": "feed"},
        "versions": {"torch": "2.15.0"},
    }
    (path / "run-card.json").write_text(json.dumps(card))
    return path


def test_folder_tells_steps_scores_curve_and_card(tmp_path: Path) -> None:
    story = story_of_folder(folder(tmp_path / "run"), now=NOW)
    assert (story.title, story.state, story.total_steps) == ("team/demo", "Evaluated", 40)
    found = Checked(page(story))
    for part in ("step 29 of 40", "0.820 to 0.940", "sums, base model", "c0ffee", "feed", "2.15.0", "in its resource"):
        assert part in found.text, part


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("run-card.json", "{", "run-card.json cannot be read"),
        ("run-card.json", "[]", "is no JSON object"),
        ("run-card.json", '{"model": "m"}', r"run-card.json: model: .*dictionary, found 'm'"),
        ("run-card.json", '{"run": {"training": [1]}}', r"run-card.json: run.training: .*dictionary, found \[1\]"),
        ("run-card.json", '{"versions": 3}', "run-card.json: versions: .*dictionary, found 3"),
        ("run-card.json", '{"run": {"name": 7}}', "run-card.json: run.name: .*string, found 7"),
        ("prepared.json", '{"summary": "done"}', "prepared.json: summary: .*found 'done'"),
        ("prepared.json", '{"summary": {"steps": "40"}}', "prepared.json: summary.steps: .*integer, found '40'"),
        ("evaluation/results.json", '{"scores": [{"benchmark": "x"}]}', r"results.json: scores.0.*required, found"),
        ("evaluation/results.json", '{"scores": 0.9}', "results.json: scores: .*list, found 0.9"),
        ("evaluation/results.json", '{"models": ["m"]}', "results.json: models: .*dictionary"),
        ("evaluation/results.json", '{"scaling": [{}]}', "results.json: scaling.0.benchmark: .*required"),
        ("run-card.json", '{"model": {"uri": "\\ud800"}}', "run-card.json cannot be read: .*surrogates"),
        ("prepared.json", '{"summary": {"steps": -4}}', "prepared.json: summary.steps: .*found -4"),
        ("evaluation/results.json", '{"scaling": {"a": 1}}', "results.json: scaling: .*list"),
    ],
)
def test_broken_file_of_a_folder_is_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    (folder(tmp_path / "run") / name).write_text(content)
    with pytest.raises(ReportError, match=words):
        story_of_folder(tmp_path / "run", now=NOW)


def test_folder_whose_card_names_no_namespace_is_told_by_its_name(tmp_path: Path) -> None:
    (folder(tmp_path / "run") / "run-card.json").write_text('{"run": {"name": "demo"}, "model": null}')
    assert story_of_folder(tmp_path / "run", now=NOW).title == "demo"


def test_folder_of_something_else_is_refused_with_what_is_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="none of run-card"):
        story_of_folder(tmp_path, now=NOW)
    with pytest.raises(ReportError, match="is no folder"):
        story_of_folder(tmp_path / "none", now=NOW)


def test_folder_of_an_evaluation_alone_is_told_with_what_is_not_in_it(cli: CommandLine, tmp_path: Path) -> None:
    evaluated = folder(tmp_path / "run") / "evaluation"
    (evaluated / "protocol.json").write_text(json.dumps({"format": "s1"}))
    results = json.loads((evaluated / "results.json").read_text())
    (evaluated / "results.json").write_text(json.dumps({**results, "models": {"model-1a": "files:beef"}}))
    code, out, _ = cli.rft("report", str(evaluated))
    assert code == 0
    assert "Score  sums accuracy: 0.10 before, 0.90 ± 0.01 after training (100 questions)" in out.splitlines()
    found = Checked(page(story_of_folder(evaluated, now=NOW)))
    for part in ("sums, base model", "the folder of an evaluation alone", "files:beef", "does not say when it ran"):
        assert part in found.text, part


def test_folder_says_that_nothing_was_answered_when_its_results_have_no_score(tmp_path: Path) -> None:
    path = folder(tmp_path / "run")
    (path / "evaluation" / "results.json").write_text(json.dumps({"scores": [], "stopped": "deadline"}))
    story = story_of_folder(path, now=NOW)
    assert story.scores_note == "results.json has no score: the evaluation was ended before any question was answered."


def test_published_baseline_is_never_shown_as_measured(tmp_path: Path) -> None:
    path = folder(tmp_path / "run")
    file = path / "evaluation" / "results.json"
    results = json.loads(file.read_text())
    scores = [{**score, "comparison": "published", "baseline": 0.1} for score in results["scores"]]
    file.write_text(json.dumps({**results, "scores": scores}))
    found = Checked(page(story_of_folder(path, now=NOW)))
    assert "0.100 published" in found.text
    assert "0.100 before" not in found.text
    assert "base model, as published" in found.text


def test_half_of_a_run_is_told_as_far_as_it_goes(tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_text(step(1, 2.0) + '\n{"step": 2, "lo')
    story: Story = story_of_folder(tmp_path, now=NOW)
    assert [point.step for point in story.losses] == [1]
    assert "There is no evaluation/results.json" in Checked(page(story)).text


# -- the command ------------------------------------------------------------------------------------------------------


def test_report_writes_the_page_of_a_run_with_the_losses_of_its_logs(cli: CommandLine, tmp_path: Path) -> None:
    cli.put(run_in(status=COMPLETE))
    labels = {"rft.dev/finetune": NAME, "rft.dev/stage": "train", "rft.dev/attempt": "1"}
    meta = {"name": "pod-0", "namespace": NAMESPACE, "labels": labels}
    cli.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": {}})
    cli.api.write("pod-0", (TIME, "loading"), *((TIME, step(number, 1.0)) for number in range(1, 12)))
    code, out, err = cli.rft("report", NAME, "-o", str(tmp_path / "report.html"))
    assert (code, out) == (0, "")
    assert re.search(r"report.html: \d+ KiB, open it in any browser", err)
    assert "step 11" in Checked((tmp_path / "report.html").read_text()).text
    assert cli.rft("report", NAME, "-o", "-")[1].startswith("<!doctype html>")


def test_report_without_the_right_to_logs_says_so_and_tells_the_rest(cli: CommandLine) -> None:
    cli.put(run_in(status=COMPLETE))
    labels = {"rft.dev/finetune": NAME, "rft.dev/stage": "train", "rft.dev/attempt": "1"}
    meta = {"name": "pod-0", "namespace": NAMESPACE, "labels": labels}
    cli.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": {}})
    words = 'pods is forbidden: User "jane" cannot get resource "pods/log" in API group "" in the namespace "team"'
    cli.api.fail(403, words, path="/log")
    code, out, _ = cli.rft("report", NAME, "-o", "-")
    assert code == 0
    assert "jane may not get pods/log" in Checked(out).text


def test_report_joins_resource_and_folder(cli: CommandLine, tmp_path: Path) -> None:
    cli.put(run_in(status=COMPLETE))
    code, out, _ = cli.rft("report", NAME, "--directory", str(folder(tmp_path / "run")), "-o", "-")
    assert code == 0
    text = Checked(out).text
    assert "Complete" in text
    assert "step 29 of 40" in text
    assert "0.820 to 0.940" in text


def test_report_of_a_folder_needs_no_cluster(cli: CommandLine, tmp_path: Path) -> None:
    code, out, _ = cli.rft("report", str(folder(tmp_path / "run")))
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "team/demo: Evaluated"
    assert "Loss   2 at step 1, 0.06897 at step 29 of 40" in lines
    assert "Score  sums accuracy: 0.10 before, 0.90 ± 0.01 after training (100 questions)" in lines
    assert any(line.startswith("Curve  sums: 10000.00 points per 1,000 thinking tokens") for line in lines)
    assert not cli.api.requests


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("demo", "-o", "report.pdf"), "the page is HTML"),
        (("./nothing",), "is no folder"),
        ((".", "--directory", "x"), "or its folder alone"),
        (("demo?x=1",), "'demo.x=1' is no name of a run"),
        (("demo", "-n", "../kube-system"), "is no name of a namespace"),
        (("demo", "-o", "/no/such/folder/report.html"), "No such file or directory"),
    ],
)
def test_report_refuses_what_cannot_be_done(cli: CommandLine, arguments: tuple[str, ...], words: str) -> None:
    cli.put(run_in(status=COMPLETE))
    code, _, err = cli.rft("report", *arguments)
    assert code == 2
    assert re.search(words, err), err
