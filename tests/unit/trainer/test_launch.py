"""Process 1: what it makes of its children's ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rft_trainer.contract import ExitCode, Outcome, Stage
from rft_trainer.files import write_json
from rft_trainer.launch import child as children
from rft_trainer.launch import commands
from rft_trainer.launch import main as supervisor
from rft_trainer.launch.child import Child, become_subreaper, descendants_of
from rft_trainer.launch.commands import stage_command, stage_environment
from rft_trainer.launch.gang import Gang
from rft_trainer.launch.output import LONGEST_LINE_BYTES, make_pipes
from rft_trainer.launch.verdict import judge
from rft_trainer.paths import Layout
from rft_trainer.results import read_result, write_result
from rft_trainer.stage_main import report_error
from rft_trainer.stage_results import StageResult, TrainSummary
from rft_trainer.train.heartbeat import Heartbeat
from unit.trainer.factory import Pod, run_config, wait_until


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


def verdict(layout: Layout, code: str) -> tuple[StageResult, int]:
    return judge(Stage.TRAIN, layout, child=ended(code), stop_asked=False, killed=False)


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


@pytest.mark.parametrize(
    ("stage", "phase", "checkpoint", "code", "words"),
    [
        (Stage.TRAIN, "drain", 5, 76, "before a checkpoint was saved; raise checkpoint.graceSeconds"),
        (Stage.TRAIN, "load", None, 76, "in the phase load, which the next attempt repeats"),
        (Stage.TRAIN, "load", 5, 75, "in the phase load, which the next attempt repeats"),
        (Stage.TRAIN, "export", 9, 75, "in the phase export, which the next attempt repeats"),
        (
            Stage.PREPARE,
            None,
            None,
            76,
            "before the stage could stop; the next attempt repeats what is not on the volume",
        ),
    ],
)
def test_verdict_says_what_is_lost_when_the_grace_period_ends(
    layout: Layout, stage: Stage, phase: str | None, checkpoint: int | None, code: int, words: str
) -> None:
    if phase is not None:
        Heartbeat(layout, rank=0).beat(phase, "step 9")
        summary = TrainSummary(step=9, total_steps=9, tokens=1, checkpoint_step=checkpoint)
        write_json(layout.progress_file, {"summary": summary.model_dump()})
    result, given = judge(stage, layout, child=ended("pass"), stop_asked=True, killed=True)
    assert (result.outcome, given, result.error) == (Outcome.DRAINED, code, f"the grace period ended {words}")


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


@pytest.mark.parametrize(
    ("stage", "gpus", "given", "threads"),
    [
        (Stage.TRAIN, True, {}, "12"),
        (Stage.TRAIN, True, {"OMP_NUM_THREADS": "3"}, "3"),
        (Stage.TRAIN, False, {}, "1"),
        (Stage.EVALUATE, True, {}, "1"),
    ],
)
def test_rank_has_its_share_of_the_processors_when_offload_may_update_weights_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage, gpus: bool, given: dict[str, str], threads: str
) -> None:
    monkeypatch.setattr(commands, "gpus_visible", lambda: gpus)
    monkeypatch.setattr(commands, "processors", lambda: 96)
    environment = stage_environment({"TMPDIR": str(tmp_path), **given}, stage=stage, ranks=8)
    assert environment["OMP_NUM_THREADS"] == threads


def test_supervisor_leaves_a_result_when_a_volume_fails_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    monkeypatch.setattr(supervisor, "run", fail)
    assert supervisor.main(["train", "--root", str(tmp_path)]) == 1
    layout = Layout(tmp_path)
    result = read_result(layout.result_file, stage=Stage.TRAIN)
    assert result is not None
    assert (result.outcome, result.error) == (Outcome.FAILED, "OSError: [Errno 116] Stale file handle")
    assert b"Stale file handle" in layout.termination_log.read_bytes()


EARLY = """
import os, signal, sys
class AskedToStop:
    def find_spec(self, name, path=None, target=None):
        if name == "rft_trainer.launch.main":
            os.kill(os.getpid(), signal.SIGTERM)
