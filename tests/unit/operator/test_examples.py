"""Every example says what it costs, and ``rft plan`` agrees; its name is that of its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rft_operator.api import BUDGET_KIND, KIND
from rft_operator.domain.money import micro_of_text, usd_display
from support.planning import rft

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
PRICES = EXAMPLES / "spot-prices.yaml"
NOT_PLANNED = {"tiny-local": "its GPUs are CPUs, whose speed nobody models"}

STOPPED = ("resume-after-stop",)
"""Examples of a run whose limit stops it."""


def documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


def runs() -> list[Path]:
    return sorted(path for path in EXAMPLES.glob("*.yaml") if any(each.get("kind") == KIND for each in documents(path)))


def cost_line(path: Path) -> str:
    (line,) = [each for each in path.read_text(encoding="utf-8").splitlines() if each.startswith("# Costs: ")]
    return line


def planned(path: Path) -> str:
    """Return the line that an example must have, by ``rft plan``."""
    result = rft("-f", str(path), "--prices", str(PRICES), "-o", "json")
    plan = json.loads(result.stdout)
    low, expected, high = (_dollars(plan["usd"][key]) for key in ("low", "expected", "high"))
    reserve, limit = _dollars(plan["reserveUSD"]), _dollars(plan["budget"]["limitUSD"]).removesuffix(".00")
    training = f"{expected} to train (from {low} to {high})"
    return f"# Costs: {training}, {reserve} kept for the evaluation, never more than {limit}."


def _dollars(text: str) -> str:
    return usd_display(micro_of_text(text))


@pytest.mark.parametrize("path", [path for path in runs() if path.stem not in NOT_PLANNED], ids=lambda path: path.stem)
def test_example_says_what_the_plan_says(path: Path) -> None:
    assert cost_line(path) == planned(path)


@pytest.mark.parametrize("path", [path for path in runs() if path.stem not in NOT_PLANNED], ids=lambda path: path.stem)
def test_example_has_the_money_for_what_it_shows(path: Path) -> None:
    plan = json.loads(rft("-f", str(path), "--prices", str(PRICES), "-o", "json").stdout)
    assert plan["budget"]["sufficient"] is (path.stem not in STOPPED)
    if path.stem in STOPPED:
        left = micro_of_text(plan["budget"]["limitUSD"]) - micro_of_text(plan["reserveUSD"])
        assert left < micro_of_text(plan["usd"]["low"]), "if all goes well it would end before it stops"


@pytest.mark.parametrize("name", NOT_PLANNED)
def test_example_without_a_plan_names_its_limit(name: str) -> None:
    path = EXAMPLES / f"{name}.yaml"
    assert cost_line(path).endswith(f"never more than ${documents(path)[0]['spec']['budget']['limitUSD']}.")


@pytest.mark.parametrize("path", runs(), ids=lambda path: path.stem)
def test_run_has_the_name_of_its_file(path: Path) -> None:
    assert [each["metadata"]["name"] for each in documents(path) if each["kind"] == KIND] == [path.stem]


def test_example_of_a_team_budget_names_its_limit() -> None:
    path = EXAMPLES / "team-budget.yaml"
    (budget,) = [each for each in documents(path) if each["kind"] == BUDGET_KIND]
    spec = budget["spec"]
    assert cost_line(path).endswith(f"never more than ${spec['limitUSD']:,} a {spec['window']}.")
