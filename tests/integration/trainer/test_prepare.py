"""The Prepare stage: repeatable, killable, and clear about what it drops and refuses."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rft_trainer.contract import ExitCode, Outcome, Stage
from rft_trainer.prepare.dataset import load
from rft_trainer.weights import KEPT
from support.hub_server import serving
from unit.trainer.factory import Pod, run_config, wait_until


def test_prepare_gives_equal_bytes_when_it_is_killed_and_repeated(tmp_path: Path, prepared: Path) -> None:
    pod = Pod(tmp_path, run_config())
    pod.start("prepare")
    wait_until(pod.paths.data.exists, what="the run's directory")
    pod.power_off()
    assert pod.run("prepare") == ExitCode.DONE, pod.log("prepare")
    summary = pod.result().prepare
    assert summary is not None
    assert (summary.steps, summary.dropped_rows) == (6, 0)
    assert 0 < summary.target_tokens < summary.tokens
    for path in (pod.paths.model, pod.paths.dataset):
        other = prepared / pod.paths.data.name / path.name
        assert contents(path) == contents(other)
    marked = pod.paths.prepared.stat().st_mtime_ns
    assert pod.run("prepare") == ExitCode.DONE
    assert pod.result().prepare == summary
    assert pod.paths.prepared.stat().st_mtime_ns == marked, "what is done is not done again"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file but notes of ours: those beside the weights hold times."""
    return {each.name: each.read_bytes() for each in folder.iterdir() if not each.name.startswith(".")}


def test_base_model_is_hashed_while_no_gpu_is_held(prepared: Path) -> None:
    (model,) = prepared.glob("*/model")
    assert "model.safetensors" in json.loads((model / KEPT).read_text())["files"]


def test_prepare_refuses_a_volume_that_the_first_checkpoint_would_fill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1 << 40, free=1_000))
    pod = Pod(tmp_path, run_config())
    assert pod.run_here("prepare") == ExitCode.BAD_INPUT
    assert "the volume has room for 0.0 MB" in (pod.result().error or "")
    assert not pod.paths.prepared.exists()


def test_prepare_says_what_to_do_when_the_volume_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rft_trainer.prepare.main.save", full)
    pod = Pod(tmp_path, run_config())
    assert pod.run_here("prepare") == 1, "the volume may be larger at the next attempt"
    assert "prepare: the volume is full; " in (pod.result().error or "")
    assert "enlarge the claim" in (pod.result().error or "")


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
    asked_early = [*rows[1]["messages"], *rows[0]["messages"]]
    published = "def f(x):\n    ...\n"
    rows += [{"messages": asked_early}, {"messages": [{"role": "user", "content": published}, asked_early[1]]}]
    (claim / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    human_eval = {"task_id": "1", "prompt": published, "entry_point": "f", "test": "assert f(1)"}
    questions = [{"problem": "Held out?", "answer": "1"}, human_eval]
    (claim / "test.jsonl").write_text("\n".join(json.dumps(row) for row in questions))
    assert pod.run_here("prepare") == ExitCode.DONE
    summary = pod.result().prepare
    assert summary is not None
    assert (summary.rows, summary.dropped_rows) == (1, 5)
    assert (summary.too_long_rows, summary.unanswered_rows, summary.held_out_rows) == (1, 1, 3)
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
    ("tests", "reason"),
    [
        (
            {"inputs": ["1"], "outputs": []},
            "benchmark own: test.jsonl:1: tests.outputs [] is not a list of at least one",
        ),
        (
            {"inputs": ["1"], "outputs": ["1"], "memory_mib": 4_096},
            "(tests.memory_mib), which the 3584 MiB of evaluation.codeExecution.memory have no room for; give at least",
        ),
    ],
    ids=["wrong", "too large"],
)
def test_prepare_refuses_tests_of_programs_before_a_gpu_is_paid_for(
    tmp_path: Path, tests: dict[str, object], reason: str
) -> None:
    benchmarks = [{"name": "own", "uri": "pvc://rows/test.jsonl", "max_tokens": 8}]
    config = run_config(evaluation__benchmarks=benchmarks, evaluation__program_memory_mib=3_584)
    pod = Pod(tmp_path, config)
    claim = pod.layout.claim("rows", "")
    claim.mkdir(parents=True)
    (claim / "test.jsonl").write_text(json.dumps({"problem": "Say 1.", "tests": tests}))
    assert pod.run_here("prepare") == ExitCode.BAD_INPUT
    assert reason in str(pod.result().error)


def test_prepare_refuses_an_engine_that_the_image_does_not_have_before_a_gpu_is_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    pod = Pod(tmp_path, run_config(evaluation__engine="vllm"))
    assert pod.run_here("prepare") == ExitCode.BAD_INPUT
    assert "evaluation.engine: vllm is not installed here" in str(pod.result().error)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"dataset": {"uri": "file:///rft/rows.jsonl", "format": "s1"}}, "rows.jsonl:2: is not JSON"),
        ({"dataset": {"uri": "file:///rft/empty.jsonl", "format": "s1"}}, "'file:///rft/empty.jsonl': has no rows"),
        (
            {"dataset": {"uri": "file:///rft/unanswered.jsonl", "format": "s1"}},
            "no row can be trained on: 1 have no answer, 0 are questions of a benchmark; check dataset.format and the",
        ),
        ({"dataset": {"uri": "pvc://gone/x", "format": "s1"}}, "does not exist"),
        ({"model": {"uri": "init://huge"}}, "the only preset is init://tiny-qwen2"),
        ({"model": {"uri": "init://tiny-qwen2?width=3"}}, "unknown option 'width'"),
        (
            {"dataset__overlong": "fail", "training__max_sequence_length": 84},
            "rows exceed training.maxSequenceLength=84, the longest has 93 tokens; raise it, or drop them whole with",
        ),
        ({"training__global_batch_size": 12}, "must be a multiple of microBatchSize=4 x 2 GPUs = 8"),
        (
            {"training__lora": {"rank": 2, "alpha": 4, "dropout": 0.0, "target_modules": ["q_proj", "c_attn"]}},
            "training.lora.targetModules: 'c_attn' is no linear layer of this model below its output; name some of",
        ),
        ({"training__max_sequence_length": 16}, "training.maxSequenceLength=16: all 298 rows are longer"),
    ],
)
def test_prepare_ends_with_78_and_the_reason_when_the_input_is_bad(
    tmp_path: Path, overrides: dict[str, object], reason: str
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "q", "thinking": "t", "attempt": "1"}\n{broken\n')
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "unanswered.jsonl").write_text('{"question": "q", "response": "1"}\n')
    pod = Pod(tmp_path, run_config(**{"evaluation": None, **overrides}))
    assert pod.run_here("prepare") == ExitCode.BAD_INPUT
    result = pod.result()
    assert (result.stage, result.outcome) == (Stage.PREPARE, Outcome.FAILED)
    assert reason in str(result.error)
