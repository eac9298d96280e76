"""The bill of one run or of many, taken apart: by run, namespace, label, stage, machine, or waste.

Invariant: every split has the ledger's own amounts, so its total is the ledger's to the micro-dollar, whatever the
split. Money is divided and rounded up once per row and once for the total (M12 of docs/metering.md): the total is not
the sum of rounded rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from rft_operator.api.ledger import Ledger
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.domain.bill import SECONDS_PER_HOUR, Share, bill
from rft_operator.domain.money import micro_of_text, micro_usd

USEFUL = "useful"
UNKNOWN = "-"


class By(StrEnum):
    """What a row stands for."""

    RUN = "run"
    NAMESPACE = "namespace"
    LABEL = "label"
    STAGE = "stage"
    MACHINE = "machine"
    WASTE = "waste"


@dataclass(slots=True, kw_only=True)
class _Sum:
    share: Share = field(default_factory=Share)
    waste: Share = field(default_factory=Share)
    limit_micro_usd: int = 0
    runs: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """One line of a split."""

    name: str
    share: Share
    waste: Share | None
    """Share of it that trained and evaluated nothing; None where the rows are the waste, or it is not known by row."""
    runs: int
    limit_micro_usd: int | None
    """Limits of the runs together; None where a row is no group of whole runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostTable:
    """A split of the bill."""

    by: By
    label: str | None
    now: int
    rows: tuple[CostRow, ...]
    """The dearest first."""
    total: CostRow


def waste_of(run: ReasoningFinetune) -> dict[str, Share]:
    """Return what was wasted, by reason: of ended pods exactly, of running ones as the operator last wrote it."""
    closed = _closed_waste(run.status.ledger)
    if not run.status.ledger.open:
        return closed
    found = dict(closed)
    for each in run.status.usage.waste:
        old = closed.get(each.reason, Share())
        seconds = each.gpu_seconds - old.gpu_seconds
        if seconds > 0:
            amount = micro_of_text(each.spent_usd) * SECONDS_PER_HOUR - old.amount
            found[each.reason] = old.plus(seconds, max(0, amount))
    return found


def _closed_waste(ledger: Ledger) -> dict[str, Share]:
    found: dict[str, Share] = {}

    def add(reason: str, seconds: int, amount: int) -> None:
        if seconds:
            found[reason] = found.get(reason, Share()).plus(seconds, amount)

    for total in ledger.totals:
        for each in total.waste:
            add(each.reason.value, each.gpu_seconds, int(each.amount))
    for entry in (*ledger.uncounted, *ledger.former):
        for part in entry.waste:
            add(part.reason.value, part.gpu_seconds, part.gpu_seconds * entry.micro_usd_per_gpu_hour)
    return found


def cost_table(runs: Sequence[ReasoningFinetune], *, by: By, now: int, label: str | None = None) -> CostTable:
    """Return the bill of runs at an instant; ``label`` is the key of a split by label."""
    sums: dict[str, _Sum] = {}
    total = _Sum()
    for run in runs:
        for name, share, waste in _parts(run, by=by, now=now, label=label):
            here = sums.setdefault(name, _Sum())
            here.share = here.share.plus(share.gpu_seconds, share.amount)
            total.share = total.share.plus(share.gpu_seconds, share.amount)
            here.waste = here.waste.plus(waste.gpu_seconds, waste.amount)
            if run.key not in here.runs:
                here.runs.add(run.key)
                here.limit_micro_usd += micro_usd(run.spec.budget.limit_usd)
        wasted = _sum(waste_of(run).values())
        total.waste = total.waste.plus(wasted.gpu_seconds, wasted.amount)
        total.limit_micro_usd += micro_usd(run.spec.budget.limit_usd)
        total.runs.add(run.key)
    whole = by in (By.RUN, By.NAMESPACE, By.LABEL)
    rows = [_row(name, each, whole=whole) for name, each in sums.items()]
    rows.sort(key=lambda row: (-row.share.amount, row.name))
    return CostTable(by=by, label=label, now=now, rows=tuple(rows), total=_row("TOTAL", total, whole=True))


def _row(name: str, found: _Sum, *, whole: bool) -> CostRow:
    return CostRow(
        name=name,
        share=found.share,
        waste=found.waste if whole else None,
        runs=len(found.runs),
        limit_micro_usd=found.limit_micro_usd if whole else None,
    )


def _parts(run: ReasoningFinetune, *, by: By, now: int, label: str | None) -> Iterator[tuple[str, Share, Share]]:
    """Yield (row, share, waste) of one run."""
    found = bill(run.status.ledger, now=now)
    if by is By.STAGE:
        yield from ((stage, share, Share()) for stage, share in found.by_stage.items())
    elif by is By.MACHINE:
        for kind, share in found.by_kind.items():
            words = ", ".join(part for part in (kind.gpu_product, kind.capacity_type) if part)
            yield words or UNKNOWN, share, Share()
    elif by is By.WASTE:
        waste = waste_of(run)
        wasted = _sum(waste.values())
        yield from ((reason, share, Share()) for reason, share in waste.items())
        yield (
            USEFUL,
            Share(gpu_seconds=found.gpu_seconds, amount=found.amount).plus(-wasted.gpu_seconds, -wasted.amount),
            Share(),
        )
    else:
        name = _NAMES[by](run, label)
        yield name, Share(gpu_seconds=found.gpu_seconds, amount=found.amount), _sum(waste_of(run).values())


_NAMES: dict[By, Callable[[ReasoningFinetune, str | None], str]] = {
    By.RUN: lambda run, _: f"{run.metadata.namespace}/{run.metadata.name}",
    By.NAMESPACE: lambda run, _: run.metadata.namespace,
    By.LABEL: lambda run, label: run.metadata.labels.get(label or "", UNKNOWN),
}


def _sum(shares: Iterable[Share]) -> Share:
    total = Share()
    for each in shares:
        total = total.plus(each.gpu_seconds, each.amount)
    return total
