"""An evaluation of a remote engine is killed in the middle of its answers: those that came are on the disk."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rft_operator.cli.main import main
from rft_trainer.evaluate.forcing import S1
from rft_trainer.prepare.tiny import build_model
from rft_trainer.uris import parse_uri
from support.completions_server import Completions, as_vllm, card, serving
from support.scripted_engine import EOS, ScriptedSampler
from unit.trainer.factory import wait_until

QUESTIONS, AT_ONCE, FINISHED = 12, 4, 5


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command without the address of its engine."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    model, rows = tmp_path / "model", tmp_path / "rows.jsonl"
    uri = parse_uri("init://tiny-qwen2?hidden=32&layers=1&vocab=320&positions=256")
    build_model(
        uri, model, texts=["What is 12 + 30? The answer is 42. Let me think."] * 5, seed=1, max_sequence_length=256
    )
    rows.write_text(
        "".join(
            json.dumps({"id": str(number), "problem": f"What is {number} + 1?", "answer": str(number + 1)}) + "\n"
            for number in range(QUESTIONS)
        )
    )
    return [
        "evaluate", "served", "--tokenizer", str(model), "--format", "s1", "-b", f"own={rows}", "--scorer", "integer",
        "--thinking-tokens", "20,40", "--max-tokens", "60", "--batch-size", str(AT_ONCE), "-o", str(tmp_path / "out"),
    ]  # fmt: skip


@pytest.fixture
def engine() -> Iterator[Completions]:
    """Thinks one word, then answers right."""
    script: dict[str, list[str]] = {}
    for number in range(QUESTIONS):
        asked = f"What is {number} + 1?<|im_end|>\n<|im_start|>assistant\n{S1.start}"
        script[asked] = [" hm", S1.stops[0]]
        script[f"{asked} hm{S1.end}"] = [f"\nAnswer: {number + 1}", EOS]
    with serving(Completions(as_vllm(ScriptedSampler(script)), models=[card("served")])) as server:
        yield server


def written(folder: Path) -> list[tuple[str, str]]:
    """File and question of every answer on the disk; each line is whole."""
    return [
        (path.name, json.loads(line)["id"])
        for path in sorted(folder.glob("own-*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def test_answers_that_came_are_kept_and_at_most_those_under_way_are_asked_for_again_when_it_is_killed(
    words: list[str], engine: Completions, tmp_path: Path
) -> None:
    out, give, released = tmp_path / "out", engine.give, threading.Event()
    answered: list[str] = []
    waiting: list[str] = []

    def give_some(body: dict[str, Any]) -> Any:
        """Answer so many and let the others wait."""
        if "stop" not in body:
            with engine.lock:
                (answered if len(answered) < FINISHED else waiting).append(body["prompt"])
                waits = body["prompt"] in waiting
            assert not waits or released.wait(60)
        return give(body)

    engine.give = give_some
    address = ["--endpoint", engine.url]
    process = subprocess.Popen(
        [sys.executable, "-m", "rft_operator.cli.main", *words, *address],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        wait_until(lambda: len(waiting) == AT_ONCE or process.poll() is not None, what="requests under way")
        wait_until(lambda: len(written(out)) == 2 * FINISHED or process.poll() is not None, what="answers on the disk")
        assert process.poll() is None, process.communicate()[0]
    finally:
        process.kill()
        process.communicate()
        released.set()
    before, first = written(out), [body["prompt"] for body in engine.bodies]
    engine.give = give
    done = CliRunner().invoke(main, [*words, *address])
    assert done.exit_code == 0, done.output
    after = written(out)
    assert len(set(after)) == len(after) == 2 * QUESTIONS, "each question has one answer with each budget"
    assert set(before) < set(after)
    again = {body["prompt"] for body in engine.bodies[len(first) :]}
    assert not again & set(answered), "what was answered is not asked for again"
    assert set(waiting) <= again
    repeated = {prompt.split("+ 1?")[0] for prompt in again & set(first)}
    assert len(repeated) <= AT_ONCE, "no more is repeated than was under way"
    scores = json.loads((out / "results.json").read_text())["scores"]
    assert [(score["metric"], score["value"]) for score in scores] == [
        ("accuracy@think=40", 1.0),
        ("accuracy@think=20", 1.0),
    ]