sys.meta_path.insert(0, AskedToStop())
from rft_trainer.launch.entry import main
sys.exit(main())
"""


def test_stop_is_not_lost_when_it_is_asked_for_while_libraries_load(tmp_path: Path) -> None:
    pod = Pod(tmp_path, run_config(nodes=2), hosts="localhost slots=1\nno.such.host slots=1\n")
    command = [sys.executable, "-c", EARLY, "train", "--root", str(tmp_path)]
    done = subprocess.run(command, env={**os.environ, "RFT_GRACE_SECONDS": "60"}, timeout=60)
    assert done.returncode == ExitCode.DRAINED_WITHOUT_CHECKPOINT
    assert "stopped while waiting for the training gang" in str(pod.result().error)


def test_last_words_are_said_within_the_grace_when_a_process_cannot_be_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that waits for a disk that is gone: no signal ends it, and the kubelet kills us when the grace is over."""
    said: list[float] = []

    def stopped(child: Child, stop: supervisor.StopRequest, _: object) -> tuple[bool, None]:
        signal.raise_signal(signal.SIGTERM)
        said.append(time.monotonic())
        wait_until(lambda: child.poll() or stop.overdue(), timeout_seconds=20)
        return True, None

    others = children.descendants_of
    monkeypatch.setattr(children, "descendants_of", lambda ancestor: [*others(ancestor), 2**22 - 1])
    monkeypatch.setattr(
        supervisor, "stage_command", lambda *_, **__: [sys.executable, "-c", "import time; time.sleep(9)"]
    )
    monkeypatch.setattr(supervisor, "_watch", stopped)
    monkeypatch.setenv(supervisor.ENV_GRACE_SECONDS, "5")
    pod = Pod(tmp_path, run_config())
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert supervisor.main(["prepare", "--root", str(tmp_path)]) == ExitCode.DRAINED_WITHOUT_CHECKPOINT
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert time.monotonic() - said[0] < 5
    assert pod.result().outcome is Outcome.DRAINED


def test_ranks_are_asked_to_stop_as_soon_as_the_disk_of_the_node_has_room_for_it(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that evicts its pods because its disk is full; what is trained is on another one."""
    touch, tries = Path.touch, iter([OSError(errno.ENOSPC, "No space left on device")])

    def full_at_first(path: Path) -> None:
        for error in tries:
            raise error
        touch(path)

    monkeypatch.setattr(Path, "touch", full_at_first)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        stop = supervisor.StopRequest(layout, grace_seconds=60, early=[signal.SIGTERM])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert stop.asked()
    assert not layout.stop_file.exists()
    assert not stop.overdue()
    assert layout.stop_file.exists()


def test_last_words_are_said_when_only_the_result_finds_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(supervisor, "run", lambda *_: (StageResult(stage=Stage.TRAIN, outcome=Outcome.DRAINED), 75))
    monkeypatch.setattr(supervisor, "write_result", full)
    assert supervisor.main(["train", "--root", str(tmp_path)]) == ExitCode.DRAINED
    assert b"drained" in Layout(tmp_path).termination_log.read_bytes()


RANK = """
import os, sys, threading
from pathlib import Path
from rft_trainer.launch.output import speak_as_rank
from rft_trainer.paths import Layout
rank = int(sys.argv[2])
speak_as_rank(Layout(Path(sys.argv[1])), rank=rank)
def say(descriptor):
    for number in range(200):
        for part in (b"line ", b"%d " % number, b"of ", b"%d" % descriptor, b"\\n"):
            os.write(descriptor, part)
threads = [threading.Thread(target=say, args=(descriptor,)) for descriptor in (1, 2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
os.write(2, b"[rank%d]: ValueError: the cause\\n" % rank)
os.write(1, b"last words")
"""
LAUNCHER = """
import os, signal, subprocess, sys
print("the launcher speaks")
ranks = [subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2], rank]) for rank in ("2", "3")]
if len(sys.argv) > 3:
    os.kill(os.getpid(), signal.SIGKILL)
