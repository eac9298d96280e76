"""How ``rft cost`` is printed: a table for people, JSON, YAML or CSV for programs.

Invariant: programs get exact dollars, micro-dollars and GPU-seconds; people get cents, rounded up.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from rft_operator.cli.output import table
from rft_operator.domain.bill import hours_text
from rft_operator.domain.cost import By, CostRow, CostTable
from rft_operator.domain.money import usd_display, usd_text
from rft_operator.domain.timestamps import rfc3339

HEADS = {
    By.RUN: "RUN",
    By.NAMESPACE: "NAMESPACE",
    By.STAGE: "STAGE",
    By.MACHINE: "MACHINE",
    By.WASTE: "USE",
}


def page(found: CostTable) -> str:
    """Return the table for people."""
    groups = found.by in (By.RUN, By.NAMESPACE, By.LABEL)
    head = (found.label or "LABEL").upper() if found.by is By.LABEL else HEADS[found.by]
    names = [head, "GPU-H", "SPENT", "SHARE"]
    if groups:
        names += ["LIMIT", "WASTE"]
    if found.by in (By.NAMESPACE, By.LABEL):
        names.append("RUNS")
    rows = [tuple(names), *(_cells(each, found, names) for each in (*found.rows, found.total))]
    return "\n".join(table(rows)) + "\n"


def _cells(row: CostRow, found: CostTable, names: list[str]) -> tuple[str, ...]:
    cells = [row.name, hours_text(row.share.gpu_seconds), usd_display(row.share.micro_usd), _share(row, found)]
    if "LIMIT" in names:
        cells.append(usd_display(row.limit_micro_usd or 0))
        waste = row.waste
        cells.append("-" if waste is None else f"{usd_display(waste.micro_usd)} {_percent(waste.amount, row)}")
    if "RUNS" in names:
        cells.append(str(row.runs))
    return tuple(cells)


def _share(row: CostRow, found: CostTable) -> str:
    total = found.total.share.amount
    return f"{100 * row.share.amount / total:.1f}%" if total else "-"


def _percent(amount: int, row: CostRow) -> str:
    return f"({100 * amount / row.share.amount:.1f}%)" if row.share.amount else ""


def to_document(found: CostTable) -> dict[str, Any]:
    """Return the split for programs; the keys are stable."""
    return {
        "version": 1,
        "now": rfc3339(found.now),
        "by": found.by.value,
        **({"label": found.label} if found.label is not None else {}),
        "rows": [_document(row) for row in found.rows],
        "total": {key: value for key, value in _document(found.total).items() if key != "name"},
    }


def _document(row: CostRow) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": row.name,
        "gpuSeconds": row.share.gpu_seconds,
        "microUSD": row.share.micro_usd,
        "spentUSD": usd_text(row.share.micro_usd),
        "runs": row.runs,
    }
    if row.limit_micro_usd is not None:
        document["limitUSD"] = usd_text(row.limit_micro_usd)
    if row.waste is not None:
        document |= {"wasteGpuSeconds": row.waste.gpu_seconds, "wasteUSD": usd_text(row.waste.micro_usd)}
    return document


def to_csv(found: CostTable) -> str:
    """Return the split for spreadsheets, the total as the last row."""
    rows = [_document(row) for row in (*found.rows, found.total)]
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[-1]), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
