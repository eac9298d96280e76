"""Stages through ``rft-launch``: results and exit codes."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

from rft_trainer.contract import ExitCode, Outcome
from rft_trainer.evaluate.record import AnswerFile
from unit.trainer.factory import GYM, Pod, run_config, wait_until


def test_launch_ends_with_78_when_the_configuration_breaks_the_contract(tmp_path: Path) -> None:
    pod = Pod(tmp_path, run_config())
    pod.layout.config_file.write_text('{"version": 2}')
    assert pod.run("prepare") == ExitCode.BAD_INPUT
    assert "version" in str(pod.result().error)


def test_launch_ends_with_79_when_a_node_of_the_gang_never_comes(tmp_path: Path) -> None:
    config = run_config(nodes=2, pending_seconds=1, startup_seconds=1)
    pod = Pod(tmp_path, config, hosts="127.0.0.1 slots=1\nno-such-host.invalid slots=1\n")
    assert pod.run("train", RFT_RENDEZVOUS_PORT="0") == ExitCode.RENDEZVOUS_FAILED
    assert "host no-such-host.invalid does not resolve" in str(pod.result().error)


def catches_sigterm(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = next(line.split()[1] for line in lines if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def test_launch_ends_with_76_when_it_is_stopped_before_the_gang_is_there(tmp_path: Path) -> None:
    pod = Pod(tmp_path, run_config(nodes=2), hosts="127.0.0.1 slots=1\n127.0.0.2 slots=1\n")
    process = pod.start("train", JOB_COMPLETION_INDEX="1")
    wait_until(pod.layout.run.exists, what="the launcher")
    wait_until(lambda: catches_sigterm(process.pid), what="handlers")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == ExitCode.DRAINED_WITHOUT_CHECKPOINT
    assert pod.result().outcome is Outcome.DRAINED


def test_evaluation_fails_without_a_score_when_nothing_was_trained(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod()
    assert pod.run_here("evaluate") == ExitCode.BAD_INPUT
    assert pod.result().evaluate is None
    assert "train first" in str(pod.result().error)


def test_evaluation_fails_when_its_questions_were_trained_on(make_pod: Callable[..., Pod]) -> None:
    benchmark = {"name": "sums", "uri": f"{GYM}&seed=1000000", "limit": 4, "max_tokens": 8}
    pod = make_pod(evaluation__benchmarks=[benchmark])
    assert pod.run_here("evaluate") == ExitCode.BAD_INPUT
    assert "4 of its questions were trained on" in str(pod.result().error)


def test_answers_survive_when_the_last_line_was_cut_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    line = {
        "id": "0", "sample": 0, "text": "t", "tokens": 1, "finished": True, "extracted": "1", "correct": True,
        "reason": "equal",
    }  # fmt: skip
    path.write_text(json.dumps(line) + "\n" + json.dumps(line)[:20])
    assert list(AnswerFile(path).records) == [("0", 0)]
    assert path.read_text() == json.dumps(line) + "\n"
