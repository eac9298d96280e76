"""The bill taken apart: every split has the ledger's total, to the micro-dollar."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rft_operator.api.ledger import Ledger, LedgerEntry, LedgerTotal, PriceStep, WasteReason, WasteSeconds, WasteTotal
from rft_operator.api.resource import ReasoningFinetune
from rft_operator.api.status import Status, Usage, WasteUsage
from rft_operator.domain.bill import bill
from rft_operator.domain.cost import By, cost_table, waste_of
from rft_operator.domain.timestamps import epoch, rfc3339
from support.objects import stored_run

NOW = epoch("2026-01-01T10:00:00Z")


def run_of(name: str, ledger: Ledger, *, team: str | None = None, usage: Usage | None = None) -> ReasoningFinetune:
    labels = {} if team is None else {"team": team}
    run = ReasoningFinetune.parse(stored_run(name=name, uid=f"uid-{name}", metadata={"labels": labels}))
    return run.model_copy(update={"status": Status(ledger=ledger, usage=usage or Usage())})


def total(stage: str, seconds: int, price: int, *, product: str | None = None, waste: int = 0) -> LedgerTotal:
    parts = [WasteTotal(reason=WasteReason.PULL, gpu_seconds=waste, amount=str(waste * price))] if waste else []
    return LedgerTotal(stage=stage, gpu_product=product, gpu_seconds=seconds, amount=str(seconds * price), waste=parts)


def entry(seconds: int, price: int, *, is_open: bool = False, waste: int = 0) -> LedgerEntry:
    return LedgerEntry(
        uid=f"{seconds}-{price}",
        pod="pod",
        stage="train",
        attempt=1,
        node="node-1",
        gpus=1,
        micro_usd_per_gpu_hour=price,
        price_source="spec",
        start_time=rfc3339(NOW - seconds),
        end_time=None if is_open else rfc3339(NOW),
        end_basis=None if is_open else "phaseWritten",
        waste=[WasteSeconds(reason=WasteReason.LOST_WORK, gpu_seconds=waste)] if waste else [],
    )


seconds = st.integers(min_value=0, max_value=10**7)
prices = st.integers(min_value=1, max_value=10**8)
totals = st.builds(
    total,
    st.sampled_from(["prepare", "train", "evaluate"]),
    seconds,
    prices,
    product=st.sampled_from([None, "H100"]),
    waste=st.integers(min_value=0, max_value=100),
)
ledgers = st.builds(
    Ledger,
    totals=st.lists(totals, max_size=4),
    uncounted=st.lists(st.builds(entry, seconds, prices, waste=st.just(3)), max_size=2),
    open=st.lists(st.builds(entry, seconds, prices, is_open=st.just(True)), max_size=2),
)


@given(st.lists(ledgers, max_size=4))
def test_total_of_every_split_is_the_ledgers_own_to_the_micro_dollar(found: list[Ledger]) -> None:
    runs = [run_of(f"run-{index}", ledger, team="ab"[index % 2]) for index, ledger in enumerate(found)]
    amount = sum(bill(run.status.ledger, now=NOW).amount for run in runs)
    for by in By:
        table = cost_table(runs, by=by, now=NOW, label="team")
        assert table.total.share.amount == amount
        assert table.total.share.micro_usd == -(-amount // 3_600)
        assert sum(row.share.amount for row in table.rows) == amount
        assert sum(row.share.gpu_seconds for row in table.rows) == table.total.share.gpu_seconds


def rows(by: By, *runs: ReasoningFinetune, label: str | None = None) -> dict[str, tuple[int, int]]:
    table = cost_table(runs, by=by, now=NOW, label=label)
    return {row.name: (row.share.gpu_seconds, row.share.micro_usd) for row in table.rows}


LEDGER = Ledger(totals=[total("train", 7_200, 1_000_000, product="H100", waste=360), total("evaluate", 60, 1_000_000)])


def test_rows_are_runs_stages_machines_or_waste() -> None:
    run = run_of("a", LEDGER)
    assert rows(By.RUN, run) == {"team/a": (7_260, 2_016_667)}
    assert rows(By.STAGE, run) == {"train": (7_200, 2_000_000), "evaluate": (60, 16_667)}
    assert rows(By.MACHINE, run) == {"H100": (7_200, 2_000_000), "-": (60, 16_667)}
    assert rows(By.WASTE, run) == {"useful": (6_900, 1_916_667), "pull": (360, 100_000)}
    assert rows(By.NAMESPACE, run) == {"team": (7_260, 2_016_667)}


def test_rows_of_a_label_add_its_runs_and_name_those_without() -> None:
    found = [run_of("a", LEDGER, team="x"), run_of("b", LEDGER, team="x"), run_of("c", LEDGER)]
    table = cost_table(found, by=By.LABEL, now=NOW, label="team")
    assert [(row.name, row.runs, row.limit_micro_usd) for row in table.rows] == [
        ("x", 2, 20_000_000),
        ("-", 1, 10_000_000),
    ]
    assert table.total.waste is not None
    assert table.total.waste.gpu_seconds == 3 * 360


def test_money_is_rounded_up_once_per_row_and_once_for_the_total() -> None:
    found = [run_of(name, Ledger(totals=[total("train", 1, 1)])) for name in "abc"]
    table = cost_table(found, by=By.RUN, now=NOW)
    assert [row.share.micro_usd for row in table.rows] == [1, 1, 1]
    assert table.total.share.micro_usd == 1


@pytest.mark.parametrize(("recorded", "expected"), [(500, 500), (100, 360)])
def test_waste_of_pods_that_still_run_is_what_the_operator_wrote_last(recorded: int, expected: int) -> None:
    waste = [WasteUsage(reason=WasteReason.PULL, gpu_seconds=recorded, spent_usd="0.138889")]
    ledger = LEDGER.model_copy(update={"open": [entry(1_000, 1_000_000, is_open=True)]})
    found: Any = waste_of(run_of("a", ledger, usage=Usage(waste=waste)))
    assert found["pull"].gpu_seconds == expected


def test_announced_price_is_charged_from_its_second_when_the_operator_has_not_looked_since() -> None:
    step = PriceStep(since=rfc3339(NOW - 400), micro_usd_per_gpu_hour=9_000_000, price_source="new")
    later = PriceStep(since=rfc3339(NOW + 5), micro_usd_per_gpu_hour=99_000_000, price_source="later")
    held = entry(1_000, 1_000_000, is_open=True).model_copy(update={"announced": [step, later]})
    ledger = Ledger(open=[held])
    assert bill(ledger, now=NOW).amount == 600 * 1_000_000 + 400 * 9_000_000
    assert bill(ledger, now=NOW).rate == 9_000_000
    assert rows(By.RUN, run_of("a", ledger)) == {"team/a": (1_000, 1_166_667)}
