"""``rft plan``: what a run will need and cost, before it exists and without a cluster.

Invariant: what was assumed because nobody said it is said on the page, never taken silently. The JSON form is stable
(version 1); docs/planning.md describes both.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rft_operator.api.choices import Overlong
from rft_operator.api.spec import Spec
from rft_operator.cli.output import table
from rft_operator.cli.plan_input import find_data, find_model, find_rate, read_catalogue, read_manifest
from rft_operator.domain.architectures import ModelShape
from rft_operator.domain.estimate import Estimate, Money, Span, estimate
from rft_operator.domain.estimate_advice import advise
from rft_operator.domain.estimate_data import DataShape
from rft_operator.domain.estimate_gpu import ASSUMED, GPU_PRODUCT_LABEL, GPUS, GpuShape
from rft_operator.domain.estimate_memory import GIB
from rft_operator.domain.evaluation_memory import evaluation_too_big
from rft_operator.domain.money import usd_display, usd_text
from rft_operator.domain.prices import PriceCatalogue
from rft_operator.domain.rates import Rate
from rft_operator.errors import InvalidResource

SECONDS_PER_HOUR = 3_600
GPU_PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "total")
HOST_PARTS = ("weights", "gradients", "optimizer", "loading", "total")
Output = Literal["text", "json"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says beside the manifest."""

    prices: Path | None = None
    config: Path | None = None
    gpu: str | None = None
    rows: int | None = None
    mean_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An estimate with what it was made from."""

    name: str
    spec: Spec
    model: ModelShape
    data: DataShape
    gpu: GpuShape
    estimate: Estimate
    money: Money
    advice: tuple[str, ...]
    notes: tuple[str, ...]
    """What was assumed, and what the reader should know besides."""


def make_plan(manifest: str, options: Options, *, now: int) -> Plan:
    """Return the plan of a manifest; raises InvalidResource and PriceCatalogueError."""
    name, spec = read_manifest(manifest)
    catalogue, problems = read_catalogue(options.prices)
    try:
        rate = find_rate(spec, catalogue, has_prices=options.prices is not None, at=now)
    except InvalidResource as error:
        raise InvalidResource(error.reason, "\n".join((str(error), *map(_left_out, problems)))) from error
    gpu, assumption = _gpu(spec, catalogue, rate=rate, option=options.gpu)
    model = find_model(spec, config=options.config)
    data = find_data(spec, rows=options.rows, mean_tokens=options.mean_tokens)
    found = estimate(spec, facts=model, data=data, rate=rate, gpu=gpu)
    assert found.money is not None  # it is None only without a rate
    return Plan(
        name=name,
        spec=spec,
        model=model,
        data=data,
        gpu=gpu,
        estimate=found,
        money=found.money,
        advice=advise(spec, found, facts=model, data=data, rate=rate, gpu=gpu),
        notes=(
            *map(_left_out, problems),
            *assumption,
            *_notes(spec, found),
            *filter(None, [evaluation_too_big(spec, model=model, gpu=gpu)]),
        ),
    )


def _left_out(problem: str) -> str:
    return f"The price catalogue leaves out {problem}."


def _gpu(spec: Spec, catalogue: PriceCatalogue, *, rate: Rate, option: str | None) -> tuple[GpuShape, tuple[str, ...]]:
    """Return the GPU, and a note if it had to be assumed: by the option, the node's label, the price's entry."""
    if option is not None and option not in GPUS:
        raise InvalidResource("GpuUnknown", f"--gpu is {option!r}; known are {', '.join(sorted(GPUS))}")
    priced = next((each.match.gpu_product for each in catalogue.entries if each.name == rate.source), None)
    product = option or spec.scheduling.node_selector.get(GPU_PRODUCT_LABEL) or priced
    known = GPUS.get(product or "")
    if known is not None:
        return known, ()
    why = "nothing names the GPU" if product is None else f"GPU {product} is not known to this version"
    words = (
        f"{why}: {ASSUMED.product} (80 GB) is assumed; name it with --gpu, or by the label {GPU_PRODUCT_LABEL} in "
        "spec.scheduling.nodeSelector"
    )
    return ASSUMED, (f"{words[0].upper()}{words[1:]}.",)


def _notes(spec: Spec, found: Estimate) -> Iterator[str]:
    host = found.memory.host
    if found.data.dropped_rows:
        refused = spec.dataset.overlong is Overlong.FAIL
        yield (
            f"About {found.data.dropped_rows:,} rows are longer than training.maxSequenceLength "
            f"({found.training.max_sequence_length:,} tokens) and "
            f"{'dataset.overlong: fail refuses the run for them' if refused else 'are dropped'}."
        )
    if host.usable is None:
        yield f"resources.memory is not set: a pod needs about {host.total / GIB:.0f} GiB of its node's memory."
    if found.save_seconds > spec.checkpoint.grace_seconds:
        yield (
            f"A checkpoint takes about {found.save_seconds} s, more than checkpoint.graceSeconds "
            f"({spec.checkpoint.grace_seconds}): the first stop may lose the steps since the last checkpoint."
        )


def page(plan: Plan) -> str:
    """Return the plan for people."""
    return "\n".join(_lines(plan)) + "\n"


def _lines(plan: Plan) -> Iterator[str]:
    found = plan.estimate
    training, gang = found.training, found.gang
    offload = f", offload {training.offload}" if training.offload != "none" else ""
    yield f"{plan.name}: {plan.model.name} ({_short(plan.model.parameters)} parameters)"
    yield (
        f"{gang.nodes} x {gang.gpus_per_node} {plan.gpu.product}, ZeRO-{training.zero_stage}{offload}, "
        f"{training.precision}"
    )
    yield ""
    yield from _memory(found)
    yield ""
    yield from _work(plan)
    yield ""
    yield from _cost(plan)
    yield ""
    yield from _verdict(plan)
    for note in plan.notes:
        yield f"Note      {note}"


def _memory(found: Estimate) -> Iterator[str]:
    gpu, host = found.memory.gpu, found.memory.host
    usable = "?" if host.usable is None else f"{host.usable / GIB:.1f}"
    rows = [("GiB", "PER GPU", "PER NODE (HOST)")]
    for part in ("weights", "gradients", "optimizer", "activations", "logits", "loading", "total"):
        cells = [f"{getattr(each, part) / GIB:.1f}" if hasattr(each, part) else "" for each in (gpu, host)]
        rows.append((part, cells[0], cells[1]))
    rows.append(("usable", f"{gpu.usable / GIB:.1f}", usable))
    yield from table(rows)


def _work(plan: Plan) -> Iterator[str]:
    found, step = plan.estimate, plan.estimate.step
    packed = f", packed into {found.data.count:,} sequences" if found.data.packed else ""
    yield f"Data      {found.data.rows:,} rows of about {plan.data.mean_tokens:,} tokens{packed}"
    yield f"          ({plan.data.source})"
    yield (
        f"Work      {found.steps:,} steps of {found.training.global_batch_size:,} sequences, "
        f"{_short(found.tokens)} tokens"
    )
    parts = (
        ("compute", step.compute),
        ("waiting for the longest row", step.waiting),
        ("collectives", step.communication),
        ("copies to the host", step.host_copies),
        ("CPU optimizer", step.optimizer),
        ("other", step.fixed),
    )
    shown = " + ".join(f"{seconds:.2g} {words}" for words, seconds in parts if seconds)
    yield f"Step      {step.total:.3g} s = {shown}"
    yield (
        f"Beside    start {found.start_seconds} s, {found.saves} x {found.save_seconds} s of checkpoints, "
        f"export {found.export_seconds} s"
    )


def _cost(plan: Plan) -> Iterator[str]:
    found, money = plan.estimate, plan.money
    spans = (
        ("hours", [f"{each / SECONDS_PER_HOUR:,.2f}" for each in _ends(found.seconds)]),
        ("GPU-hours", [f"{each / SECONDS_PER_HOUR:,.1f}" for each in _ends(found.gpu_seconds)]),
        ("dollars", [usd_display(each) for each in _ends(money.micro_usd)]),
    )
    yield from table([("TRAINING", "LOW", "EXPECTED", "HIGH"), *((name, *cells) for name, cells in spans)])
    yield "(low: rows ordered by length as this trainer does, and all else well; high: steps take twice as long)"
    yield f"Price     {usd_display(money.rate.micro_usd_per_gpu_hour)} per GPU-hour ({money.rate.source})"


def _ends(span: Span) -> tuple[int, int, int]:
    return span.low, span.expected, span.high


def _verdict(plan: Plan) -> Iterator[str]:
    found, money = plan.estimate, plan.money
    yield (
        f"Budget    limit {usd_display(money.limit_micro_usd)}, kept for the evaluation "
        f"{usd_display(money.reserve_micro_usd)}, a stop takes up to {money.stop_bound_seconds} s"
    )
    if money.training_seconds is not None:
        kind = "the evaluation starts then at the latest" if plan.spec.evaluation is not None else "then it is stopped"
        yield (
            f"          training must end after {money.training_seconds / SECONDS_PER_HOUR:.2f} h or "
            f"{usd_display(money.training_micro_usd)}; {kind}"
        )
    yield f"Memory    {_memory_words(found)}"
    yield f"Money     {_money_words(found, money)}"
    for piece in plan.advice:
        yield f"Advice    {piece}"
    if not found.works and not plan.advice:
        yield "Advice    no change of up to three of layout, epochs and limit was found that works; use a smaller model"


def _memory_words(found: Estimate) -> str:
    gpu, host = found.memory.gpu, found.memory.host
    if not found.memory.fits_gpu:
        return f"DOES NOT FIT: a GPU needs {gpu.total / GIB:.1f} GiB and has {gpu.usable / GIB:.1f}"
    if host.usable is not None and not found.memory.fits_host:
        return f"DOES NOT FIT: a node needs {host.total / GIB:.0f} GiB and resources.memory is {host.usable / GIB:.0f}"
    return "fits"


def _money_words(found: Estimate, money: Money) -> str:
    if not money.sufficient:
        missing = money.needed_micro_usd - money.limit_micro_usd
        return f"NOT ENOUGH: {usd_display(missing)} short of the expected end; it would stop with a checkpoint"
    if money.training_seconds is not None and found.seconds.high > money.training_seconds:
        return "enough for the expected end, not for the high one: training would stop with a checkpoint"
    return "enough, even for the high end"


def _short(number: int) -> str:
    for unit, words in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.4g} {words}"
    return str(number)


def to_json(plan: Plan) -> str:
    """Return the plan for programs; the keys are stable."""
    found, money = plan.estimate, plan.money
    gpu, host = found.memory.gpu, found.memory.host
    document = {
        "version": 1,
        "steps": found.steps,
        "tokens": found.tokens,
        "hours": _hours(found.seconds),
        "gpuHours": _hours(found.gpu_seconds),
        "usd": dict(zip(("low", "expected", "high"), map(usd_text, _ends(money.micro_usd)), strict=True)),
        "reserveUSD": usd_text(money.reserve_micro_usd),
        "memory": {
            "gpuGiB": {**_gib(gpu, GPU_PARTS), "usable": round(gpu.usable / GIB, 3)},
            "hostGiB": {
                **_gib(host, HOST_PARTS),
                "usable": None if host.usable is None else round(host.usable / GIB, 3),
            },
            "fits": found.memory.fits,
        },
        "budget": {"limitUSD": usd_text(money.limit_micro_usd), "sufficient": money.sufficient},
        "advice": list(plan.advice),
    }
    return json.dumps(document, indent=2) + "\n"


def _hours(seconds: Span) -> dict[str, float]:
    names = ("low", "expected", "high")
    return {name: round(each / SECONDS_PER_HOUR, 3) for name, each in zip(names, _ends(seconds), strict=True)}


def _gib(parts: Any, names: tuple[str, ...]) -> dict[str, float]:
    return {name: round(getattr(parts, name) / GIB, 3) for name in names}
