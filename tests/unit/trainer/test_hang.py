"""Heartbeats, and what a silent one means; the clock is ours."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rft_trainer.contract import RunConfig
from rft_trainer.launch import hang as hangs
from rft_trainer.launch.hang import Beat, Hang, HangWatch, process_state, secure_evidence
from rft_trainer.paths import Layout
from rft_trainer.train.heartbeat import Heartbeat, flight_record, last_collectives
from unit.trainer.factory import run_config, wait_until

CONFIG = run_config(stall_seconds=100, startup_seconds=300)


class Ranks:
    """Two ranks of a pod, and a clock that only we move."""

    def __init__(self, layout: Layout) -> None:
        self.now = 0.0
        self.beats = [Heartbeat(layout, rank=rank) for rank in (0, 1)]
        self.watch = HangWatch(layout, CONFIG, clock=lambda: self.now)

    def after(self, seconds: float) -> Hang | None:
        self.now += seconds
        return self.watch.look()


@pytest.fixture
def ranks(tmp_path: Path) -> Ranks:
    return Ranks(Layout(tmp_path))


def test_hang_is_seen_before_the_operators_bound_when_one_rank_is_silent(ranks: Ranks) -> None:
    for rank in (0, 1):
        ranks.beats[rank].beat("train", "step 4 micro-batch 1")
    assert ranks.after(0) is None
    ranks.beats[0].beat("train", "step 4 micro-batch 2")
    assert ranks.after(5) is None
    assert ranks.after(75) is None
    hang = ranks.after(1)
    assert hang is not None
    assert (hang.rank, hang.silent_seconds, hang.place) == (1, 81, "train step 4 micro-batch 1")
    assert [(beat.rank, beat.pid) for beat in sorted(hang.beats, key=lambda beat: beat.rank)] == [
        (0, os.getpid()),
        (1, os.getpid()),
    ]


def test_first_to_fall_silent_is_named_when_one_look_finds_both_beats_new(ranks: Ranks, tmp_path: Path) -> None:
    for rank in (1, 0):
        ranks.beats[rank].beat("train", "step 4 micro-batch 1")
    for rank, written in ((1, 10), (0, 11)):
        os.utime(Layout(tmp_path).heartbeats / f"rank-{rank}", (written, written))
    assert ranks.after(0) is None
    hang = ranks.after(81)
    assert hang is not None
    assert hang.rank == 1


def test_slow_training_is_no_hang_when_every_rank_still_beats(ranks: Ranks) -> None:
    for micro_batch in range(10):
        for rank in (0, 1):
            ranks.beats[rank].beat("train", f"step 1 micro-batch {micro_batch}")
        assert ranks.after(79) is None


@pytest.mark.parametrize(
    ("phase", "bound"),
    [("load", 300), ("train", 80), ("save", 400), ("drain", 400), ("export", 400), ("convert", 1_200)],
)
def test_every_phase_has_its_own_bound(ranks: Ranks, phase: str, bound: int) -> None:
    ranks.beats[0].beat(phase)
    assert ranks.after(0) is None
    assert ranks.after(bound) is None
    assert ranks.after(1) is not None


@pytest.mark.parametrize("phase", ["save", "export", "convert"])
def test_long_phase_is_not_waited_for_when_the_process_cannot_run(
    ranks: Ranks, phase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks.beats[0].beat(phase)
    assert ranks.after(0) is None
    assert ranks.after(101) is None
    monkeypatch.setattr(hangs, "process_state", lambda pid: "T")
    hang = ranks.after(1)
    assert hang is not None
    assert (hang.rank, hang.state) == (0, "T")


def test_training_is_not_called_hung_when_no_rank_has_spoken_yet(ranks: Ranks, tmp_path: Path) -> None:
    assert ranks.after(10_000) is None
    assert HangWatch(Layout(tmp_path / "empty"), CONFIG).look() is None


RANK = """
import sys, time, types
from pathlib import Path

# torch takes seconds to load; its recorder is tried on real ranks
torch, recorder = types.ModuleType("torch"), types.ModuleType("torch._C._distributed_c10d")
gpus = len(sys.argv) > 3
torch.cuda = types.SimpleNamespace(is_available=lambda: gpus)
recorder._dump_fr_trace_json = lambda backend: b'{"entries": []}' if gpus else b'{"entries": ["gloo"]}'
recorder._dump_nccl_trace_json = lambda: b'{"entries": ["nccl"]}'
sys.modules |= {"torch": torch, "torch._C": types.ModuleType("torch._C"), "torch._C._distributed_c10d": recorder}
from rft_trainer.paths import Layout
from rft_trainer.train.heartbeat import Heartbeat, answer_dump_requests
layout, rank = Layout(Path(sys.argv[1])), int(sys.argv[2])
answer_dump_requests(layout, rank=rank)
def waits_for_others():
    Heartbeat(layout, rank=rank).beat("train", "step 1 micro-batch 1")
    time.sleep(600)
