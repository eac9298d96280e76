"""The bill of runs on the command line, in every form."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from support.command_line import CommandLine, run_in


def cost_status(seconds: int, waste: int = 0) -> dict[str, Any]:
    total: dict[str, Any] = {"stage": "train", "gpuSeconds": seconds, "amount": str(seconds * 3_600_000)}
    if waste:
        total["waste"] = [{"reason": "pull", "gpuSeconds": waste, "amount": str(waste * 3_600_000)}]
    return {"ledger": {"totals": [total]}}


def test_cost_takes_the_bill_apart(cli: CommandLine) -> None:
    cli.put(
        run_in("a", status=cost_status(3_000, 300), metadata={"labels": {"team": "x"}}),
        run_in("b", status=cost_status(1_000)),
        run_in("c", status=cost_status(9_999), namespace="other"),
    )
    code, out, _ = cli.rft("cost")
    assert code == 0
    assert [line.split() for line in out.splitlines()] == [
        ["RUN", "GPU-H", "SPENT", "SHARE", "LIMIT", "WASTE"],
        ["team/a", "0.833", "$3.00", "75.0%", "$10.00", "$0.30", "(10.0%)"],
        ["team/b", "0.278", "$1.00", "25.0%", "$10.00", "$0.00", "(0.0%)"],
        ["TOTAL", "1.111", "$4.00", "100.0%", "$20.00", "$0.30", "(7.5%)"],
    ]
    by_team = json.loads(cli.rft("cost", "--by", "team", "-o", "json")[1])
    assert (by_team["by"], by_team["label"]) == ("label", "team")
    assert [(row["name"], row["microUSD"], row["runs"]) for row in by_team["rows"]] == [
        ("x", 3_000_000, 1),
        ("-", 1_000_000, 1),
    ]
    assert by_team["total"]["spentUSD"] == "4.000000"
    waste = cli.rft("cost", "a", "--by", "waste")[1].splitlines()
    assert [line.split()[0] for line in waste] == ["USE", "useful", "pull", "TOTAL"]
    everything = yaml.safe_load(cli.rft("cost", "-A", "--by", "namespace", "-o", "yaml")[1])
    assert everything["total"]["microUSD"] == 13_999_000
    table_of_stages = cli.rft("cost", "--by", "stage", "-o", "csv")[1].splitlines()
    assert table_of_stages[0].startswith("name,gpuSeconds,microUSD,spentUSD")
    assert table_of_stages[-1].startswith("TOTAL,4000,4000000,4.000000")


@pytest.mark.parametrize("options", [("--by", "label"), ("--by", "run", "--label", "x"), ("a", "-A")])
def test_cost_refuses_options_that_do_not_fit(cli: CommandLine, options: tuple[str, ...]) -> None:
    assert cli.rft("cost", *options)[0] == 2
