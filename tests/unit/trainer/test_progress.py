"""What rank 0 says: the meter's numbers, a line a step, the report's metrics."""

from __future__ import annotations

import datetime
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rft_trainer.contract import CheckpointConfig
from rft_trainer.progress_report import TrainerStatus
from rft_trainer.train.checkpoint import Checkpoint
from rft_trainer.train.progress import Meter, Progress, StepFacts

FACTS = StepFacts(tokens=80, computed_tokens=100, loss=2.0, loss_max=2.5, seconds=0.5, mfu=0.4, slow=(3, 1.6))


class Reports:
    """A reporter that keeps what it is given."""

    def __init__(self) -> None:
        self.newest: TrainerStatus | None = None

    def update(self, status: TrainerStatus) -> None:
        self.newest = status

    def close(self) -> None:
        pass

    def metrics(self) -> dict[str, str]:
        assert self.newest is not None
        return {metric.name: metric.value for metric in self.newest.metrics}


def progress(meter: Meter, folder: Path, *, reports: Reports | None = None, active: bool = True) -> Progress:
    return Progress(
        meter,
        path=folder / "progress.json",
        steps=folder / "steps.jsonl",
        active=active,
        reporter=reports,  # type: ignore[arg-type] # a stand-in
    )


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]


def test_meter_smooths_speeds_and_counts_padding_when_steps_differ() -> None:
    meter = Meter(total_steps=12)
    assert (meter.padding_share, meter.mfu) == (None, None)
    meter.record_step(replace(FACTS, seconds=60.0, mfu=0.01))
    assert meter.remaining_seconds() == 660
    meter.record_step(FACTS)
    assert (meter.tokens_per_second, meter.step_seconds, meter.mfu) == (160.0, 0.5, 0.4), "the first made much ready"
    last = StepFacts(tokens=100, computed_tokens=100, loss=1.0, loss_max=1.2, seconds=1.5, mfu=0.2, slow=None)
    meter.record_step(last)
    assert meter.step_seconds == pytest.approx(1.0)
    assert meter.mfu == pytest.approx(0.3)
    assert meter.padding_share == pytest.approx(1 - 260 / 300)
    assert meter.remaining_seconds() == 9
    assert (meter.step, meter.tokens, meter.loss, meter.slow) == (3, 260, 1.0, None)
    for _ in range(9):
        meter.record_step(FACTS)
    assert meter.step_seconds == pytest.approx((0.5 + 1.5 + 8 * 0.5) / 10 * 0.9 + 0.05)


@pytest.mark.parametrize(
    ("every_minutes", "every_steps", "saved_at", "seconds"),
    [
        (10, None, 0, 5_000),
        (10, None, 100, 5_000 + 8 * 200 + 200),
        (600, None, 100, 5_000 + 200),
        (600, 40, 100, 5_000 + 2 * 200 + 200),
        (600, 25, 100, 5_000 + 3 * 200 + 200),
        (10, None, 200, 0),
    ],
    ids=["no save yet", "by time", "the last alone", "by steps", "the last step is saved once", "all is done"],
)
def test_time_to_the_end_has_the_saves_on_the_way_in_it(
    every_minutes: int, every_steps: int | None, saved_at: int, seconds: int
) -> None:
    rules = CheckpointConfig(every_minutes=every_minutes, every_steps=every_steps, keep_last=1, resume="latest")
    meter = Meter(total_steps=200, saves=rules, step=199 if saved_at == 200 else 99)
    meter.record_step(replace(FACTS, seconds=50.0))
    if saved_at:
        meter.checkpoint = Checkpoint(Path("x"), saved_at, 1, 2, "", "2026-01-01T00:00:00Z", 200.0)
    assert meter.remaining_seconds() == seconds


def test_report_has_every_metric_when_all_are_known(tmp_path: Path) -> None:
    meter, reports = Meter(total_steps=4), Reports()
    saved = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=100)
    meter.checkpoint = Checkpoint(tmp_path, 1, 80, 2, "a", saved.strftime("%Y-%m-%dT%H:%M:%SZ"), 2.5)
    meter.record_step(FACTS)
    progress(meter, tmp_path, reports=reports).tell("train", force=True)
    metrics = reports.metrics()
    assert 100 <= int(metrics.pop("checkpoint_age_seconds")) < 200
    assert metrics.pop("checkpoint_time") == meter.checkpoint.time
    assert metrics == {
        "phase": "train",
        "step": "1",
        "total_steps": "4",
        "epoch": "0.0000",
        "loss": "2.000000",
        "loss_max": "2.500000",
        "learning_rate": "0",
        "tokens_per_second": "160.0",
        "mfu": "0.4000",
        "padding_share": "0.2000",
        "slow_rank": "3",
        "slow_ratio": "1.60",
        "checkpoint_step": "1",
        "checkpoint_seconds": "2.500",
    }
    written = json.loads((tmp_path / "progress.json").read_bytes())
    assert (written["loss_max"], written["mfu"], written["padding"], written["slow_rank"]) == (2.5, 0.4, 0.2, 3)


