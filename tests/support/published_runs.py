"""Runs whose times are published, and what the estimate says of them.

The first two are the example files. The others ask the same model for runs that no example stands for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rft_operator.api.spec import Spec
from rft_operator.domain.architectures import ModelShape, known_model
from rft_operator.domain.estimate import Estimate, estimate
from rft_operator.domain.estimate_data import DataShape, known_data
from rft_operator.domain.estimate_gpu import ASSUMED, GPUS, GpuShape
from support.builders import merged

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MPT_30B = ModelShape(
    name="MPT-30B",
    hidden=7_168,
    layers=48,
    heads=64,
    kv_heads=64,
    # Two matrices of 28,672 have as many weights as three of this width.
    intermediate=19_115,
    vocabulary=50_432,
    tied_embeddings=True,
)
LLAMA_7B = ModelShape(
    name="LLaMA-7B",
    hidden=4_096,
    layers=32,
    heads=32,
    kv_heads=32,
    intermediate=11_008,
    vocabulary=32_000,
    tied_embeddings=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A run whose time is published: all steps of it, or one."""

    name: str
    source: str
    seconds: float
    one_step: bool
    estimate: Estimate

    @property
    def modelled(self) -> float:
        """Return the same time by the model, without start, checkpoints and export."""
        return self.estimate.step.total * (1 if self.one_step else self.estimate.steps)

    @property
    def ratio(self) -> float:
        """Return modelled over published."""
        return self.modelled / self.seconds


def example(name: str) -> dict[str, Any]:
    """Return the spec of an example file."""
    spec: dict[str, Any] = yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8"))["spec"]
    return spec


def of_spec(
    raw: dict[str, Any],
    *,
    model: ModelShape | None = None,
    data: DataShape | None = None,
    gpu: GpuShape = ASSUMED,
) -> Estimate:
    """Return the estimate of a spec, without a price."""
    spec = Spec.model_validate(raw)
    shape, rows = model or known_model(spec.model.uri), data or known_data(spec.dataset.uri, max_samples=None)
    assert shape is not None
    assert rows is not None
    return estimate(spec, facts=shape, data=rows, rate=None, gpu=gpu)


def _pretraining(*, batch: int, micro: int, tokens: int, offload: str) -> dict[str, Any]:
    training = {
        "globalBatchSize": batch,
        "microBatchSize": micro,
        "maxSequenceLength": tokens,
        "deepspeed": {"zeroStage": 3, "offload": offload},
    }
    return {
        "model": {"uri": "hf://any/model"},
        "dataset": {"uri": "hf://any/data", "format": "messages"},
        "training": training,
        "budget": {"limitUSD": 1},
    }


def published() -> Iterator[Published]:
    """Yield the published runs."""
    sky, s1 = example("sky-t1-32b"), example("s1-32b")
    eight = {"resources": {"nodes": 1}, "training": {"globalBatchSize": 8}}
    yield Published(
        name="Sky-T1-32B-Preview, 8 x H100, offload",
        source="model card: 19 hours",
        seconds=19 * 3_600,
        one_step=False,
        estimate=of_spec(sky),
    )
    yield Published(
        name="s1-32B, 16 x H100",
        source="s1 paper: 26 minutes",
        seconds=26 * 60,
        one_step=False,
        estimate=of_spec(s1),
    )
    yield Published(
        name="s1-32B, 8 x H100, batch 8",
        source="s1, train/sft.sh: train_runtime 5268.84",
        seconds=5_268.84,
        one_step=False,
        estimate=of_spec(merged(s1, eight)),
    )
    for tokens, rate in ((4_096, 1_802), (8_192, 1_384)):
        yield Published(
            name=f"MPT-30B, 8 x H100, rows of {tokens:,}, a step of 21 micro-batches",
            source=f"llm-foundry, scripts/train/benchmarking: {rate:,} tokens/s/GPU",
            seconds=21 * tokens / rate,
            one_step=True,
            estimate=of_spec(
                _pretraining(batch=168, micro=1, tokens=tokens, offload="none"),
                model=MPT_30B,
                data=DataShape(rows=168, mean_tokens=tokens, spread=0.0),
            ),
        )
    for offload, rows_per_second in (("none", 4.45), ("optimizer", 2.05)):
        yield Published(
            name=f"LLaMA-7B, 8 x A800, rows of 4,096, offload {offload}",
            source=f"gist chenyaofo/d4cd6a20: {rows_per_second} rows/s",
            seconds=64 / rows_per_second,
            one_step=True,
            estimate=of_spec(
                _pretraining(batch=64, micro=2, tokens=4_096, offload=offload),
                model=LLAMA_7B,
                data=DataShape(rows=64, mean_tokens=4_096, spread=0.0),
                gpu=GPUS["NVIDIA-A100-SXM4-80GB"],
            ),
        )
