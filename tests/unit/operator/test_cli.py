"""The command line: follow a run, tell its story, and end with an exit code that says what happened."""

from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rft_operator.cli import watch
from rft_operator.cli.main import main
from rft_operator.cli.report import report, summary_line, table
from rft_operator.errors import InvalidResource, NotFound, Rejected, Unavailable
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.objects import stored_run
from support.stage import World
from support.web_api import Answer, WebApi, answer, failure, serve

TIME = "2026-01-01T00:00:00Z"


def condition(type_: str, status: str = "True", message: str = "") -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": type_, "message": message, "lastTransitionTime": TIME}


COMPLETE = stored_run(status={"stage": "Complete", "conditions": [condition("Complete")]})
FAILED = stored_run(status={"stage": "Failed", "conditions": [condition("Failed", message="No GPU left.")]})
TRAINING = stored_run(status={"stage": "Training"})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "POLL_SECONDS", 0.001)


async def completed() -> World:
    world = World()
    await world.to_training()
    world.report(step=20)
    await world.after(600)
    world.complete(Stage.TRAIN)
    await world.after(1)
    world.run_pods(Stage.EVALUATE)
    await world.after(100)
    world.complete(Stage.EVALUATE)
    await world.settle()
    return world


async def test_report_tells_stages_gpu_hours_dollars_and_scores_of_a_completed_run() -> None:
    world = await completed()
    lines = report(world.run).splitlines()
    assert lines[0].startswith(f"{NAMESPACE}/{NAME}: Complete after ")
    assert lines[2].split() == ["STAGE", "ATTEMPT", "TOOK", "STEPS", "RESULT"]
    assert [line.split()[0] for line in lines[3:6]] == ["prepare", "train", "evaluate"]
    assert "10 min 2 s" in lines[4]
    assert "0-50" in lines[4]
    assert all(line.endswith("Succeeded") for line in lines[3:6])
    cost = next(line for line in lines if line.startswith("Cost"))
    assert world.status.cost.display in cost
    assert f"{world.status.usage.gpu_hours} GPU-hours" in cost
    assert "at $3.60 (spec)" in cost
    assert "of $10" in cost
    score = next(index for index, line in enumerate(lines) if line.startswith("Score"))
    assert lines[score:] == [
        "Score  sums accuracy: 0.00 before, 0.90 ± 0.01 after training (100 questions)",
        "       Improved; 90 better, 0 worse; p < 0.0001; 95 % interval 0.826 to 0.945; 2 of 100 answers missing",
    ]
    assert world.condition("Evaluated").message == "sums 0.900 ± 0.010 (base model 0.000: Improved)"


async def test_report_says_why_a_run_failed_and_how_each_attempt_ended() -> None:
    world = World(retries={"maxRestarts": 0})
    await world.to_training()
    world.finish_pods(Stage.TRAIN, exit_code=1)
    await world.settle()
    text = report(world.run)
    assert "Failed after" in text.splitlines()[0]
    assert "BackoffLimitExceeded: 1 failures" in text
    assert "Failed (TrainerFailed)" in text


async def test_report_says_what_a_run_waits_for_when_it_was_not_accepted() -> None:
    world = World(budget={"usdPerGpuHour": None})
    await world.settle()
    assert "PriceUnknown: " in report(world.run)


async def test_report_of_a_new_run_is_short() -> None:
    assert report(World().run).splitlines() == [
        f"{NAMESPACE}/{NAME}: New",
        "",
        "Cost   $0.00 of $10: 0.000 GPU-hours",
    ]


async def test_report_shows_a_running_attempt() -> None:
    world = World()
    await world.to_training()
    (row,) = [line for line in report(world.run).splitlines() if line.startswith("train")]
    assert row.split() == ["train", "1", "running"]


async def test_summary_line_shows_progress_pods_money_and_score() -> None:
    world = World()
    await world.to_training()
    world.report(step=20)
    await world.after(60)
    line = summary_line(world.run)
    for part in ("Training", "40%", "step 20/50", "loss 1.5", "2/2 pods ready", "GPU-h", "of $10"):
        assert part in line
    done = summary_line((await completed()).run)
    assert done.startswith("Complete, ")
    assert "score 0.000 -> 0.900" in done
    assert "%" not in done


def test_table_aligns_its_columns() -> None:
    assert list(table([("A", "LONG"), ("wide", "x")])) == ["A     LONG", "wide  x"]


class Following:
    """``follow`` over answers in turn; the last one again and again."""

    def __init__(self, *answers: dict[str, Any] | Exception) -> None:
        self.answers = list(answers)
        self.said: list[str] = []

    async def get(self, **_: Any) -> dict[str, Any]:
        now = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(now, Exception):
            raise now
        return now

    async def follow(self, *, timeout_seconds: float = 30) -> Any:
        kube: Any = self
        return await watch.follow(
            kube, namespace=NAMESPACE, name=NAME, say=self.said.append, timeout_seconds=timeout_seconds
        )


