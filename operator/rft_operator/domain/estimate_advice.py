"""What would make a run fit that does not: edits of its spec.

Invariant: no advice is given that the estimate does not say works, and none that does more than it must: the edits are
tried by their number, and the search ends with the first number that works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rft_operator.api.choices import Offload
from rft_operator.api.spec import Spec
from rft_operator.domain.architectures import ModelShape
from rft_operator.domain.estimate import Estimate, estimate
from rft_operator.domain.estimate_data import DataShape
from rft_operator.domain.estimate_gpu import GpuShape
from rft_operator.domain.estimate_memory import GIB
from rft_operator.domain.money import MICRO, usd_display
from rft_operator.domain.rates import Rate
from rft_operator.errors import InvalidResource

MOST_EDITS = 3
MOST_ADVICE = 5
MOST_NODES = 512
"""What the resource's schema allows."""
HIGHEST_LIMIT_USD = 999_999_999
Ask = Callable[[Spec], Estimate | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    """A change of one thing in the spec."""

    field: str
    value: Any
    spec: Spec

    @property
    def words(self) -> str:
        return f"{self.field}: {self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    """Edits made one after another, and what the estimate says of the outcome."""

    spec: Spec
    estimate: Estimate
    edits: tuple[_Edit, ...] = ()

    @property
    def fields(self) -> frozenset[str]:
        return frozenset(edit.field for edit in self.edits)

    @property
    def key(self) -> frozenset[str]:
        return frozenset(edit.words for edit in self.edits)

    @property
    def words(self) -> str:
        done, gpu = self.estimate, self.estimate.memory.gpu
        parts = [f"{done.seconds.expected / 3600:.1f} h", f"{done.gpu_seconds.expected / 3600:.1f} GPU-hours"]
        if done.money is not None:
            parts.append(usd_display(done.money.micro_usd.expected))
        parts.append(f"{gpu.total / GIB:.1f} of {gpu.usable / GIB:.1f} GiB per GPU")
        return f"{' and '.join(edit.words for edit in self.edits)} ({', '.join(parts)})"


def advise(
    spec: Spec, now: Estimate, *, facts: ModelShape, data: DataShape, rate: Rate | None, gpu: GpuShape
) -> tuple[str, ...]:
    """Return edits that would make the run work, cheapest first; none if it works as it is."""

    def ask(changed: Spec) -> Estimate | None:
        try:
            return estimate(changed, facts=facts, data=data, rate=rate, gpu=gpu)
        except InvalidResource:
            return None

    level = [_Try(spec=spec, estimate=now)]
    for _ in range(MOST_EDITS if not now.works else 0):
        # The same edits in another order are the same advice.
        level = list({after.key: after for before in level for after in _next(before, ask)}.values())
        working = [each for each in level if each.estimate.works]
        if working:
            return tuple(each.words for each in sorted(working, key=_cost)[:MOST_ADVICE])
    return ()


def _cost(each: _Try) -> tuple[int, int]:
    raised = any(edit.field == "budget.limitUSD" for edit in each.edits)
    return int(raised), each.estimate.gpu_seconds.expected


def _next(before: _Try, ask: Ask) -> Iterator[_Try]:
    """Yield what one more edit leads to."""
    for edit in (*_of_machine(before), *_of_money(before, ask)):
        if edit.field in before.fields:
            continue
        found = ask(edit.spec)
        if found is not None:
            yield _Try(spec=edit.spec, estimate=found, edits=(*before.edits, edit))


def _of_machine(before: _Try) -> Iterator[_Edit]:
    """Yield other ways to lay out the same training."""
    spec, training, done = before.spec, before.estimate.training, before.fields
    if "budget.limitUSD" in done or "training.epochs" in done:
        return
    if training.zero_stage < 3:
        yield _deepspeed(spec, "zeroStage", {"zero_stage": 3}, value=3)
    for offload in Offload:
        if offload != training.offload and (offload is not Offload.ALL or training.zero_stage == 3):
            yield _deepspeed(spec, "offload", {"offload": offload}, value=offload.value)
    if not training.gradient_checkpointing:
        yield _training(spec, "gradientCheckpointing", {"gradient_checkpointing": True}, value="true")
    if training.micro_batch_size > 1:
        yield _training(spec, "microBatchSize", {"micro_batch_size": 1}, value=1)
    nodes = spec.resources.nodes
    for count in (nodes // 2 if nodes % 2 == 0 else 0, nodes * 2, nodes * 4):
        if 1 <= count <= MOST_NODES:
            yield _resources(spec, "nodes", {"nodes": count}, value=count)
    host = before.estimate.memory.host
    if before.estimate.memory.fits_gpu and not before.estimate.memory.fits_host:
        memory = f"{math.ceil(host.total / GIB)}Gi"
        yield _resources(spec, "memory", {"memory": memory}, value=memory)


def _of_money(before: _Try, ask: Ask) -> Iterator[_Edit]:
    """Yield less training, or more money, where money alone is short."""
    spec, money = before.spec, before.estimate.money
    if money is None or money.sufficient or not before.estimate.memory.fits:
        return
    epochs = _most_epochs(spec, below=before.estimate.training.epochs, ask=ask)
    if epochs:
        yield _epochs(spec, epochs)
    limit = -(-money.needed_micro_usd // MICRO)
    if limit <= HIGHEST_LIMIT_USD:
        budget = spec.budget.model_copy(update={"limit_usd": limit})
        yield _Edit(field="budget.limitUSD", value=limit, spec=spec.model_copy(update={"budget": budget}))


def _most_epochs(spec: Spec, *, below: int, ask: Ask) -> int:
    """Return the most epochs under ``below`` that work, 0 if not even one does; fewer never cost more."""
    low, high = 0, below - 1
    while low < high:
        middle = (low + high + 1) // 2
        found = ask(_epochs(spec, middle).spec)
        if found is not None and found.works:
            low = middle
        else:
            high = middle - 1
    return low


def _epochs(spec: Spec, epochs: int) -> _Edit:
    return _training(spec, "epochs", {"epochs": epochs}, value=epochs)


def _training(spec: Spec, name: str, update: Mapping[str, Any], *, value: Any) -> _Edit:
    training = spec.training.model_copy(update=update)
    return _Edit(field=f"training.{name}", value=value, spec=spec.model_copy(update={"training": training}))


def _deepspeed(spec: Spec, name: str, update: Mapping[str, Any], *, value: Any) -> _Edit:
    deepspeed = spec.training.deepspeed.model_copy(update=update)
    return _training(spec, f"deepspeed.{name}", {"deepspeed": deepspeed}, value=value)


def _resources(spec: Spec, name: str, update: Mapping[str, Any], *, value: Any) -> _Edit:
    resources = spec.resources.model_copy(update=update)
    return _Edit(field=f"resources.{name}", value=value, spec=spec.model_copy(update={"resources": resources}))
