"""Process 1: what it makes of its children's ends."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rft_trainer.contract import ExitCode, Outcome, Stage
from rft_trainer.launch.child import Child, become_subreaper, descendants_of
from rft_trainer.launch.commands import stage_command, stage_environment
from rft_trainer.launch.gang import Gang
from rft_trainer.launch.verdict import judge
from rft_trainer.paths import Layout
from rft_trainer.results import write_result
from rft_trainer.stage_main import report_error
from rft_trainer.stage_results import StageResult, TrainSummary
from unit.trainer.factory import wait_until


@pytest.fixture(autouse=True)
def others_live_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 ends all that is left in its pod; here it is the whole test session, with clusters below it."""
    before = set(descendants_of(os.getpid()))

    def own(ancestor: int) -> list[int]:
        return [pid for pid in descendants_of(ancestor) if pid not in before]

    monkeypatch.setattr("rft_trainer.launch.child.descendants_of", own)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.run.mkdir()
    return layout


def ended(code: str) -> Child:
    child = Child([sys.executable, "-c", code], environment=dict(os.environ))
    wait_until(child.poll, timeout_seconds=20)
    child.kill()
    return child


def verdict(layout: Layout, code: str, *, stop_asked: bool = False) -> tuple[StageResult, int]:
    return judge(Stage.TRAIN, layout, child=ended(code), stop_asked=stop_asked, killed=False)


def test_code_0_is_a_failure_when_no_result_was_written(layout: Layout) -> None:
    result, code = verdict(layout, "print('bye')")
    assert (result.outcome, code) == (Outcome.FAILED, 1)
    assert "left no result; last line: bye" in str(result.error)


def test_result_of_another_stage_does_not_count_when_it_says_completed(layout: Layout) -> None:
    write_result(layout.result_file, StageResult(stage=Stage.PREPARE, outcome=Outcome.COMPLETED))
    assert verdict(layout, "pass")[0].outcome is Outcome.FAILED


def test_stage_is_done_when_its_own_result_says_completed(layout: Layout) -> None:
    write_result(layout.result_file, StageResult(stage=Stage.TRAIN, outcome=Outcome.COMPLETED))
    assert verdict(layout, "raise SystemExit(1)")[1] == ExitCode.DONE


@pytest.mark.parametrize(("saved", "code"), [(7, ExitCode.DRAINED), (None, ExitCode.DRAINED_WITHOUT_CHECKPOINT)])
def test_drain_says_whether_a_checkpoint_was_saved_when_it_ends(
    layout: Layout, saved: int | None, code: ExitCode
) -> None:
    train = TrainSummary(step=7, total_steps=9, tokens=1, checkpoint_step=saved)
    write_result(layout.result_file, StageResult(stage=Stage.TRAIN, outcome=Outcome.DRAINED, train=train))
    assert verdict(layout, "raise SystemExit(75)")[1] == code


def test_error_names_the_first_rank_that_failed_when_others_followed(layout: Layout) -> None:
    report_error(layout, rank=3, text="ValueError: the cause")
    report_error(layout, rank=0, text="RuntimeError: peer closed")
    result, code = verdict(layout, "raise SystemExit(1)")
    assert (result.error, code) == ("rank 3: ValueError: the cause", 1)


def test_error_is_the_exception_line_when_no_rank_could_report(layout: Layout) -> None:
    result, code = verdict(layout, "import sys; sys.stderr.write('KeyError: x\\nmore\\n'); sys.exit(3)")
    assert (result.error, code) == ("KeyError: x", 3)


def test_error_names_memory_when_the_kernel_killed_a_rank(layout: Layout) -> None:
    result, code = verdict(layout, "import sys; sys.exit(247)")
    assert code == 247
    assert "SIGKILL, which is how the kernel ends a process that is out of memory" in str(result.error)


@pytest.mark.parametrize("code", [75, 76])
def test_drain_code_is_a_failure_when_no_result_stands_behind_it(layout: Layout, code: int) -> None:
    assert verdict(layout, f"raise SystemExit({code})")[1] == 1


def test_no_process_is_left_when_the_child_leaves_orphans() -> None:
    become_subreaper()
    before = set(descendants_of(os.getpid()))
    orphan = f"import subprocess; subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(600)'])"
    child = Child([sys.executable, "-c", orphan], environment=dict(os.environ))
    wait_until(child.poll, timeout_seconds=20)
    assert set(descendants_of(os.getpid())) - before
    child.kill()
    assert child.returncode == 0
    assert not set(descendants_of(os.getpid())) - before


def test_training_goes_through_the_node_launcher_when_the_command_is_made(tmp_path: Path) -> None:
    gang = Gang(hosts=("a", "b"), slots=(1, 1), node_rank=1, port=29500, ticket="t")
    command = stage_command(Stage.TRAIN, root=tmp_path, gang=gang)
    assert command[1:3] == ["-m", "deepspeed.launcher.launch"]
    assert "--node_rank=1" in command
    assert "--master_addr=a" in command
    assert command[-3:] == ["rft_trainer.train.main", "--root", str(tmp_path)]


def test_caches_are_writable_when_home_is_missing(tmp_path: Path) -> None:
    environment = stage_environment({"TMPDIR": str(tmp_path), "HF_HOME": "/given"}, stage=Stage.PREPARE)
    assert environment["HF_HOME"] == "/given"
    for name in ("HOME", "TRITON_CACHE_DIR", "TORCH_EXTENSIONS_DIR"):
        assert Path(environment[name]).is_dir()
        assert Path(environment[name]).is_relative_to(tmp_path)


def test_ranks_do_not_load_the_compiler_when_the_user_does_not_ask_for_it(tmp_path: Path) -> None:
    given = {"TMPDIR": str(tmp_path)}
    assert stage_environment(given, stage=Stage.TRAIN)["TORCHDYNAMO_DISABLE"] == "1"
    assert stage_environment({**given, "TORCHDYNAMO_DISABLE": "0"}, stage=Stage.TRAIN)["TORCHDYNAMO_DISABLE"] == "0"
    assert "TORCHDYNAMO_DISABLE" not in stage_environment(given, stage=Stage.EVALUATE)