@pytest.mark.parametrize("end", [COMPLETE, FAILED])
async def test_follow_says_each_change_once_and_returns_at_the_end(end: dict[str, Any]) -> None:
    it = Following(stored_run(), stored_run(), TRAINING, TRAINING, TRAINING, end)
    run = await it.follow()
    assert run.status.stage == end["status"]["stage"]
    assert [line.split("s  ", 1)[1].split(",")[0] for line in it.said] == ["New", "Training", end["status"]["stage"]]


async def test_follow_waits_out_a_lost_connection_and_says_so_once() -> None:
    down = Unavailable("connection refused")
    it = Following(TRAINING, down, down, down, TRAINING, COMPLETE)
    await it.follow()
    assert sum("connection refused" in line for line in it.said) == 1
    assert len(it.said) == 4


async def test_follow_shows_a_sign_of_life_when_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "QUIET_SECONDS", -1)
    it = Following(TRAINING, TRAINING, COMPLETE)
    await it.follow()
    assert sum("Training" in line for line in it.said) == 2


@pytest.mark.parametrize("error", [NotFound("gone"), Rejected("forbidden")])
async def test_follow_ends_when_there_is_nothing_to_wait_for(error: Exception) -> None:
    it = Following(TRAINING, error)
    with pytest.raises(type(error)):
        await asyncio.wait_for(it.follow(), timeout=10)


async def test_follow_gives_up_after_its_time_and_says_that_the_run_goes_on() -> None:
    it = Following(TRAINING)
    with pytest.raises(TimeoutError, match="it goes on"):
        await it.follow(timeout_seconds=0.02)


async def test_run_of_another_schema_is_an_error_in_words() -> None:
    it = Following({**TRAINING, "spec": {"colour": "red"}})
    with pytest.raises(InvalidResource, match="does not fit this version of rft"):
        await it.follow()


class Served:
    """An API server in a thread of its own, and a kubeconfig for it."""

    def __init__(self, folder: Path, *answers: Answer) -> None:
        self.api = WebApi(list(answers))
        self.file = folder / "kubeconfig"
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    async def _serve(self) -> None:
        async with serve(self.api) as url:
            context = {"cluster": "x", "user": "x", "namespace": "team"}
            content = {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "x", "cluster": {"server": url}}],
                "users": [{"name": "x", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": context}],
                "current-context": "x",
            }
            self.file.write_text(json.dumps(content))
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        self._loop.close()

    def rft(self, *arguments: str) -> tuple[int, str]:
        """Run the command line; return exit code and output."""
        done = CliRunner().invoke(main, [*arguments, "--kubeconfig", str(self.file)])
        return done.exit_code, done.output


@pytest.mark.parametrize(("end", "code"), [(COMPLETE, 0), (FAILED, 1)])
def test_watch_ends_with_the_run_and_prints_its_story(end: dict[str, Any], code: int, tmp_path: Path) -> None:
    with Served(tmp_path, answer(TRAINING), answer(end)) as it:
        exit_code, output = it.rft("watch", NAME)
    assert exit_code == code
    assert "Training" in output
    assert f"{NAMESPACE}/{NAME}: {end['status']['stage']}" in output


def test_report_is_of_the_namespace_of_the_context_unless_another_is_given(tmp_path: Path) -> None:
    with Served(tmp_path, answer(COMPLETE)) as it:
        assert it.rft("report", NAME)[0] == 0
        assert it.rft("report", NAME, "-n", "elsewhere")[0] == 0
    assert [seen.path.split("/")[5] for seen in it.api.requests] == ["team", "elsewhere"]


@pytest.mark.parametrize("command", ["watch", "report"])
def test_unknown_run_is_one_line_and_another_exit_code_than_a_failed_one(command: str, tmp_path: Path) -> None:
    with Served(tmp_path, failure(404, 'reasoningfinetunes "demo" not found')) as it:
        exit_code, output = it.rft(command, NAME)
    assert exit_code == 2
    assert output.startswith("Error: ")
    assert 'reasoningfinetunes "demo" not found' in output
    assert len(output.splitlines()) == 1


def test_missing_kubeconfig_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["report", NAME, "--kubeconfig", str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "KUBECONFIG" in done.output
    assert len(done.output.splitlines()) == 1


def test_help_names_all_commands_and_local_only_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    words = CliRunner().invoke(main, ["--help"]).output
    for command in ("watch", "report", "local"):
        assert f"\n  {command} " in words
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "\n  local " not in CliRunner().invoke(main, ["--help"]).output
    assert CliRunner().invoke(main, ["local"]).exit_code == 2


def test_version_is_the_packages() -> None:
    done = CliRunner().invoke(main, ["--version"])
    assert done.output.startswith("rft, version ")
