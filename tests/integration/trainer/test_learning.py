"""The demo learns: held-out accuracy from nothing to most, by real training on two CPU ranks."""

from __future__ import annotations

from pathlib import Path

import pytest

from rft_trainer.contract import ExitCode
from unit.trainer.factory import GYM, Pod, free_port, run_config


@pytest.mark.distributed
@pytest.mark.slow
def test_tiny_model_answers_held_out_sums_when_trained_on_worked_solutions(tmp_path: Path) -> None:
    config = run_config(
        model__uri="init://tiny-qwen2?hidden=64&layers=2",
        dataset={"uri": f"{GYM}&seed=1000000", "format": "s1", "max_samples": 12_000},
        training__max_steps=600,
        training__learning_rate=8e-3,
        training__global_batch_size=64,
        training__micro_batch_size=32,
        evaluation__benchmarks=[{"name": "sums", "uri": f"{GYM}&seed=10000000", "limit": 100, "max_tokens": 96}],
        evaluation__batch_size=100,
    )
    pod = Pod(tmp_path, config)
    port = str(free_port())
    for stage in ("prepare", "train", "evaluate"):
        assert pod.run(stage, timeout_seconds=500, RFT_RENDEZVOUS_PORT=port) == ExitCode.DONE, pod.log(stage)
    summary = pod.result().evaluate
    assert summary is not None
    score = summary.scores[0]
    assert score.baseline is not None
    assert score.baseline <= 0.02
    assert score.value >= 0.8
    assert score.questions == 100
