"""Pictures of a sweep lie beside its results, and no evaluation fails for want of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rft_trainer.benchmarks import Question
from rft_trainer.contract import EvaluationConfig
from rft_trainer.evaluate.forcing import S1
from rft_trainer.evaluate.plots import write_plots
from rft_trainer.evaluate.protocol import Exam
from rft_trainer.evaluate.runner import Model
from rft_trainer.evaluate.session import Candidate, Session
from rft_trainer.evaluate.stopping import Stop
from rft_trainer.report import Work
from support.scripted_engine import EOS, ScriptedSampler

POINTS = [
    {"setting": f"think={tokens}", "thinking_tokens": tokens, "value": value, "stderr": 0.05}
    for tokens, value in ((12.0, 0.1), (60.0, 0.9))
]


def curve(benchmark: str, **changes: Any) -> dict[str, Any]:
    return {"benchmark": benchmark, "of": "trained", "points": POINTS, **changes}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "plots").glob("*"))


def test_each_benchmark_has_its_picture_and_all_have_one_together(tmp_path: Path) -> None:
    write_plots([curve("sums"), curve("sums", of="base"), curve("others")], tmp_path)
    assert names(tmp_path) == ["scaling-others.svg", "scaling-sums.svg", "scaling.svg"]
    alone = (tmp_path / "plots" / "scaling-sums.svg").read_text()
    assert "sums (base model)" in alone
    assert "others" not in alone
    assert "others" in (tmp_path / "plots" / "scaling.svg").read_text()


def test_picture_goes_when_the_results_do_not_have_its_curve_any_more(tmp_path: Path) -> None:
    write_plots([curve("sums"), curve("others")], tmp_path)
    write_plots([curve("sums")], tmp_path)
    assert names(tmp_path) == ["scaling-sums.svg", "scaling.svg"]
    write_plots([], tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("broken", ["folder", "points"])
def test_pictures_are_left_out_with_a_word_when_they_cannot_be_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    if broken == "folder":
        (tmp_path / "plots").write_text("a file")
        write_plots([curve("sums")], tmp_path)
    else:
        write_plots([curve("sums", points=[{}, {}])], tmp_path)
    assert "plots: not drawn" in capsys.readouterr().err


def test_sweep_leaves_its_pictures_beside_its_results(tmp_path: Path) -> None:
    config = EvaluationConfig.model_validate(
        {
            "benchmarks": [{"name": "sums", "uri": "file:///a", "max_tokens": 30}],
            "baseline": "none",
            "batch_size": 4,
            "max_seconds": 1,
            "budget_forcing": {"waits": [0], "max_thinking_tokens": 20, "sweep_thinking_tokens": [4]},
        }
    )
    questions = {"sums": [Question("1", "q1", "42", "integer")]}
    said = [f" {number}" for number in range(10)]
    called = f"{S1.start}{''.join(said[:4])}\n{S1.end}\nFinal Answer:"
    script = {S1.start: [*said, S1.stops[0]], S1.end: ["\nAnswer: 42", EOS], called: [" 7", EOS]}
    engine = ScriptedSampler(script)
    session = Session(
        exam=Exam(evaluation=config, format="s1", questions=questions),
        directory=tmp_path,
        artifacts="x",
        stop=Stop(),
        work=Work(None),
        baselines=tmp_path / "none",
    )
    model = Model("step-1", sampler=engine, render=lambda turns: f"{turns[-1].content} ")
    session.run(Candidate(name="step-1", fingerprint="f", load=lambda: model), None)
    assert (tmp_path / "results.json").is_file()
    assert names(tmp_path) == ["scaling-sums.svg", "scaling.svg"]
