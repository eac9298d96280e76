"""What ``rft top-up`` says: the limit before and after, and what the difference buys.

Invariant: money in the JSON is exact text in dollars, as everywhere in status.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rft_operator.cli.output import span
from rft_operator.domain.bill import hours_text
from rft_operator.domain.money import usd_display, usd_text
from rft_operator.domain.top_up import TopUp


def page(run: str, found: TopUp, *, dry_run: bool) -> str:
    """Return the words for people."""
    return "\n".join(_lines(run, found, dry_run=dry_run)) + "\n"


def _lines(run: str, found: TopUp, *, dry_run: bool) -> Iterator[str]:
    before, after = found.before_micro_usd, found.after_micro_usd
    if not found.added_micro_usd:
        yield f"{run}: the limit is {usd_display(after)} already, nothing to change"
        return
    tried = " (dry run: nothing was changed)" if dry_run else ""
    yield f"{run}: limit {usd_display(before)} -> {usd_display(after)} (+{usd_display(found.added_micro_usd)}){tried}"
    yield (
        f"  spent      {usd_display(found.spent_micro_usd)}, kept for the evaluation "
        f"{usd_display(found.reserve_micro_usd)}"
    )
    bought = found.bought_gpu_seconds
    if bought is None or found.micro_usd_per_gpu_hour is None:
        yield "  buys       GPU time at a price that is not known yet"
    else:
        price = usd_display(found.micro_usd_per_gpu_hour)
        gang = (
            f", {span(bought // found.gpus)} of {found.gpus} {'GPU' if found.gpus == 1 else 'GPUs'}"
            if found.gpus
            else ""
        )
        yield f"  buys       {hours_text(bought)} GPU-hours at {price}{gang}"
    old, new = found.training_seconds(before), found.training_seconds(after)
    if old is not None and new is not None:
        yield f"  training   can go on for {span(new)} before it must stop with a checkpoint (it was {span(old)})"
    if found.forecast_micro_usd is not None:
        yield f"  forecast   {usd_display(found.forecast_micro_usd)}: {_verdict(found)}"


def _verdict(found: TopUp) -> str:
    assert found.forecast_micro_usd is not None
    missing = found.forecast_micro_usd - found.after_micro_usd
    if missing > 0:
        return f"still {usd_display(missing)} more than the limit"
    return "fits" if found.forecast_micro_usd <= found.before_micro_usd else "fits now"


def document(found: TopUp) -> dict[str, Any]:
    """Return the same for programs; the keys are stable."""
    optional = {
        "usdPerGpuHour": found.micro_usd_per_gpu_hour,
        "forecastUSD": found.forecast_micro_usd,
    }
    return {
        "version": 1,
        "beforeUSD": usd_text(found.before_micro_usd),
        "afterUSD": usd_text(found.after_micro_usd),
        "addedUSD": usd_text(found.added_micro_usd),
        "spentUSD": usd_text(found.spent_micro_usd),
        "reserveUSD": usd_text(found.reserve_micro_usd),
        **{key: None if micro is None else usd_text(micro) for key, micro in optional.items()},
        "boughtGpuSeconds": found.bought_gpu_seconds,
        "trainingSeconds": {
            "before": found.training_seconds(found.before_micro_usd),
            "after": found.training_seconds(found.after_micro_usd),
        },
    }
