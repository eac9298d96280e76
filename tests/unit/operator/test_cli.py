"""What people read of a run: its story, its figures, the live table."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from rft_operator.api.resource import ReasoningFinetune
from rft_operator.cli import board
from rft_operator.cli.figures import summary_line
from rft_operator.cli.live import LiveTable, drawn
from rft_operator.cli.output import age, span, table
from rft_operator.cli.report import report
from rft_operator.domain.figures import figures
from rft_operator.domain.timestamps import epoch
from rft_trainer.contract import Stage
from support.builders import NAME, NAMESPACE
from support.command_line import TIME, TRAINING, run_in
from support.stage import World


async def completed() -> World:
    world = World()
    await world.to_training()
    world.report(step=20)
    await world.after(600)
    await world.to_evaluation(seconds=100)
    world.complete(Stage.EVALUATE)
    await world.settle()
    return world


async def test_report_tells_stages_gpu_hours_dollars_and_scores_of_a_completed_run() -> None:
    world = await completed()
    lines = report(world.run).splitlines()
    assert lines[0].startswith(f"{NAMESPACE}/{NAME}: Complete after ")
    assert lines[1] == f"  Succeeded: {world.condition('Complete').message}"
    assert lines[3].split() == ["STAGE", "ATTEMPT", "TOOK", "STEPS", "RESULT"]
    assert [line.split()[0] for line in lines[4:7]] == ["prepare", "train", "evaluate"]
    assert "10 min 2 s" in lines[5]
    assert "0-50" in lines[5]
    assert all(line.endswith("Succeeded") for line in lines[4:7])
    cost = next(line for line in lines if line.startswith("Cost"))
    assert world.status.cost.display in cost
    assert f"{world.status.usage.gpu_hours} GPU-hours" in cost
    assert "at $3.60 (spec)" in cost
    assert "of $10" in cost
    score = next(index for index, line in enumerate(lines) if line.startswith("Score"))
    assert lines[score:] == [
        "Score  sums accuracy: 0.00 before, 0.90 ± 0.01 after training (100 questions)",
        "       Improved; 90 better, 0 worse; p < 0.0001; 95 % interval 0.826 to 0.945",
        "       2 of 100 without an answer",
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
    world.report(step=20, eta_seconds=300)
    await world.after(60)
    line = summary_line(world.run, now=world.now)
    assert line == (
        "Training, 40% step 20/50 loss 1.5, ETA 4 min 0 s, 2/2 pods ready, 0.034 GPU-h, $0.13 of $10.00, $7.20/h, "
        "stop line in 75 min 19 s"
    )
    done = summary_line((await completed()).run, now=world.now)
    assert done.startswith("Complete, ")
    assert "score 0.000 -> 0.900" in done
    assert "%" not in done


def test_table_aligns_its_columns() -> None:
    assert list(table([("A", "LONG"), ("wide", "x")])) == ["A     LONG", "wide  x"]


async def test_figures_go_on_between_two_writes_of_the_operator() -> None:
    world = World()
    await world.to_training()
    world.report(step=20, eta_seconds=300)
    await world.after(60)
    early, late = figures(world.run, now=world.now), figures(world.run, now=world.now + 5)
    assert late.spent_micro_usd - early.spent_micro_usd == 5 * 2 * 1_000
    assert (early.stop_in_seconds or 0) - (late.stop_in_seconds or 0) == 5
    assert (early.eta_seconds or 0) - (late.eta_seconds or 0) == 5


@pytest.mark.parametrize(
    ("seconds", "shown", "words"),
    [
        (0, "0s", "0 s"),
        (119, "119s", "119 s"),
        (200, "3m20s", "3 min 20 s"),
        (3_600, "60m", "60 min 0 s"),
        (12_000, "3h20m", "3 h 20 min"),
        (100_000, "27h", "27 h 46 min"),
        (864_000, "10d", "240 h 0 min"),
    ],
)
def test_durations_are_short_in_tables_and_words_in_sentences(seconds: int, shown: str, words: str) -> None:
    assert (age(seconds), span(seconds)) == (shown, words)


def test_lines_show_a_sign_of_life_when_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    lines = board.Lines(said.append)
    runs = {(NAMESPACE, NAME): ReasoningFinetune.parse(run_in(status=TRAINING))}
    lines.show(runs, now=epoch(TIME))
    lines.show(runs, now=epoch(TIME))
    assert len(said) == 1
    monkeypatch.setattr(board, "QUIET_SECONDS", -1)
    lines.show(runs, now=epoch(TIME))
    assert len(said) == 2


async def test_live_table_draws_work_money_and_the_stop_line() -> None:
    world = World()
    await world.to_training()
    world.report(step=20, eta_seconds=300)
    await world.after(60)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160, color_system=None)
    with LiveTable(console) as view:
        view.show({world.run.key: world.run}, now=world.now)
        view.trouble("the API server does not answer")
        view.show({world.run.key: world.run}, now=world.now)
    shown = screen.getvalue()
    for part in (
        "PROGRESS", " 40%", "step 20/50", "loss 1.5", "4m", "2/2", "$7.20", "$0.13 of $10.00", "in 75m",
        "the API server does not answer",
    ):  # fmt: skip
        assert part in shown, part


@pytest.mark.parametrize(
    ("width", "there", "absent"),
    [
        (150, ["step 20/50", "loss 1.5"], []),
        (110, [" 40%", "━"], ["step 20/50"]),
        (80, [" 40%", "$0.13 of $10.00", "2/2"], ["━"]),
        (60, [" 40%", "$0.13 of $10.00", "in 75m"], ["2/2"]),
        (40, ["Training", "$0.13 of $10.00"], [" 40%"]),
    ],
)
async def test_live_table_shows_less_on_a_narrow_terminal_and_cuts_nothing(
    width: int, there: list[str], absent: list[str]
) -> None:
    world = World()
    await world.to_training()
    world.report(step=20, eta_seconds=300)
    await world.after(60)
    screen = io.StringIO()
    with LiveTable(Console(file=screen, force_terminal=True, width=width, color_system=None)) as view:
        view.show({world.run.key: world.run}, now=world.now)
    shown = screen.getvalue()
    assert all(part in shown for part in there)
    assert not any(part in shown for part in [*absent, "…"])


async def test_live_table_goes_on_in_the_next_line_where_a_name_is_long() -> None:
    world = World()
    await world.to_training()
    found = replace(figures(world.run, now=world.now), name="x" * 60)
    screen = io.StringIO()
    Console(file=screen, width=40, color_system=None).print(drawn([found], width=40))
    shown = screen.getvalue()
    assert shown.count("x") == 60
    assert "SPENT OF LIMIT" in shown
    assert " of $10.00" in shown


async def test_live_table_says_why_a_run_does_not_go_on() -> None:
    world = World(budget={"usdPerGpuHour": None})
    await world.settle()
    screen = io.StringIO()
    with LiveTable(Console(file=screen, force_terminal=True, width=200, color_system=None)) as view:
        view.show({world.run.key: world.run}, now=world.now)
    assert "demo: PriceUnknown: " in screen.getvalue()