def test_report_leaves_out_what_nobody_knows(tmp_path: Path) -> None:
    reports = Reports()
    progress(Meter(total_steps=4), tmp_path, reports=reports).tell("load", force=True)
    assert reports.metrics().keys() == {
        "phase", "step", "total_steps", "epoch", "learning_rate", "tokens_per_second",
    }  # fmt: skip


def test_every_step_stands_once_when_steps_are_repeated_after_a_resume(tmp_path: Path) -> None:
    first = Meter(total_steps=9)
    told = progress(first, tmp_path)
    told.begin()
    for _ in range(5):
        first.record_step(FACTS)
        told.tell("train", step_ended=True)
    told.close()
    with (tmp_path / "steps.jsonl").open("a") as stream:
        stream.write('{"step": 6, "lo')
    second = Meter(total_steps=9, step=3)
    told = progress(second, tmp_path)
    told.begin()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]
    second.record_step(FACTS)
    told.tell("train", step_ended=True)
    told.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4]
    assert lines(tmp_path)[-1].items() >= {"loss": 2.0, "loss_max": 2.5, "tok_s": 160.0, "padding": 0.2}.items()


@pytest.mark.parametrize(("step", "wanted"), [(0, None), (3, None), (9, 0)])
def test_time_left_is_not_told_before_a_step_was_timed(tmp_path: Path, step: int, wanted: int | None) -> None:
    reports = Reports()
    progress(Meter(total_steps=9, step=step), tmp_path, reports=reports).tell("load", force=True)
    assert reports.newest is not None
    assert reports.newest.estimated_remaining_seconds == wanted
    assert json.loads((tmp_path / "progress.json").read_bytes())["eta_s"] == wanted


def test_other_ranks_say_nothing(tmp_path: Path) -> None:
    meter = Meter(total_steps=2)
    told = progress(meter, tmp_path, active=False)
    told.begin()
    meter.record_step(FACTS)
    told.tell("train", force=True, step_ended=True)
    told.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_every_line_is_json_when_a_number_is_not_finite(
    number: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meter, reports = Meter(total_steps=2, gradient_norm=number), Reports()
    telling = progress(meter, tmp_path, reports=reports)
    telling.begin()
    meter.record_step(replace(FACTS, loss=number, loss_max=number))
    telling.tell("train", step_ended=True, force=True)
    telling.close()

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    for text in (tmp_path / "progress.json", tmp_path / "steps.jsonl"):
        assert json.loads(text.read_text(), parse_constant=refuse)["loss"] is None
    assert json.loads(capsys.readouterr().out, parse_constant=refuse)["grad_norm"] is None
    assert not {"loss", "loss_max", "grad_norm"} & reports.metrics().keys()
    assert meter.summary().loss is None


def test_new_phase_is_told_at_once_when_another_was_told_a_moment_ago(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    telling = progress(Meter(total_steps=2), tmp_path)
    for phase in ("save", "train", "train", "save"):
        telling.tell(phase)
    assert [json.loads(line)["phase"] for line in capsys.readouterr().out.splitlines()] == ["save", "train", "save"]


def test_training_goes_on_when_what_it_tells_finds_no_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meter = Meter(total_steps=2)
    telling = progress(meter, tmp_path / "gone")
    telling._steps = Path("/dev/full").open("a", buffering=1)  # noqa: SIM115 - it is closed below
    meter.record_step(FACTS)
    telling.tell("train", step_ended=True, force=True)
    telling.close()
    assert json.loads(capsys.readouterr().out)["step"] == 1


def test_lines_that_a_lost_node_left_spoiled_are_not_kept(tmp_path: Path) -> None:
    (tmp_path / "steps.jsonl").write_bytes(b'{"step": 1}\n\x00\x00\xff\n{"step": "x"}\n[]\n{"step": 2}\n')
    telling = progress(Meter(total_steps=9, step=3), tmp_path)
    telling.begin()
    telling.close()
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
