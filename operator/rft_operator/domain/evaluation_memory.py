"""Whether the GPUs of an evaluation can hold the model at all.

Invariant: refused is only what cannot be: weights alone that are larger than the GPUs' memory. It is said before the
training is paid for, for ``evaluation`` cannot change once the run has started.
"""

from __future__ import annotations

from rft_operator.api.evaluation import EvaluationEngine
from rft_operator.api.spec import Spec
from rft_operator.domain.architectures import ModelShape
from rft_operator.domain.estimate_gpu import GpuShape
from rft_operator.domain.estimate_memory import GIB
from rft_operator.domain.evaluation import evaluation_config

_BYTES = {"fp32": 4, "bf16": 2, "auto": 2}
"""Of a weight on a GPU."""


def evaluation_too_big(spec: Spec, *, model: ModelShape, gpu: GpuShape) -> str | None:
    """Return why the evaluation cannot load the model, and what would help; None where it can or none is asked for.

    Raises InvalidResource where the evaluation contradicts itself.
    """
    if spec.evaluation is None:
        return None
    config = evaluation_config(spec.evaluation, model_uri=spec.model.uri)
    weights, room = _BYTES[config.precision] * model.parameters, config.gpus * gpu.memory_bytes
    if weights <= room:
        return None
    of_preset = f" in {config.precision} (preset {config.preset})" if config.precision == "fp32" else ""
    needed = -(-weights // gpu.memory_bytes)
    remedy = f"set evaluation.gpus: {needed} or more"
    if spec.evaluation.engine is not EvaluationEngine.VLLM:
        remedy = f"set evaluation.engine: vllm and evaluation.gpus: {needed} or more"
    if of_preset:
        remedy += ", or take another preset"
    return (
        f"The weights alone need {-(-weights // GIB)} GiB{of_preset}, and the evaluation's {config.gpus} x "
        f"{gpu.product} have {room // GIB} GiB: {remedy}. Or leave evaluation out, and use rft evaluate afterwards."
    )