[rank.wait() for rank in ranks]
"""


@pytest.mark.parametrize("dies", [False, True])
def test_lines_of_ranks_come_out_whole_with_their_rank_when_all_speak_at_once(
    layout: Layout, dies: bool, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    become_subreaper()
    pipes = make_pipes(layout, range(2, 4))
    command = [sys.executable, "-u", "-c", LAUNCHER, RANK, str(layout.root), *(["dies"] if dies else [])]
    child = Child(command, environment=dict(os.environ), ranks=pipes)
    said: list[bytes] = []

    def all_said() -> bool:
        said.append(capfdbinary.readouterr().out)
        child.poll()
        return b"".join(said).count(b"the cause") == 2

    wait_until(all_said, timeout_seconds=30, what="the end of both ranks")
    wait_until(lambda: child.poll() and not any(waiting(rank) for rank in (2, 3)), what="the end of the processes")
    child.kill()
    said.append(capfdbinary.readouterr().out)
    lines = b"".join(said).decode().splitlines()
    for rank in (2, 3):
        for descriptor in (1, 2):
            wanted = [f"[rank {rank}] line {number} of {descriptor}" for number in range(200)]
            assert [line for line in lines if line.endswith(f"of {descriptor}") and f"k {rank}]" in line] == wanted
        assert f"[rank {rank}] ValueError: the cause" in lines
        assert f"[rank {rank}] last words" in lines
    assert "the launcher speaks" in lines
    assert len(lines) == 2 * 402 + 1
    assert child.error_line == "ValueError: the cause"


NOISE = """
import sys
from pathlib import Path
pipes = Path(sys.argv[1])
(pipes / "rank-2.stderr").open("wb", buffering=0).write(b"ValueError: the cause\\n")
(pipes / "rank-3.stdout").open("w").write("a step\\n" * 1000)
"""


def test_error_of_a_rank_is_not_lost_among_what_the_others_say_after_it(layout: Layout) -> None:
    become_subreaper()
    pipes = make_pipes(layout, range(2, 4))
    command = [sys.executable, "-c", NOISE, str(layout.output)]
    child = Child(command, environment=dict(os.environ), ranks=pipes)
    wait_until(child.poll, timeout_seconds=20)
    child.kill()
    assert child.error_line == "ValueError: the cause"


def waiting(rank: int) -> bool:
    """Whether a rank of the test still runs."""
    return any(
        f"\0{rank}\0" in text and "speak_as_rank" in text
        for pid in descendants_of(os.getpid())
        if (text := Path(f"/proc/{pid}/cmdline").read_text(errors="replace"))
    )


def test_line_comes_out_in_parts_when_it_has_no_end(layout: Layout, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    child = ended(f"import sys; sys.stdout.write('x' * {3 * LONGEST_LINE_BYTES})")
    lines = capfdbinary.readouterr().out.splitlines()
    assert sum(map(len, lines)) == 3 * LONGEST_LINE_BYTES
    assert 3 <= len(lines) <= 4
    assert child.returncode == 0


def test_rank_speaks_where_it_did_before_when_nobody_reads_its_pipes(layout: Layout) -> None:
    make_pipes(layout, [2])
    done = subprocess.run(
        [sys.executable, "-c", RANK, str(layout.root), "2"], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.endswith("last words")


def test_ranks_of_a_pod_follow_those_of_the_pods_before_it() -> None:
    gang = Gang(hosts=("a", "b", "c"), slots=(8, 4, 8), node_rank=1, port=1, ticket="t")
    assert list(gang.ranks) == [8, 9, 10, 11]
