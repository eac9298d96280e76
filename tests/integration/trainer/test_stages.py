"""Prepare and Evaluate through ``rft-launch``: results, exit codes, repeatability."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from rft_trainer.contract import ExitCode, Outcome, Stage
from rft_trainer.evaluate.record import AnswerFile
from rft_trainer.prepare.dataset import load
from rft_trainer.train.export import MARKER
from support.hub_server import serving
from unit.trainer.factory import GYM, Pod, run_config, wait_until


def test_prepare_gives_equal_bytes_when_it_is_killed_and_repeated(tmp_path: Path) -> None:
    pod, other = Pod(tmp_path / "a", run_config()), Pod(tmp_path / "b", run_config())
    pod.start("prepare")
    wait_until(pod.paths.data.exists, what="the run's directory")
    pod.power_off()
    assert pod.run("prepare") == ExitCode.DONE, pod.log("prepare")
    assert other.run("prepare") == ExitCode.DONE, other.log("prepare")
    first, second = pod.result().prepare, other.result().prepare
    assert first is not None
    assert first == second
    assert (first.steps, first.dropped_rows) == (6, 0)
    assert 0 < first.target_tokens < first.tokens
    for name in ("model/model.safetensors", "model/tokenizer.json", "dataset/tokens.npy"):
        assert (pod.paths.data / name).read_bytes() == (other.paths.data / name).read_bytes(), name
    marked = pod.paths.prepared.stat().st_mtime_ns
    assert pod.run("prepare") == ExitCode.DONE
    assert pod.result().prepare == first
    assert pod.paths.prepared.stat().st_mtime_ns == marked, "what is done is not done again"


def test_prepare_drops_rows_whole_when_they_are_too_long_held_out_or_unanswered(tmp_path: Path) -> None:
    pod = Pod(
        tmp_path,
        run_config(
            dataset={"uri": "file:///rft/claims/rows/rows.jsonl", "format": "messages"},
            evaluation__benchmarks=[{"name": "own", "uri": "pvc://rows/test.jsonl", "max_tokens": 8}],
            training__max_sequence_length=64,
        ),
    )
    claim = pod.layout.claim("rows", "")
    claim.mkdir(parents=True)
    turns = [("What is 2?", "two"), ("held OUT?", "yes"), ("long", "very " * 200), ("no answer", " ")]
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in turns]
    (claim / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (claim / "test.jsonl").write_text(json.dumps({"problem": "Held out?", "answer": "1"}))
    assert pod.run("prepare") == ExitCode.DONE, pod.log("prepare")
    summary = pod.result().prepare
    assert summary is not None
    assert (summary.rows, summary.dropped_rows) == (1, 3)
    assert (summary.too_long_rows, summary.unanswered_rows, summary.held_out_rows) == (1, 1, 1)
    assert load(pod.paths.dataset).rows == 1


def test_prepare_takes_model_and_rows_from_the_hub_when_the_token_allows_it(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [model] = prepared.glob("*/model")
    turns = [("What is 2?", "two"), ("What is 3?", "three"), ("Held out?", "yes")]
    rows = [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in turns]
    overrides = {
        "model": {"uri": "hf://org/base", "revision": "v1"},
        "dataset": {"uri": "hf://org/rows", "format": "messages"},
        "evaluation__benchmarks": [{"name": "own", "uri": "hf://org/questions", "max_tokens": 8}],
    }
    pod, stranger = Pod(tmp_path / "a", run_config(**overrides)), Pod(tmp_path / "b", run_config(**overrides))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serving() as hub:
        base = hub.add("model", "org/base", {"config.json": b"{}"})
        base.push({path.name: path.read_bytes() for path in model.iterdir()}, branch="v1")
        base.token = "hf_secret"
        hub.add("dataset", "org/rows", {"train.jsonl": "\n".join(json.dumps(row) for row in rows).encode()})
        hub.add("dataset", "org/questions", {"test.jsonl": b'{"problem": "held out?", "answer": "yes"}'})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert pod.run("prepare", HF_TOKEN="hf_secret") == ExitCode.DONE, pod.log("prepare")
        assert stranger.run("prepare", HF_TOKEN="") == ExitCode.BAD_INPUT, stranger.log("prepare")
    summary = pod.result().prepare
    assert summary is not None
    assert (summary.rows, summary.dropped_rows) == (2, 1)
    assert (pod.paths.model / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert "hf://org/base@v1: no such model, or it is private" in str(stranger.result().error)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"dataset": {"uri": "file:///rft/rows.jsonl", "format": "s1"}}, "rows.jsonl:2: is not JSON"),
        ({"dataset": {"uri": "pvc://gone/x", "format": "s1"}}, "does not exist"),
        ({"model": {"uri": "init://huge"}}, "the only preset is init://tiny-qwen2"),
        ({"model": {"uri": "init://tiny-qwen2?width=3"}}, "unknown option 'width'"),
        (
            {"dataset__overlong": "fail", "training__max_sequence_length": 84},
            "rows exceed training.maxSequenceLength=84, the longest has 93 tokens; raise it, or drop them whole with",
        ),
        ({"training__global_batch_size": 12}, "must be a multiple of microBatchSize=4 x 2 GPUs = 8"),
        ({"training__max_sequence_length": 16}, "training.maxSequenceLength=16: all 298 rows are longer"),
    ],
)
def test_prepare_ends_with_78_and_the_reason_when_the_input_is_bad(
    tmp_path: Path, overrides: dict[str, object], reason: str
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "attempt": "1"}\n{broken\n')
    pod = Pod(tmp_path, run_config(**{"evaluation": None, **overrides}))
    assert pod.run("prepare") == ExitCode.BAD_INPUT, pod.log("prepare")
    result = pod.result()
    assert (result.stage, result.outcome) == (Stage.PREPARE, Outcome.FAILED)
    assert reason in str(result.error)


def test_launch_ends_with_78_when_the_configuration_breaks_the_contract(tmp_path: Path) -> None:
    pod = Pod(tmp_path, run_config())
    pod.layout.config_file.write_text('{"version": 2}')
    assert pod.run("prepare") == ExitCode.BAD_INPUT
    assert "version" in str(pod.result().error)


def test_launch_ends_with_79_when_a_node_of_the_gang_never_comes(tmp_path: Path) -> None:
    config = run_config(nodes=2, startup_seconds=1)
    pod = Pod(tmp_path, config, hosts="127.0.0.1 slots=1\nno-such-host.invalid slots=1\n")
    assert pod.run("train", RFT_RENDEZVOUS_PORT="0") == ExitCode.RENDEZVOUS_FAILED
    assert "no-such-host.invalid did not reach" in str(pod.result().error)


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
    assert pod.run("evaluate") == ExitCode.BAD_INPUT
    assert pod.result().evaluate is None
    assert "train first" in str(pod.result().error)


def test_evaluation_fails_when_its_questions_were_trained_on(make_pod: Callable[..., Pod]) -> None:
    benchmark = {"name": "sums", "uri": f"{GYM}&seed=1000000", "limit": 4, "max_tokens": 8}
    pod = make_pod(evaluation__benchmarks=[benchmark])
    assert pod.run("evaluate") == ExitCode.BAD_INPUT
    assert "4 of its questions were trained on" in str(pod.result().error)


def test_evaluation_fails_without_a_score_when_its_time_is_used_up(make_pod: Callable[..., Pod]) -> None:
    pod = make_pod(evaluation__max_seconds=0)
    pod.paths.model.rename(pod.paths.export)
    (pod.paths.export / MARKER).write_text('{"step": 6}')
    assert pod.run("evaluate") == 1
    assert pod.result().evaluate is None
    assert "evaluation.maxSeconds is used up" in str(pod.result().error)


def test_evaluation_scores_each_number_of_waits_when_thinking_is_forced(make_pod: Callable[..., Pod]) -> None:
    forcing = {"waits": [0, 1], "max_thinking_tokens": 12}
    pod = make_pod(evaluation__baseline="none", evaluation__budget_forcing=forcing)
    pod.paths.model.rename(pod.paths.export)
    (pod.paths.export / MARKER).write_text('{"step": 6}')
    assert pod.run("evaluate") == ExitCode.DONE, pod.log("evaluate")
    result = pod.result().evaluate
    assert result is not None
    assert [score.metric for score in result.scores] == ["accuracy@wait=0", "accuracy@wait=1"]
    for waits in (0, 1):
        [path] = pod.paths.evaluation.glob(f"sums-step-6-wait-{waits}-*.jsonl")
        records = list(AnswerFile(path).records.values())
        assert len(records) == 8
        for record in records:
            assert record.thinking is not None
            assert record.thinking.waits <= waits
            assert record.thinking.tokens <= 12
            assert record.text.startswith("<|im_start|>think")
            assert "<|im_start|>answer" in record.text


def test_answers_survive_when_the_last_line_was_cut_by_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    line = {
        "id": "0", "sample": 0, "text": "t", "tokens": 1, "finished": True, "extracted": "1", "correct": True,
        "reason": "equal",
    }  # fmt: skip
    path.write_text(json.dumps(line) + "\n" + json.dumps(line)[:20])
    assert list(AnswerFile(path).records) == [("0", 0)]
    assert path.read_text() == json.dumps(line) + "\n"
