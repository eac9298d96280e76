"""Background processes: started, found again by another process, ended; nobody else's is ever touched."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rft_local.errors import StartError
from rft_local.processes import Processes, Record, start_ticks, wait_until

SLEEP = ["sleep", "1000"]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    it = Processes(tmp_path)
    yield it
    for name in it.records():
        it.kill(name)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(SLEEP) as process:
        yield process
        process.kill()


def forge(folder: Path, **records: tuple[int, int]) -> None:
    (folder / "processes.json").write_text(json.dumps(records))


def test_process_is_found_and_ended_by_another_process_than_the_one_that_started_it(
    processes: Processes, tmp_path: Path
) -> None:
    pid = processes.start("part", SLEEP)
    other = Processes(tmp_path)
    assert other.records() == {"part": Record(pid, start_ticks(pid) or 0)}
    assert other.alive("part")
    assert other.pid("part") == pid
    other.kill("part")
    assert start_ticks(pid) is None
    assert other.records() == {}
    assert processes.pid("part") is None


def test_reused_pid_is_never_signalled(tmp_path: Path, stranger: subprocess.Popen[bytes]) -> None:
    ticks = start_ticks(stranger.pid)
    assert ticks is not None
    forge(tmp_path, part=(stranger.pid, ticks - 1))
    processes = Processes(tmp_path)
    assert not processes.alive("part")
    assert processes.pid("part") is None
    assert not processes.signal("part", signal.SIGKILL)
    processes.kill("part")
    assert stranger.poll() is None
    assert processes.records() == {}


def test_process_that_ended_is_dead_also_while_it_is_a_zombie(processes: Processes) -> None:
    pid = processes.start("part", SLEEP)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes.alive("part"), what="the end", seconds=10, every_seconds=0.01)
    assert not processes.signal("part", signal.SIGTERM)


def test_process_that_can_be_put_on_no_record_is_ended(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename
    monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(OSError, match="No space left"):
        processes.start("part", ["sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 1000"])
    monkeypatch.setattr(Path, "rename", rename)
    written = (tmp_path / "pid").read_text() if (tmp_path / "pid").exists() else ""
    assert not written.strip() or start_ticks(int(written)) is None
    assert processes.records() == {}


def test_process_is_ended_when_the_disk_is_full(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = processes.start("part", SLEEP)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", full_disk)
        processes.kill("part")
    assert start_ticks(pid) is None
    assert not processes.alive("part")


def full_disk(path: Path, *_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device", str(path))


def test_unknown_process_is_neither_alive_nor_an_error(processes: Processes) -> None:
    assert not processes.alive("nobody")
    assert not processes.signal("nobody", signal.SIGKILL)
    processes.kill("nobody")
    assert processes.records() == {}


def test_frozen_process_is_ended_too(processes: Processes) -> None:
    pid = processes.start("part", SLEEP)
    assert processes.signal("part", signal.SIGSTOP)
    processes.kill("part")
    assert start_ticks(pid) is None


def test_ended_process_leaves_no_zombie_behind(processes: Processes) -> None:
    pid = processes.start("part", SLEEP)
    processes.kill("part")
    assert not Path(f"/proc/{pid}").exists()


def test_output_goes_into_a_log_of_its_own_and_is_kept_over_restarts(processes: Processes, tmp_path: Path) -> None:
    for word in ("first", "second"):
        processes.start("part", ["sh", "-c", f"echo {word}; echo {word} >&2; exec sleep 1000"])
        log = tmp_path / "log" / "part.log"
        wait_until(
            lambda w=word, f=log: f.read_text().count(w) == 2,  # type: ignore[misc]
            what="the log",
            seconds=10,
            every_seconds=0.01,
        )
        processes.kill("part")
    assert log.read_text().split() == ["first", "first", "second", "second"]
    tail = processes.tail("part", lines=2)
    assert str(log) in tail
    assert tail.endswith("second\nsecond")


def test_tail_of_a_process_that_never_wrote_is_empty(processes: Processes) -> None:
    assert processes.tail("nobody").endswith("nobody.log:\n")


def test_process_has_a_session_of_its_own_and_the_environment_it_was_given(
    processes: Processes, tmp_path: Path
) -> None:
    file = tmp_path / "seen"
    code = f"import os, time, pathlib; pathlib.Path({str(file)!r}).write_text(os.environ['WORD']); time.sleep(1000)"
    pid = processes.start("part", [sys.executable, "-c", code], environment={"WORD": "given"})
    wait_until(lambda: file.exists() and file.read_text() == "given", what="the word", seconds=10, every_seconds=0.01)
    assert os.getsid(pid) == pid
    assert Path(f"/proc/{pid}/cwd").resolve() == Path("/")


def test_records_of_several_processes_stand_side_by_side(processes: Processes) -> None:
    pids = {name: processes.start(name, SLEEP) for name in ("a", "b", "c")}
    processes.kill("b")
    assert {name: record.pid for name, record in processes.records().items()} == {"a": pids["a"], "c": pids["c"]}


@pytest.mark.parametrize("pid", [0, 2**22 + 1])
def test_start_of_no_process_is_none(pid: int) -> None:
    assert start_ticks(pid) is None


def test_start_is_read_although_a_name_has_blanks_and_brackets(tmp_path: Path) -> None:
    program = tmp_path / "a) R 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "1000"]) as process:
        text = Path(f"/proc/{process.pid}/stat").read_text()
        assert start_ticks(process.pid) == int(text[text.rindex(")") :].split()[20])
        process.kill()


def test_waiting_ends_when_it_holds() -> None:
    answers = iter([False, False, True])
    wait_until(lambda: next(answers), what="it", seconds=10, every_seconds=0)
    assert list(answers) == []


def test_waiting_too_long_is_an_error_with_a_hint() -> None:
    with pytest.raises(StartError, match=r"waited 0 s for the moon\. look up"):
        wait_until(lambda: False, what="the moon", seconds=0, every_seconds=0, hint=lambda: "look up")
