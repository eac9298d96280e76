"""What the operator expects of a run before its first report: the estimate of ``rft plan``, where all of it is known.

Invariant: nothing is assumed here. A model, a dataset or a GPU that is not known gives no expectation, and a run is
refused only for what no training can do without: weights, gradients and optimizer that do not fit into the memory.
"""

from __future__ import annotations

from rft_operator.domain.architectures import known_model
from rft_operator.domain.draft import Draft
from rft_operator.domain.estimate import Estimate, estimate
from rft_operator.domain.estimate_data import known_data
from rft_operator.domain.estimate_gpu import GPU_PRODUCT_LABEL, GPUS, GpuShape
from rft_operator.domain.estimate_memory import GIB
from rft_operator.domain.evaluation_memory import evaluation_too_big
from rft_operator.domain.rates import Rate, pool


def expectation(draft: Draft, rate: Rate) -> Estimate | None:
    """Return the estimate of the run, or None where model, data or GPU are not known; raises InvalidResource."""
    spec = draft.spec
    model = known_model(spec.model.uri)
    data = known_data(spec.dataset.uri, max_samples=spec.dataset.max_samples)
    gpu = _gpu(draft)
    if model is None or data is None or gpu is None:
        return None
    return estimate(spec, facts=model, data=data, rate=rate, gpu=gpu)


def unevaluable(draft: Draft) -> str | None:
    """Return why the evaluation could not load the model; None where it can, or model or GPU are not known."""
    model, gpu = known_model(draft.spec.model.uri), _gpu(draft)
    return None if model is None or gpu is None else evaluation_too_big(draft.spec, model=model, gpu=gpu)


def _gpu(draft: Draft) -> GpuShape | None:
    """Return the kind of GPU of the pool, if it is one kind and a known one."""
    scheduling = draft.spec.scheduling
    nodes = pool(
        draft.view.nodes, node_selector=scheduling.node_selector, gpu_resource=draft.spec.resources.gpu_resource
    )
    products = {node.labels.get(GPU_PRODUCT_LABEL) for node in nodes} or {
        scheduling.node_selector.get(GPU_PRODUCT_LABEL)
    }
    return GPUS.get(products.pop() or "") if len(products) == 1 else None


def too_big(expected: Estimate) -> str | None:
    """Return why the model's states cannot fit into the GPUs, and what would help; None if they can."""
    gpu = expected.memory.gpu
    states = gpu.weights + gpu.gradients + gpu.optimizer
    if states <= gpu.usable:
        return None
    return (
        f"Weights, gradients and optimizer need {_gib(states)} GiB on each of {expected.gang.ranks} GPUs, which have "
        f"{_gib(gpu.usable)} GiB for it. Raise training.deepspeed.zeroStage, set training.deepspeed.offload, or raise "
        "resources.nodes; rft plan says which is enough."
    )


def tight(expected: Estimate) -> str | None:
    """Return a warning where the run may run out of memory; None if it fits."""
    memory = expected.memory
    if memory.fits:
        return None
    if not memory.fits_gpu:
        return (
            f"The estimate of {_gib(memory.gpu.total)} GiB on each GPU is more than its {_gib(memory.gpu.usable)} GiB: "
            "training may run out of memory. rft plan says what would help."
        )
    return (
        f"The estimate of {_gib(memory.host.total)} GiB in each node's memory is more than resources.memory: the pods "
        "may be killed. Raise resources.memory; rft plan has the parts."
    )


def expected_micro_usd(expected: Estimate) -> int | None:
    """Return what the run is going to cost, evaluation included; None where no price is known."""
    money = expected.money
    return None if money is None else money.micro_usd.expected + money.reserve_micro_usd


def _gib(size: int) -> int:
    return -(-size // GIB)
