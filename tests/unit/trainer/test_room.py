"""What the evaluation would refuse for want of room is refused in Prepare, before the training is paid for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rft_trainer.benchmarks import Question
from rft_trainer.contract import ExitCode, ModelSource
from rft_trainer.errors import BadInputError
from rft_trainer.evaluate.protocol import Exam
from rft_trainer.evaluate.room import check_room
from rft_trainer.paths import Layout
from rft_trainer.prepare.model import fetch_model
from unit.trainer.factory import Pod, run_config

FORCED = {"waits": (0, 1), "max_thinking_tokens": 100}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A tiny Qwen2 of 256 positions."""
    source = ModelSource(uri="init://tiny-qwen2?hidden=16&layers=1&vocab=300&positions=256")
    path = tmp_path / "model"
    fetch_model(source, Layout(tmp_path), path, texts=["1 + 1 = 2"], seed=1, max_sequence_length=32)
    return path


def exam(problem: str, *, max_tokens: int, **evaluation: Any) -> Exam:
    config = run_config(
        evaluation={
            "benchmarks": [{"name": "sums", "uri": "pvc://rows/test.jsonl", "max_tokens": max_tokens}],
            "baseline": "measure",
            "batch_size": 8,
            "max_seconds": 300,
            **evaluation,
        }
    )
    assert config.evaluation is not None
    return Exam(evaluation=config.evaluation, format="s1", questions={"sums": [Question("0", problem, "2", "math")]})


def test_prepare_refuses_a_thinking_budget_when_the_model_cannot_hold_it(tmp_path: Path) -> None:
    config = run_config(
        model={"uri": "init://tiny-qwen2?hidden=16&layers=1&positions=256"}, evaluation__budget_forcing=FORCED
    )
    assert config.evaluation is not None
    wide = [each.model_copy(update={"max_tokens": 256}) for each in config.evaluation.benchmarks]
    evaluation = config.evaluation.model_copy(update={"benchmarks": tuple(wide)})
    pod = Pod(tmp_path, config.model_copy(update={"evaluation": evaluation}))
    assert pod.run_here("prepare") == ExitCode.BAD_INPUT
    error = pod.result().error
    assert error is not None
    assert "benchmark sums: maxTokens=256" in error
    assert "do not fit the model's 256; lower maxTokens" in error
    assert not pod.paths.prepared.exists()


def test_questions_are_taken_when_their_thinking_and_answers_fit(model: Path) -> None:
    check_room(exam("1 + 1", max_tokens=120, budget_forcing=FORCED), model)
    check_room(exam("1 + 1", max_tokens=100_000), model)  # without a budget an answer is cut where the context ends


def test_a_question_is_refused_when_it_fills_the_model(model: Path) -> None:
    with pytest.raises(BadInputError, match=r"benchmark sums: a question of \d+ tokens leaves no room for an answer"):
        check_room(exam("1 + 1 " * 200, max_tokens=8), model)


def test_vllm_is_left_to_reckon_the_room_when_the_model_scales_its_positions(model: Path) -> None:
    wide = exam("1 + 1", max_tokens=512, budget_forcing=FORCED, engine="vllm")
    with pytest.raises(BadInputError, match="do not fit the model's 256"):
        check_room(wide, model)
    file = model / "config.json"
    scaled = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 10_000.0}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rope_parameters": scaled}))
    check_room(wide, model)


def test_questions_are_refused_when_the_chat_template_knows_no_such_turns(model: Path) -> None:
    asked = exam("1 + 1", max_tokens=8, prompt="sky-t1")
    (model / "chat_template.jinja").write_text(
        "{% for message in messages %}{% if message['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "<{{ message['role'] }}>{{ message['content'] }}</>{% endfor %}"
    )
    with pytest.raises(BadInputError, match=r"refuses the turns system, user \(System role not supported\)"):
        check_room(asked, model)