waits_for_others()
"""


@pytest.fixture(params=["gloo", "nccl"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def processes(tmp_path: Path, backend: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Two processes that wait; the second is stopped."""
    options = ["with GPUs"] if backend == "nccl" else []
    started = [subprocess.Popen([sys.executable, "-c", RANK, str(tmp_path), str(rank), *options]) for rank in (0, 1)]
    heartbeats = Layout(tmp_path).heartbeats
    wait_until(lambda: all((heartbeats / f"rank-{rank}").is_file() for rank in (0, 1)), what="two heartbeats")
    wait_until(lambda: all((heartbeats / f"rank-{rank}").stat().st_size for rank in (0, 1)), what="two beats")
    started[1].send_signal(signal.SIGSTOP)
    wait_until(lambda: process_state(started[1].pid) == "T", what="the stop of the second process")
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_stacks_of_every_rank_are_on_the_volume_when_one_was_stopped(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RFT_ATTEMPT", "3")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    layout, config = Layout(tmp_path), CONFIG
    now = 0.0
    watch = HangWatch(layout, config, clock=lambda: now)
    assert watch.look() is None
    now = 81.0
    hang = watch.look()
    assert hang is not None
    text = secure_evidence(hang, layout, config)
    assert "rank 1 gave no sign of life for 81 s in train step 1 micro-batch 1, its process is stopped" in text
    folder = evidence(layout, config)
    for rank in (0, 1):
        assert "in waits_for_others" in (folder / f"rank-{rank}.txt").read_text()
        assert json.loads((folder / f"flight-rank-{rank}.json").read_text()) == {"entries": [backend]}
    assert json.loads((folder / "hang.json").read_text())["ranks"] == {
        "0": "train step 1 micro-batch 1",
        "1": "train step 1 micro-batch 1",
    }


@pytest.mark.parametrize("written", ['{"version": "2.10"}', '{"version": "2.10", "entries": []}', ""])
def test_flight_record_is_said_to_be_missing_when_it_names_no_collective(
    tmp_path: Path, written: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hangs, "EVIDENCE_SECONDS", 0.0)
    layout = Layout(tmp_path)
    layout.stacks.mkdir(parents=True)
    for rank, record in ((0, '{"entries": [{"profiling_name": "nccl:all_reduce"}]}'), (1, written)):
        flight_record(layout, rank=rank).write_text(record)
        (layout.stacks / f"rank-{rank}.txt").write_text("a stack")
    # the pid is ours, which goes on: only the record tells the two apart
    beats = tuple(Beat(rank, os.getpid(), "train", "step 1", since=0.0, written_ns=0) for rank in (0, 1))
    assert [hangs._is_awaited(layout, beat) for beat in beats] == [False, True]
    monkeypatch.setattr(hangs, "_signal", lambda pid, number: None)
    text = secure_evidence(Hang(1, silent_seconds=81, place="train", state="S", beats=beats), layout, CONFIG)
    assert text.endswith("; without a flight record: rank 1")


def test_hang_is_told_when_the_volume_takes_no_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hangs, "EVIDENCE_SECONDS", 0.0)
    monkeypatch.setattr(hangs, "_signal", lambda pid, number: None)
    layout = Layout(tmp_path)
    layout.stacks.mkdir(parents=True)
    layout.real(CONFIG.data_directory).parent.mkdir(parents=True)
    layout.real(CONFIG.data_directory).write_text("in the way, as a volume that went stale")
    beats = (Beat(1, os.getpid(), "save", "step 1", since=0.0, written_ns=0),)
    text = secure_evidence(Hang(1, silent_seconds=81, place="save step 1", state="D", beats=beats), layout, CONFIG)
    assert text.startswith(
        "hang: rank 1 gave no sign of life for 81 s in save step 1, its process is waiting for a disk;"
    )
    assert "nothing can be written to the volume ([Errno 20]" in text


def test_recorders_that_a_rank_asks_are_in_the_installed_torch() -> None:
    assert "version" in json.loads(last_collectives())
    from torch._C import _distributed_c10d

    assert hasattr(_distributed_c10d, "_dump_nccl_trace_json")


@pytest.mark.parametrize("backend", ["gloo"], indirect=True)
def test_evidence_of_a_rank_is_not_awaited_when_its_process_is_gone(
    tmp_path: Path, processes: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hangs, "EVIDENCE_SECONDS", math.inf)
    now = 0.0
    layout = Layout(tmp_path)
    watch = HangWatch(layout, CONFIG, clock=lambda: now)
    assert watch.look() is None
    processes[0].kill()
    processes[0].wait()
    processes[1].send_signal(signal.SIGCONT)
    wait_until(lambda: process_state(processes[1].pid) != "T", what="the second process to go on")
    now = 81.0
    hang = watch.look()
    assert hang is not None
    text = secure_evidence(hang, layout, CONFIG)
    assert "rank 0 gave no sign of life" in text
    assert "its process is gone" in text
    assert "in waits_for_others" in (layout.stacks / "rank-1.txt").read_text()


def evidence(layout: Layout, config: RunConfig) -> Path:
    return layout.real(config.data_directory) / "hangs" / "attempt-3" / "node-1"
